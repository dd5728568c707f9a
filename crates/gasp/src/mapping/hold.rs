//! The slot that a look-up publishes in and a mapping holds, until it is dropped.

use core::sync::atomic::{Ordering, compiler_fence};

use super::detached;
use crate::addr::DeviceAddr;
use crate::error::Reason;
use crate::protocol::{Lane, SLOTS_MAX, Slot};
use crate::span::Span;

/// The error if no slot is left.
pub(super) const TOO_MANY: Reason =
    Reason::Limit { what: "mappings of a thread", limit: SLOTS_MAX };

/// A slot that is busy or held; dropping it releases the slot.
pub(super) struct Hold {
    slot: &'static Slot,
    stamp: u64,
}

impl Hold {
    /// Publishes in the lane of this thread that `span` is about to be looked up; `None` if the
    /// lane has no slot left: [`TOO_MANY`].
    #[inline(always)]
    pub(super) fn publish(span: Span<DeviceAddr>) -> Option<Self> {
        match Lane::publish_hinted(span) {
            Some((slot, stamp)) => Some(Self { slot, stamp }),
            None => Self::publish_elsewhere(span),
        }
    }

    /// The other paths of [`publish`](Self::publish), out of line: this thread has no lane yet, or
    /// still holds the mapping that it created last.
    #[cold]
    #[inline(never)]
    fn publish_elsewhere(span: Span<DeviceAddr>) -> Option<Self> {
        let (slot, stamp) = Lane::with(|lane| lane.publish(span))?;
        Some(Self { slot, stamp })
    }

    /// Turns the look-up into a mapping of `vdev` through `view`.
    #[inline(always)]
    pub(super) fn establish(&self, view: u32, vdev: u32) {
        self.slot.establish(self.stamp, view, vdev);
    }

    /// Moves the last address of the mapping from what was published down to `last`.
    #[inline]
    pub(super) fn shorten(&self, last: DeviceAddr) {
        self.slot.shorten(last.0);
    }

    /// Whether the mapping's drain has ended without it.
    #[inline]
    pub(super) fn is_revoked(&self) -> bool {
        self.slot.is_revoked(self.stamp)
    }

    /// Makes the mapping a token with the address `pointer`; returns the slot's id and the stamp.
    #[inline]
    pub(super) fn into_token(self, pointer: u64) -> (u64, u64) {
        let hold = core::mem::ManuallyDrop::new(self);
        hold.slot.make_token(hold.stamp, pointer);
        (hold.slot.id(), hold.stamp)
    }
}

impl Drop for Hold {
    #[inline]
    fn drop(&mut self) {
        self.slot.release();
        after_release(self.slot, self.stamp);
    }
}

/// Follows every release: drops the memory kept for the mapping if a drain has detached it.
#[inline]
pub(super) fn after_release(slot: &Slot, stamp: u64) {
    // A drain that detaches marks the mapping, passes a heavy barrier, and checks whether it is
    // still held: either it sees the release, or the mark is seen here. (Without membarrier(2)
    // both may be missed: the memory then stays until `detached::reclaim` finds it. A fence here
    // would cost more than that is worth.)
    compiler_fence(Ordering::SeqCst);
    if slot.is_revoked(stamp) {
        // Memory was kept for this mapping.
        detached::release((slot.id(), stamp));
    }
}
