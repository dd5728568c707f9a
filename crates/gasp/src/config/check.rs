//! Checks of single values that several tables have in common.
//!
//! A check returns the value, or an error at its [`Mark`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use toml::Spanned;

use super::error::ConfigError;
use super::file::DrainTable;
use super::form::Form;
use super::near;
use super::size::{Bytes, Number};
use super::source::{Mark, Source};
use crate::addr::{Address, GRANULE};
use crate::error::Errno;
use crate::guest::GuestBuilder;
use crate::mapping::DrainPolicy;
use crate::span::Span;

/// Maximum deadline of a drain in milliseconds: one hour.
const DEADLINE_MAX: u64 = 3_600_000;
/// Maximum length of a name in bytes.
const NAME_MAX: usize = 128;

/// The context of the checks.
pub(super) struct Check<'a> {
    pub(super) source: &'a Source,
    /// The guest's address width in bits.
    pub(super) width: u32,
}

/// Names, with the mark of their definition.
pub(super) type Names = HashMap<String, Mark>;

impl<'a> Check<'a> {
    pub(super) fn new(
        source: &'a Source,
        width: Option<&Spanned<Number>>,
    ) -> Result<Self, ConfigError> {
        let Some(width) = width else { return Ok(Self { source, width: GuestBuilder::WIDTH }) };
        let widths = GuestBuilder::WIDTHS;
        let bits = u32::try_from(width.get_ref().0).ok().filter(|bits| widths.contains(bits));
        let wrong = || {
            let message = format!("expected {} to {} bits", widths.start(), widths.end());
            source.wrong(Mark::of(width, "guest.address-width"), &message)
        };
        Ok(Self { source, width: bits.ok_or_else(wrong)? })
    }

    /// Checks that a range is not empty, and inside the guest's address width.
    pub(super) fn span<A: Address>(
        &self,
        (start, start_at): (u64, Mark),
        (len, len_at): (u64, Mark),
    ) -> Result<Span<A>, ConfigError> {
        if len == 0 {
            return Err(self.source.wrong(len_at, "expected more than 0 bytes"));
        }
        let beyond = |at| {
            let width = self.width;
            let key = match self.source.form() {
                Form::Toml => " (`address-width`)",
                Form::Qvm => "",
            };
            let message = format!(
                "{:#} from {start:#x} on extend past the guest's address width of {width} bits{key}",
                Bytes(len)
            );
            Err(self.source.wrong(at, &message).with_errno(Errno::NXIO))
        };
        if start >> self.width != 0 {
            return beyond(start_at);
        }
        match Span::<A>::new(A::new(start), len) {
            Ok(span) if span.last().raw() >> self.width == 0 => Ok(span),
            _ => beyond(len_at),
        }
    }

    /// Checks that a number is a multiple of 4 KiB.
    pub(super) fn granular(&self, value: u64, at: Mark) -> Result<u64, ConfigError> {
        match value.is_multiple_of(GRANULE) {
            true => Ok(value),
            false => {
                let message = format!("expected a multiple of 4 KiB, not {value:#x}");
                Err(self.source.wrong(at, &message))
            }
        }
    }

    /// Checks that the length of a region of memory is a multiple of 4 KiB.
    pub(super) fn region_size(
        &self,
        size: &Spanned<Bytes>,
        key: &'static str,
    ) -> Result<(u64, Mark), ConfigError> {
        let at = Mark::of(size, key);
        match size.get_ref().0.is_multiple_of(GRANULE) {
            true => Ok((size.get_ref().0, at)),
            false => {
                let message = format!("expected a multiple of 4 KiB, not {:#}", size.get_ref());
                Err(self.source.wrong(at, &message))
            }
        }
    }

    /// Checks the length of a name, and that it has no control characters.
    pub(super) fn name(
        &self,
        name: &Spanned<String>,
        key: &'static str,
    ) -> Result<String, ConfigError> {
        let text = name.get_ref();
        let good = !text.is_empty() && text.len() <= NAME_MAX && !text.contains(char::is_control);
        match good {
            true => Ok(text.clone()),
            false => {
                let message = "expected a name of 1 to 128 bytes without control characters";
                Err(self.source.wrong(Mark::of(name, key), message))
            }
        }
    }

    /// Checks a name, and adds it to `names`, in which it must not be yet.
    pub(super) fn unique(
        &self,
        names: &mut Names,
        name: &Spanned<String>,
        key: &'static str,
    ) -> Result<String, ConfigError> {
        let text = self.name(name, key)?;
        let at = Mark::of(name, key);
        match names.entry(text.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(at);
                Ok(text)
            }
            Entry::Occupied(entry) => {
                let line = self.source.line(*entry.get(), at);
                let message = format!("the name `{text}` is taken on {line}");
                Err(self.source.wrong(at, &message).with_errno(Errno::EXIST))
            }
        }
    }

    /// Checks that a name is in `names`, which are those of the tables `table`.
    pub(super) fn known(
        &self,
        names: &Names,
        name: &Spanned<String>,
        key: &'static str,
        table: &str,
    ) -> Result<String, ConfigError> {
        let text = name.get_ref();
        match names.contains_key(text) {
            true => Ok(text.clone()),
            false => {
                let mut known: Vec<&str> = names.keys().map(String::as_str).collect();
                known.sort_unstable();
                let hint = near::hint(text, &known);
                let message = format!("there is no {table} with the name `{text}`{hint}");
                Err(self.source.wrong(Mark::of(name, key), &message).with_errno(Errno::NOENT))
            }
        }
    }

    /// The policy of a table; keys that it does not have are as in `default`.
    pub(super) fn drain(
        &self,
        table: &DrainTable,
        default: DrainPolicy,
        key: &'static str,
    ) -> Result<DrainPolicy, ConfigError> {
        let mut policy = default;
        if let Some(deadline) = &table.deadline_ms {
            let milliseconds = deadline.get_ref().0;
            if milliseconds > DEADLINE_MAX {
                let message = format!("expected 0 to {DEADLINE_MAX} milliseconds");
                return Err(self.source.wrong(Mark::of(deadline, key), &message));
            }
            policy.deadline = Duration::from_millis(milliseconds);
        }
        if let Some(word) = table.at_deadline {
            policy.at_deadline = word.0;
        }
        Ok(policy)
    }
}
