//! Views: guest memory as one domain sees it, flattened into one table for each domain.
//!
//! A [`View`] translates a device address to memory and permissions, without a lock. The
//! control path updates it on each change of the domain's grants or of the guest's regions;
//! nothing is computed at map time.
//!
//! * [`entry`]: the 64-bit word for a page of 4 KiB, 2 MiB or 1 GiB.
//! * [`node`], [`arena`] and [`table`]: the storage of the words, read without locks while one
//!   [`writer`] changes it, by [`unit`]s of the table's three levels.
//! * [`work`]: the bound on the work that is done under one hold of a table's locks.
//! * [`project`]: the projection of guest memory onto words.
//! * [`lookup`]: the walk over a range, and the reason if it is refused.

mod arena;
pub(crate) mod attachment;
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
use table::{Table, Writer};

/// Meaning of an absent entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Absent {
    /// There is no memory; no IOMMU translates.
    NoMemory,
    /// The IOMMU refuses the access, for this reason.
    Refused(Refusal),
    /// It is not known what the IOMMU allows: the domain's translator is to be asked.
    Missed,
}

/// A table of entries, its writer, and the number that mappings through it carry.
#[derive(Debug)]
pub(crate) struct View {
    id: u32,
    pub(crate) table: Table,
    pub(crate) absent: Absent,
    writer: Apart<Mutex<Writer>>,
}

impl View {
    /// A view of addresses of `bits` bits.
    pub(crate) fn new(bits: u32, absent: Absent) -> Self {
        Self::with(Table::new(bits), absent)
    }

    /// A view that refuses every address, and never has entries.
    pub(crate) fn refusing(refusal: Refusal) -> Self {
        Self::with(Table::empty(), Absent::Refused(refusal))
    }

    fn with(table: Table, absent: Absent) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, table, absent, writer: Apart(Mutex::default()) }
    }

    /// The view's number, unique in the process until 2^32 views have been created.
    #[inline]
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Locks the table's writer, for one chunk of a change.
    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        let mut writer = self.writer.0.lock();
        writer.work.begin();
        writer
    }
}

impl Drop for View {
    #[allow(unsafe_code, reason = "frees the table's nodes with the view")]
    fn drop(&mut self) {
        let writer = self.writer.0.get_mut();
        // SAFETY: the writer is this table's: the view has had no other. Nobody reads the table,
        // now or later: readers reach it through the view, whose last owner is gone, and an
        // `Attachment`, which follows a pointer without owning it, no longer has this one:
        // whoever changed it kept the view until a scan had waited for the look-ups before.
        unsafe { self.table.free_all(writer) };
    }
}

/// A value in cache lines of its own: those around it are read by every map.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);
