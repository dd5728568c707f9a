//! Views: what one domain makes of the address space, flattened for one look-up.
//!
//! A [`View`] answers "which memory is behind this device address, and what may be done
//! to it" without a lock. The control path keeps it up to date with each change of the
//! domain's grants or of the guest's regions; nothing is worked out at map time.
//!
//! * [`entry`]: one 64-bit word for each page, of 4 KiB, 2 MiB or 1 GiB.
//! * [`node`], [`arena`] and [`table`]: where the words are kept, read without locks while one
//!   [`writer`] changes them, by [`unit`]s of the table's three levels.
//! * [`work`]: how much of a table one hold of its locks goes through.
//! * [`project`]: what of guest memory is behind a word.
//! * [`lookup`]: the walk over a range, and the reason where it is refused.

mod arena;
mod attachment;
pub(crate) mod entry;
pub(crate) mod lookup;
mod node;
pub(crate) mod project;
pub(crate) mod table;
mod unit;
pub(crate) mod work;
mod writer;

use core::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::error::Refusal;
pub(crate) use attachment::Attachment;
use table::{Table, Writer};

/// What the absence of an entry means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Absent {
    /// There is no memory: no IOMMU stands before it.
    NoMemory,
    /// The IOMMU refuses, for this reason.
    Refused(Refusal),
}

/// A table of entries, a number that mappings made through it carry, and the writer's
/// side of it.
#[derive(Debug)]
pub(crate) struct View {
    id: u32,
    pub(crate) table: Table,
    pub(crate) absent: Absent,
    writer: Mutex<Writer>,
}

impl View {
    /// A view of addresses of `bits` bits.
    pub(crate) fn new(bits: u32, absent: Absent) -> Self {
        Self::with(Table::new(bits), absent)
    }

    /// A view without entries that never gets any: everything is refused.
    pub(crate) fn refusing(refusal: Refusal) -> Self {
        Self::with(Table::empty(), Absent::Refused(refusal))
    }

    fn with(table: Table, absent: Absent) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, table, absent, writer: Mutex::default() }
    }

    /// A number that no other view of the process has (until 2^32 have been made).
    #[inline]
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The right to change the table, for one chunk; one thread has it at a time.
    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        let mut writer = self.writer.lock();
        writer.work.begin();
        writer
    }
}

impl Drop for View {
    #[allow(unsafe_code, reason = "frees the table's nodes with the view")]
    fn drop(&mut self) {
        let writer = self.writer.get_mut();
        // SAFETY: the writer is this table's, and `&mut self` says that no reader has the view,
        // and that none can come to it any more.
        unsafe { self.table.free_all(writer) };
    }
}
