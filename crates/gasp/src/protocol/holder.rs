//! A mapping as others than its owner see it.

use super::directory;
use super::slot::{Slot, Use};

/// A mapping that a scan has found.
#[derive(Clone, Copy)]
pub(crate) struct Holder {
    slot: &'static Slot,
    stamp: u64,
}

/// A slot's id, and the stamp of a mapping in it: no two mappings of the process have the same.
pub(crate) type Key = (u64, u64);

impl Holder {
    pub(crate) fn new(slot: &'static Slot, stamp: u64) -> Self {
        Self { slot, stamp }
    }

    /// The mapping of a key.
    pub(crate) fn of((slot, stamp): Key) -> Option<Self> {
        Some(Self { slot: directory::slot(slot)?, stamp })
    }

    pub(crate) fn key(&self) -> Key {
        (self.slot.id(), self.stamp)
    }

    /// Whether the mapping is still held.
    pub(crate) fn is_held(&self) -> bool {
        self.slot.holds(self.stamp)
    }

    /// What is held; nothing if it no longer is.
    pub(crate) fn what(&self) -> Option<Use> {
        self.slot.held().filter(|found| found.stamp == self.stamp)
    }

    /// Tells the mapping that its drain has ended without it.
    pub(crate) fn mark_revoked(&self) {
        self.slot.mark_revoked(self.stamp);
    }
}

impl core::fmt::Debug for Holder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Holder").field("held", &self.is_held()).finish()
    }
}
