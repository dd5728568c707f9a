//! Reading an entry of a table in guest memory.

use core::sync::atomic::Ordering;

use gasp::{Guest, GuestPhys, MapFlags, PageTables};

/// The memory that page tables are in.
pub trait EntryReader {
    /// The 8-byte entry at `addr`, a multiple of 8, read at once; `None` if it cannot be read.
    fn entry(&self, addr: GuestPhys) -> Option<u64>;
}

/// System RAM as a vCPU reaches it: no ROM, and above all no pass-through window, whose hardware
/// would see the read, and may be switched off by the guest.
impl EntryReader for Guest {
    #[inline]
    fn entry(&self, addr: GuestPhys) -> Option<u64> {
        let entry = self.map_firmware(addr, 8, MapFlags::READ).ok()?;
        // A driver writes a table, and then the entry that leads to it: whoever sees the latter
        // must see the former.
        entry.load::<u64>(0, Ordering::Acquire).ok().map(u64::from_le)
    }
}

impl EntryReader for PageTables<'_> {
    #[inline]
    fn entry(&self, addr: GuestPhys) -> Option<u64> {
        PageTables::entry(self, addr)
    }
}
