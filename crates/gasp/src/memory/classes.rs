//! How firmly pages are held, and what that says of their addresses.

use core::fmt;

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
