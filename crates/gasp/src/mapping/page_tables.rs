//! The guest's memory as its IOMMU reads page tables in it.

use core::fmt;
use core::sync::atomic::Ordering;

use super::port::Port;
use crate::addr::GuestPhys;
use crate::map_flags::MapFlags;

/// The memory of the guest whose domain asks, in which its page tables are; see
/// [`Translator`](crate::Translator).
#[derive(Clone, Copy)]
pub struct PageTables<'a>(Port<'a>);

impl<'a> PageTables<'a> {
    /// The memory that `port`, the firmware's, reaches.
    pub(crate) fn new(port: Port<'a>) -> Self {
        Self(port)
    }

    /// The 8-byte little-endian entry at `addr`, read at once; `None` if `addr` is not a multiple of
    /// 8, or is not in system RAM. (Reading a pass-through window could have effects in hardware, or
    /// be refused by it.)
    ///
    /// A driver writes a table before the entry that leads to it: whoever sees the latter sees the
    /// former (the read is an acquiring one).
    #[inline]
    pub fn entry(&self, addr: GuestPhys) -> Option<u64> {
        let entry = Port::map_page(|| Some(self.0), addr.0, 8, MapFlags::READ)?;
        entry.load::<u64>(0, Ordering::Acquire).ok().map(u64::from_le)
    }
}

impl fmt::Debug for PageTables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageTables").finish_non_exhaustive()
    }
}
