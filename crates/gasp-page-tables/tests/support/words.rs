//! Memory of a few entries.

use std::cell::RefCell;
use std::collections::BTreeMap;

use gasp::GuestPhys;
use gasp_page_tables::EntryReader;

/// Entries by address; those that were not set are 0. Nothing can be read from 16 MiB on.
#[derive(Default)]
pub(crate) struct Words {
    entries: BTreeMap<u64, u64>,
    reads: RefCell<Vec<u64>>,
}

impl Words {
    pub(crate) const END: u64 = 16 << 20;

    pub(crate) fn set(&mut self, at: u64, entry: u64) {
        self.entries.insert(at, entry);
    }

    pub(crate) fn get(&self, at: u64) -> u64 {
        self.entries.get(&at).copied().unwrap_or(0)
    }

    /// The addresses that were read since the last call, in order.
    pub(crate) fn take_reads(&self) -> Vec<u64> {
        self.reads.take()
    }
}

impl EntryReader for Words {
    fn entry(&self, addr: GuestPhys) -> Option<u64> {
        assert_eq!(addr.0 % 8, 0, "entries are aligned");
        let mut reads = self.reads.borrow_mut();
        assert!(reads.len() < 100, "the walk does not end");
        reads.push(addr.0);
        (addr.0 < Self::END).then(|| self.get(addr.0))
    }
}
