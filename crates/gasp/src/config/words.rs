//! Values in a configuration file that are one of several words, or letters.

use core::fmt;
use core::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use super::machine::settings::{Action, LogLevel, LogTo};
use super::near::nearest;
use crate::access::Access;
use crate::iommu::DomainKind;
use crate::iommu::Unattached;
use crate::mapping::Deadline;
use crate::memory::{Backing, PinMethod, Residency};

/// A type whose values are words in the file.
pub(super) trait Word: Copy + 'static {
    /// All words, with their values.
    const WORDS: &'static [(&'static str, Self)];
}

impl Word for Backing {
    const WORDS: &'static [(&'static str, Self)] =
        &[("1G", Self::Huge1G), ("2M", Self::Huge2M), ("thp", Self::Thp), ("4K", Self::Base)];
}

impl Word for PinMethod {
    const WORDS: &'static [(&'static str, Self)] =
        &[("io-uring", Self::IoUring), ("pipe", Self::Pipe)];
}

impl Word for Residency {
    const WORDS: &'static [(&'static str, Self)] =
        &[("pinned", Self::Pinned), ("resident", Self::Resident), ("on-demand", Self::OnDemand)];
}

impl Word for Unattached {
    const WORDS: &'static [(&'static str, Self)] =
        &[("deny", Self::Deny), ("bypass", Self::Bypass)];
}

impl Word for Deadline {
    const WORDS: &'static [(&'static str, Self)] =
        &[("wait", Self::Wait), ("detach", Self::Detach)];
}

impl Word for DomainKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("bypass", Self::Bypass),
        ("deny", Self::Deny),
        ("identity", Self::Identity),
        ("translate", Self::Translate),
    ];
}

impl Word for Action {
    const WORDS: &'static [(&'static str, Self)] =
        &[("abort", Self::Abort), ("fail", Self::Fail), ("ignore", Self::Ignore)];
}

impl Word for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("fatal", Self::Fatal),
        ("internal", Self::Internal),
        ("error", Self::Error),
        ("warning", Self::Warning),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("verbose", Self::Verbose),
    ];
}

impl Word for LogTo {
    const WORDS: &'static [(&'static str, Self)] =
        &[("stdout", Self::Stdout), ("stderr", Self::Stderr), ("none", Self::Nowhere)];
}

/// The value of a [`Word`] in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<W>(pub(super) W);

impl<'de, W: Word> Deserialize<'de> for Named<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(WordVisitor(PhantomData))
    }
}

/// The value of a word, if it is one.
pub(super) fn word<W: Word>(text: &str) -> Option<W> {
    W::WORDS.iter().find(|(word, _)| *word == text).map(|&(_, value)| value)
}

struct WordVisitor<W>(PhantomData<W>);

impl<W: Word> Visitor<'_> for WordVisitor<W> {
    type Value = Named<W>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (word, _) in W::WORDS {
            write!(f, "{between}{word:?}")?;
            between = " or ";
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Named<W>, E> {
        word(text).map(Named).ok_or_else(|| {
            match nearest(text, W::WORDS.iter().map(|(word, _)| *word)) {
                Some(near) => E::custom(format!("unknown word {text:?}; did you mean {near:?}?")),
                None => E::invalid_value(Unexpected::Str(text), &self),
            }
        })
    }
}

/// An access in letters; never empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letters(pub(super) Access);

impl<'de> Deserialize<'de> for Letters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(LettersVisitor)
    }
}

struct LettersVisitor;

impl Visitor<'_> for LettersVisitor {
    type Value = Letters;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("at least one of the letters r, w, x")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Letters, E> {
        Access::parse(text)
            .filter(|access| !access.is_empty())
            .map(Letters)
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_the_names_in_reports() {
        for (word, backing) in Backing::WORDS {
            assert_eq!(*word, backing.name());
        }
        assert_eq!(Backing::WORDS.len(), Backing::PREFERENCE.len());
        for (word, method) in PinMethod::WORDS {
            assert_eq!(*word, method.name());
        }
        assert_eq!(PinMethod::WORDS.len(), PinMethod::PREFERENCE.len());
        for (word, kind) in DomainKind::WORDS {
            assert_eq!(*word, kind.name());
        }
        assert_eq!(DomainKind::WORDS.len(), DomainKind::ALL.len());
    }
}
