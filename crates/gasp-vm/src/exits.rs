//! How often vCPUs have left the guest, by reason.

use core::sync::atomic::{AtomicU64, Ordering};

/// Counts of exits; those of a VM are the sums of its vCPUs'.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Exits {
    /// Reads and writes of ports.
    pub port: u64,
    /// Reads and writes of registers at memory addresses.
    pub mmio: u64,
    /// Kicks, and other signals.
    pub interrupted: u64,
    /// Everything else.
    pub other: u64,
}

impl Exits {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { port, mmio, interrupted, other } = self;
        port + mmio + interrupted + other
    }
}

/// The counters of one vCPU, which its thread alone writes.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    pub(crate) port: Counter,
    pub(crate) mmio: Counter,
    pub(crate) interrupted: Counter,
    pub(crate) other: Counter,
}

#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.0.store(self.get().wrapping_add(1), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn add_to(&self, sum: &mut Exits) {
        sum.port += self.port.get();
        sum.mmio += self.mmio.get();
        sum.interrupted += self.interrupted.get();
        sum.other += self.other.get();
    }
}
