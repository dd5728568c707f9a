//! Kinds of backing, residency and host-physical layout of memory: as requested, and as reported.

use core::fmt;

use rustix::param::page_size;

/// The kind of pages of a memory object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Backing {
    /// 1 GiB pages from the kernel's pool (hugetlb).
    Huge1G,
    /// 2 MiB pages from the kernel's pool (hugetlb).
    Huge2M,
    /// Base pages that the kernel collapses into 2 MiB pages as far as it can (transparent huge
    /// pages).
    Thp,
    /// Base pages, of the host's page size.
    Base,
    /// A file that somebody else created.
    Adopted,
    /// A pass-through window.
    PassThrough,
    /// Memory that the embedding program has mapped.
    External,
}

impl Backing {
    /// The backings that [`ram`](crate::MemoryObject::ram) tries by default, best first.
    pub const PREFERENCE: [Self; 4] = [Self::Huge1G, Self::Huge2M, Self::Thp, Self::Base];

    /// Parses the name of a backing that RAM can have, as in a configuration file, in upper or
    /// lower case: `1G`, `2M`, `thp`, `4K`. `None` if it is none of these.
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

    /// The size of the pages that are certain to be host-contiguous, in bytes.
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

/// A backing that was requested and could not be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassedOver {
    /// The backing.
    pub backing: Backing,
    /// Why it could not be used, and what would help.
    pub why: String,
}

/// A report of an object's backing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackingReport {
    /// The backing that was obtained.
    pub obtained: Backing,
    /// The preferred ones that were tried before it, in order.
    pub passed_over: Vec<PassedOver>,
    /// A remark about the backing that was obtained, such as its number of huge pages.
    pub note: Option<String>,
    /// Its host-physical runs, if it was to be [host-contiguous](super::Ram::host_contiguous) and
    /// addresses are known.
    pub placement: Option<Placement>,
}

impl BackingReport {
    pub(crate) fn of(obtained: Backing) -> Self {
        Self { obtained, passed_over: Vec::new(), note: None, placement: None }
    }
}

/// Statistics of the host-physical runs of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Runs {
    /// The number of runs.
    pub count: u64,
    /// The length of the shortest, in bytes.
    pub shortest: u64,
    /// The length of the longest, in bytes.
    pub longest: u64,
}

impl Runs {
    pub(super) fn of(lens: impl Iterator<Item = u64>) -> Self {
        let mut runs = Self { shortest: u64::MAX, ..Self::default() };
        for len in lens {
            runs.count += 1;
            runs.shortest = runs.shortest.min(len);
            runs.longest = runs.longest.max(len);
        }
        runs
    }
}

/// The host-physical runs of memory before and after it was mapped in the order of its frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The runs as the kernel allocated them, in the order of the file.
    pub before: Runs,
    /// The runs as the memory is mapped.
    pub after: Runs,
    /// The number of further pages of the pool that were candidates; as many were released.
    pub spare_pages: u64,
}

/// Whether a host-physical address can change while a mapping lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stability {
    /// It can: the kernel moves such pages when it compacts, swaps or merges memory, or an owner
    /// who is not trusted can replace them.
    Unpinned,
    /// It can, but does not in practice: hugetlb pages, which compaction does not move as measured;
    /// newer kernels do not promise it.
    Reserved,
    /// It cannot: every page is held by a [`PinMethod`](super::PinMethod), or the address is
    /// declared, of a pass-through window. Nobody who is not trusted can replace the pages, except
    /// whoever received the file of RAM that is not [exclusive](super::Ram::exclusive). A page that
    /// is taken out of its file stays where it is, and belongs to nobody else.
    Pinned,
}

impl Stability {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Reserved => "reserved",
            Self::Unpinned => "unpinned",
        }
    }
}

impl fmt::Display for Stability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How firmly an object's pages are held in memory, as requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Residency {
    /// Populated, and pinned if the kernel allows it; frame numbers are read.
    #[default]
    Pinned,
    /// Populated, but free to move; frame numbers are read, and may go stale.
    Resident,
    /// Populated when it is accessed; host-physical addresses are not known.
    OnDemand,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_what_they_name() {
        for backing in Backing::PREFERENCE {
            assert_eq!(Backing::parse(backing.name()), Some(backing));
        }
        assert_eq!(Backing::parse("adopted"), None, "RAM cannot be adopted");
        assert_eq!(Backing::parse("THP"), Some(Backing::Thp));
    }
}
