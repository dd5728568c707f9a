//! What a look-up publishes and a mapping holds, until it is dropped.

use core::sync::atomic::{Ordering, compiler_fence};

use super::grave;
use crate::addr::DeviceAddr;
use crate::error::Reason;
use crate::protocol::{Lane, SLOTS_MAX, Slot};
use crate::span::Span;

/// Why nothing is published.
pub(super) const TOO_MANY: Reason = Reason::Limit { what: "mappings a thread", limit: SLOTS_MAX };

/// A slot that is busy or held; dropping it releases the slot.
pub(super) struct Hold {
    slot: &'static Slot,
    stamp: u64,
}

impl Hold {
    /// Publishes that `span` is about to be looked up, in the lane of this thread; `None` if
    /// that has no slot left: [`TOO_MANY`].
    #[inline(always)]
    pub(super) fn publish(span: Span<DeviceAddr>) -> Option<Self> {
        match Lane::publish_hinted(span) {
            Some((slot, stamp)) => Some(Self { slot, stamp }),
            None => Self::publish_elsewhere(span),
        }
    }

    /// The rare ways of [`publish`](Self::publish), out of line.
    #[cold]
    #[inline(never)]
    fn publish_elsewhere(span: Span<DeviceAddr>) -> Option<Self> {
        let (slot, stamp) = Lane::with(|lane| lane.publish(span))?;
        Some(Self { slot, stamp })
    }

    /// Turns a look-up into a mapping that `vdev` has made through `view`.
    #[inline(always)]
    pub(super) fn establish(&self, view: u32, vdev: u32) {
        self.slot.establish(self.stamp, view, vdev);
    }

    /// Says that the mapping ends at `last`, sooner than was published.
    #[inline]
    pub(super) fn shorten(&self, last: DeviceAddr) {
        self.slot.shorten(last.0);
    }

    /// Whether the mapping's drain has ended without it.
    #[inline]
    pub(super) fn is_revoked(&self) -> bool {
        self.slot.is_revoked(self.stamp)
    }

    /// Makes the mapping at `pointer` a token; gives back its slot's id and its stamp.
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

/// What follows a release: the end of a mapping that a drain has given up frees memory.
#[inline]
pub(super) fn after_release(slot: &Slot, stamp: u64) {
    // A drain that gives up marks the mapping, passes a heavy barrier, and looks whether it
    // is still held: either it sees the release, or the mark is seen here. (Where there is
    // no membarrier both may be missed: then the memory waits for `grave::settle`. A fence
    // here would cost more than that is worth.)
    compiler_fence(Ordering::SeqCst);
    if slot.is_revoked(stamp) {
        // Memory was kept for this mapping.
        grave::free((slot.id(), stamp));
    }
}
