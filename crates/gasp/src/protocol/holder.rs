//! A mapping as threads other than its owner see it.

use super::directory;
use super::slot::{Slot, Use};

/// A mapping found by a scan.
#[derive(Clone, Copy)]
pub(crate) struct Holder {
    slot: &'static Slot,
    stamp: u64,
}

/// A slot's id, and the stamp of a mapping in it: unique among all mappings of the process.
pub(crate) type Key = (u64, u64);

impl Holder {
    pub(crate) fn new(slot: &'static Slot, stamp: u64) -> Self {
        Self { slot, stamp }
    }

    /// The mapping with this key; `None` if no slot has the id.
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

    /// What the mapping uses; `None` if it is no longer held.
    pub(crate) fn held(&self) -> Option<Use> {
        self.slot.held().filter(|found| found.stamp == self.stamp)
    }

    /// Marks the mapping as revoked: its drain has ended without it.
    pub(crate) fn mark_revoked(&self) {
        self.slot.mark_revoked(self.stamp);
    }
}

impl core::fmt::Debug for Holder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Holder").field("held", &self.is_held()).finish()
    }
}
