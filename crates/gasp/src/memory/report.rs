//! What memory is made of, how firmly it is held, and how it lies in the host: what is asked
//! for, and what is reported.

use core::fmt;

use rustix::param::page_size;

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

/// The host-physical runs that memory consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Runs {
    /// How many.
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

/// How memory lay as it came, and how it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// As the kernel gave it, in the order of the file.
    pub before: Runs,
    /// As it is mapped.
    pub after: Runs,
    /// How many further pages of the pool were looked at, and given back.
    pub spare_pages: u64,
}

/// Whether a host-physical address can change while a mapping lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stability {
    /// It can: the kernel moves such pages when it compacts, swaps or merges memory, or an
    /// owner who is not trusted can put others in their place.
    Unpinned,
    /// The pages come from a pool that the kernel does not move in practice (hugetlb);
    /// newer kernels make no promise.
    Reserved,
    /// It cannot: every page is held by a [`PinMethod`](super::PinMethod), or the address is
    /// a device's own. Nobody who is not trusted can put other pages in their place: but
    /// for whoever was given the file of our own RAM that is not
    /// [exclusive](super::Ram::exclusive). A page that is taken out of its file stays where
    /// it is, and nobody else's.
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

/// How firmly an object's pages are to be held in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Residency {
    /// All pages in memory and pinned where the kernel allows it; frame numbers read.
    #[default]
    Pinned,
    /// All pages in memory but free to move; frame numbers read. They may go stale.
    Resident,
    /// Pages come when they are touched; host-physical addresses are not known.
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
        assert_eq!(Backing::parse("adopted"), None, "one cannot ask for adopted memory");
        assert_eq!(Backing::parse("THP"), Some(Backing::Thp));
    }
}
