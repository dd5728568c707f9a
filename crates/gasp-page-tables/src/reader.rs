//! Reading an entry of a table in guest memory.

use gasp::{Guest, GuestPhys, PageTables};

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
        self.page_tables().entry(addr)
    }
}

impl EntryReader for PageTables<'_> {
    #[inline]
    fn entry(&self, addr: GuestPhys) -> Option<u64> {
        PageTables::entry(self, addr)
    }
}
