//! Counters of a controller since the process began, for monitoring.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// A handle to a controller's counters; clones show the same counters.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Cells>);

/// The values of the counters at one time. Resets of the controller do not clear them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Read commands that succeeded.
    pub reads: u64,
    /// Bytes that they moved into the guest.
    pub read_bytes: u64,
    /// Write commands that succeeded.
    pub writes: u64,
    /// Bytes that they moved out of the guest.
    pub written_bytes: u64,
    /// Flush commands that succeeded.
    pub flushes: u64,
    /// Commands that zeroed or deallocated blocks and succeeded.
    pub zeroes: u64,
    /// Admin commands, whether or not they succeeded.
    pub admin: u64,
    /// Entries of the error log: one for each command that ended with an error, of any kind, and
    /// one for each error of no command (an invalid doorbell write, a shutdown whose flush failed).
    pub errors: u64,
    /// Those of them that are errors of the backing.
    pub media_errors: u64,
    /// Interrupts signalled.
    pub interrupts: u64,
    /// Times that the guest has enabled the controller.
    pub starts: u64,
    /// Times that the controller has failed, because it lost its queues or could not be enabled.
    pub stops: u64,
    /// VMMs that have attached: power cycles, for the guest.
    pub power_cycles: u64,
    /// VMMs that have gone after a start without a complete shutdown.
    pub unsafe_shutdowns: u64,
}

#[derive(Debug, Default)]
struct Cells {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    flushes: AtomicU64,
    zeroes: AtomicU64,
    admin: AtomicU64,
    errors: AtomicU64,
    media_errors: AtomicU64,
    interrupts: AtomicU64,
    starts: AtomicU64,
    stops: AtomicU64,
    power_cycles: AtomicU64,
    unsafe_shutdowns: AtomicU64,
}

impl Counters {
    /// The counters as they are now.
    pub fn snapshot(&self) -> Snapshot {
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let cells = &*self.0;
        Snapshot {
            reads: get(&cells.reads),
            read_bytes: get(&cells.read_bytes),
            writes: get(&cells.writes),
            written_bytes: get(&cells.written_bytes),
            flushes: get(&cells.flushes),
            zeroes: get(&cells.zeroes),
            admin: get(&cells.admin),
            errors: get(&cells.errors),
            media_errors: get(&cells.media_errors),
            interrupts: get(&cells.interrupts),
            starts: get(&cells.starts),
            stops: get(&cells.stops),
            power_cycles: get(&cells.power_cycles),
            unsafe_shutdowns: get(&cells.unsafe_shutdowns),
        }
    }

    pub(super) fn read(&self, bytes: u64) {
        add(&self.0.reads, 1);
        add(&self.0.read_bytes, bytes);
    }

    pub(super) fn written(&self, bytes: u64) {
        add(&self.0.writes, 1);
        add(&self.0.written_bytes, bytes);
    }

    pub(super) fn flushed(&self) {
        add(&self.0.flushes, 1);
    }

    pub(super) fn zeroed(&self) {
        add(&self.0.zeroes, 1);
    }

    pub(super) fn administered(&self) {
        add(&self.0.admin, 1);
    }

    /// Counts an error. Returns how many there have been.
    pub(super) fn failed(&self, is_of_media: bool) -> u64 {
        add(&self.0.errors, 1);
        add(&self.0.media_errors, is_of_media.into());
        self.0.errors.load(Ordering::Relaxed)
    }

    pub(super) fn interrupted(&self) {
        add(&self.0.interrupts, 1);
    }

    pub(super) fn started(&self) {
        add(&self.0.starts, 1);
    }

    pub(super) fn stopped(&self) {
        add(&self.0.stops, 1);
    }

    pub(super) fn switched_on(&self) {
        add(&self.0.power_cycles, 1);
    }

    pub(super) fn lost_power(&self) {
        add(&self.0.unsafe_shutdowns, 1);
    }
}

/// Only the device's thread counts, or another thread while that does not run, so no update is
/// lost.
fn add(cell: &AtomicU64, count: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}
