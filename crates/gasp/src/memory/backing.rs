//! What kind of pages memory is made of, and why not better ones.

use core::fmt;

use rustix::param::page_size;

use super::place::Placement;

/// The kind of pages behind a memory object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Backing {
    /// 1 GiB pages from the kernel's pool (hugetlb).
    Huge1G,
    /// 2 MiB pages from the kernel's pool (hugetlb).
    Huge2M,
    /// Ordinary memory gathered into 2 MiB pages where the kernel finds them (THP).
    Thp,
    /// Ordinary pages of the host's page size.
    Base,
    /// A file that somebody else made.
    Adopted,
    /// A pass-through window.
    PassThrough,
    /// Memory that the embedding program had mapped already.
    External,
}

impl Backing {
    /// Best first: what [`ram`](crate::MemoryObject::ram) tries when told nothing else.
    pub const PREFERENCE: [Self; 4] = [Self::Huge1G, Self::Huge2M, Self::Thp, Self::Base];

    /// The backing by its name in a configuration file, for those one can ask for:
    /// `1G`, `2M`, `thp`, `4K`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::PREFERENCE.into_iter().find(|backing| backing.name().eq_ignore_ascii_case(name))
    }

    /// The name in configuration files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Huge1G => "1G",
            Self::Huge2M => "2M",
            Self::Thp => "thp",
            Self::Base => "4K",
            Self::Adopted => "adopted",
            Self::PassThrough => "pass-through",
            Self::External => "external",
        }
    }

    /// The size of the pages that are certain to be physically contiguous, in bytes.
    pub(crate) fn page_size(self) -> usize {
        match self {
            Self::Huge1G => 1 << 30,
            Self::Huge2M => 2 << 20,
            _ => page_size(),
        }
    }
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A backing that was asked for and not had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassedOver {
    /// The backing.
    pub backing: Backing,
    /// Why it was not had, and what would help.
    pub why: String,
}

/// What an object's memory turned out to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackingReport {
    /// What was obtained.
    pub obtained: Backing,
    /// The better ones that were tried first.
    pub passed_over: Vec<PassedOver>,
    /// A remark about what was obtained, such as how many huge pages it holds.
    pub note: Option<String>,
    /// How it lies in host memory, where it was to be
    /// [host-contiguous](super::Ram::host_contiguous) and addresses are known.
    pub placement: Option<Placement>,
}

impl BackingReport {
    pub(crate) fn of(obtained: Backing) -> Self {
        Self { obtained, passed_over: Vec::new(), note: None, placement: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_what_they_name() {
        for backing in Backing::PREFERENCE {
            assert_eq!(Backing::parse(backing.name()), Some(backing));
        }
        assert_eq!(Backing::parse("adopted"), None, "one cannot ask for adopted memory");
        assert_eq!(Backing::parse("THP"), Some(Backing::Thp));
    }
}
