//! A slot: a hazard pointer for one mapping. It publishes the range of device addresses that the
//! mapping uses, and a revoke reads it.
//!
//! ```text
//! free  --publish-->  busy  --establish-->  held  --release--> free
//!                       \------------------- release ----------/
//! ```
//!
//! *Busy* is a look-up in progress: it lasts a bounded number of instructions and never
//! waits for anything, so a revoking thread waits for it to end. *Held* is a mapping:
//! it may last for ever, and the revoking thread drains it. A stamp is published only once in
//! a slot, so a thread that waits for one mapping is not kept waiting by the next one.
//!
//! The order of accesses that makes it safe:
//!
//! | mapping thread | revoking thread |
//! |---|---|
//! | store the stamp, with the busy bit | remove the range from the view |
//! | [light barrier](super::barrier) | [heavy barrier](super::barrier) |
//! | look the range up | load the stamp |
//!
//! In every interleaving, the look-up finds nothing or the revoking thread sees the stamp.
//!
//! A revoking thread that finds no holder must also *synchronise with* the end of whatever
//! mapping was in the slot before: what was done under that mapping happens before what follows
//! the revoke. So it loads every word with acquire, and each is stored with release: a word of a
//! later mapping shows that the earlier one has ended, as a free stamp does. (`mod proof` checks
//! every interleaving, with the memory as a cell that no two threads may access at once.)

use super::barrier;
use crate::addr::DeviceAddr;
use crate::span::Span;
use crate::sync::{AtomicU64, Backoff, Ordering};

const FREE: u64 = 0;
const BUSY: u64 = 1;
/// Stamps are multiples of this, and never 0.
pub(crate) const NEXT_STAMP: u64 = 2;

/// One mapping's range, view and device, in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Slot {
    /// [`FREE`], or a stamp, with the [`BUSY`] bit while a look-up is in progress.
    stamp: AtomicU64,
    /// The view in the upper half, the vdev in the lower.
    user: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
    /// The stamp of the last mapping whose drain ended without it.
    revoked: AtomicU64,
    /// The stamp of the last mapping that became a [token](crate::Token), and its address.
    token: AtomicU64,
    pointer: AtomicU64,
    /// The slot's number: its lane, and its index in the [directory](super::directory).
    id: u64,
}

const _: () = assert!(size_of::<Slot>() == 64 || cfg!(loom), "a slot is one cache line");

/// The contents of a held slot: what its mapping uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Use {
    pub(crate) stamp: u64,
    pub(crate) view: u32,
    pub(crate) vdev: u32,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Use {
    /// Whether the mapping and a range have an address in common.
    pub(crate) fn overlaps(&self, span: Span<DeviceAddr>) -> bool {
        span.start().0 <= self.last && self.first <= span.last().0
    }
}

impl Slot {
    pub(crate) fn new(id: u64) -> Self {
        Self {
            stamp: AtomicU64::new(FREE),
            user: AtomicU64::new(0),
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
            revoked: AtomicU64::new(FREE),
            token: AtomicU64::new(FREE),
            pointer: AtomicU64::new(0),
            id,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        self.stamp.load(Ordering::Acquire) == FREE
    }

    /// Whether a look-up with `stamp` or a later one is in progress.
    pub(crate) fn is_busy_since(&self, stamp: u64) -> bool {
        let now = self.stamp.load(Ordering::Relaxed);
        now & BUSY != 0 && now >= stamp
    }

    /// The stamp of the mapping that is held, if it is `stamp` or a later one.
    pub(crate) fn held_since(&self, stamp: u64) -> Option<u64> {
        let now = self.stamp.load(Ordering::Acquire);
        (now & BUSY == 0 && now >= stamp).then_some(now)
    }

    /// Publishes that `first..=last` is about to be looked up. Look-ups after this call see
    /// every removal whose thread did not see the slot. Only the slot's owner calls this, while
    /// the slot is free, with a stamp that the slot has never had.
    #[inline(always)]
    pub(crate) fn publish(&self, stamp: u64, first: u64, last: u64) {
        self.first.store(first, Ordering::Release);
        self.last.store(last, Ordering::Release);
        self.stamp.store(stamp | BUSY, Ordering::Release);
        barrier::light();
    }

    /// Turns the look-up `stamp` into a mapping of `vdev` through `view`.
    #[inline(always)]
    pub(crate) fn establish(&self, stamp: u64, view: u32, vdev: u32) {
        self.user.store(u64::from(vdev) | u64::from(view) << 32, Ordering::Release);
        self.stamp.store(stamp, Ordering::Release);
    }

    /// Moves the last address of the mapping from what was published down to `last`.
    #[inline]
    pub(crate) fn shorten(&self, last: u64) {
        self.last.store(last, Ordering::Release);
    }

    /// Ends the look-up or the mapping.
    #[inline]
    pub(crate) fn release(&self) {
        self.stamp.store(FREE, Ordering::Release);
    }

    /// Makes the mapping `stamp` a token with the address `pointer`.
    #[inline]
    pub(crate) fn make_token(&self, stamp: u64, pointer: u64) {
        // A thread that loads the pointer of a later token sees that the earlier stamp is gone
        // from `self.stamp`; one that loads this stamp from `self.token` sees its pointer.
        self.pointer.store(pointer, Ordering::Release);
        self.token.store(stamp, Ordering::Release);
    }

    /// The address of the token `stamp`; `None` if the slot holds no token with that stamp.
    /// Any number may be passed.
    #[inline]
    pub(crate) fn token_pointer(&self, stamp: u64) -> Option<u64> {
        if stamp == FREE || self.token.load(Ordering::Acquire) != stamp {
            return None;
        }
        let pointer = self.pointer.load(Ordering::Acquire);
        self.holds(stamp).then_some(pointer)
    }

    /// Whether the slot holds a token with this stamp and address. Any numbers may be passed.
    #[inline]
    pub(crate) fn is_token(&self, stamp: u64, pointer: u64) -> bool {
        self.token_pointer(stamp) == Some(pointer)
    }

    /// Releases a mapping for which [`is_token`](Self::is_token) has returned `true`, on a
    /// thread that does not own the slot. Of several threads that try, one succeeds.
    ///
    /// The owner calls [`release`](Self::release) instead, which needs no locked instruction:
    /// only the owner publishes in the slot, so the stamp that it has just seen is still there
    /// or the slot is free, and storing [`FREE`] erases nothing else. An exchange on another
    /// thread immediately follows, in the modification order, the stamp that it replaces, so it
    /// never follows a later one. (Loom's modification order does not model the latter;
    /// `tests/token.rs` shows it.)
    #[inline]
    pub(crate) fn release_token(&self, stamp: u64) -> bool {
        self.stamp.compare_exchange(stamp, FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether the mapping `stamp` is still held.
    pub(crate) fn holds(&self, stamp: u64) -> bool {
        self.stamp.load(Ordering::Acquire) == stamp
    }

    /// Marks the mapping `stamp` as revoked: its drain has ended without it.
    pub(crate) fn mark_revoked(&self, stamp: u64) {
        // The stamps of a slot only grow, so a late mark does not erase a newer one.
        self.revoked.fetch_max(stamp, Ordering::Release);
    }

    /// Whether the drain of the mapping `stamp` has ended without it.
    #[inline]
    pub(crate) fn is_revoked(&self, stamp: u64) -> bool {
        self.revoked.load(Ordering::Acquire) == stamp
    }

    /// The slot's mapping, after the look-up that may be in progress has ended; `None` if there
    /// is none that can have seen what was removed. The caller has passed the heavy barrier.
    pub(crate) fn held(&self) -> Option<Use> {
        let mut stamp = self.stamp.load(Ordering::Acquire);
        if stamp & BUSY != 0 {
            stamp = self.wait_while(stamp);
        }
        // A look-up that began after the load sees the removal, and need not be waited for.
        if stamp == FREE || stamp & BUSY != 0 {
            return None;
        }
        // If the slot takes another mapping while it is read, the earlier mapping has ended, and
        // the new one is later than the removal: a mixture of both does no harm. Loading any word
        // of the new one acquires the end of the earlier one.
        let user = self.user.load(Ordering::Acquire);
        Some(Use {
            stamp,
            view: (user >> 32) as u32,
            vdev: user as u32,
            first: self.first.load(Ordering::Acquire),
            last: self.last.load(Ordering::Acquire),
        })
    }

    /// Waits until the stamp is no longer `busy`, and returns it.
    fn wait_while(&self, busy: u64) -> u64 {
        let mut backoff = Backoff::default();
        loop {
            let stamp = self.stamp.load(Ordering::Acquire);
            if stamp != busy {
                return stamp;
            }
            backoff.wait();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_comes_late_erases_no_newer_one() {
        let slot = Slot::new(0);
        let (older, newer) = (NEXT_STAMP, 2 * NEXT_STAMP);
        slot.mark_revoked(newer);
        slot.mark_revoked(older);
        assert!(slot.is_revoked(newer) && !slot.is_revoked(older));
    }
}

#[cfg(all(test, loom))]
#[path = "slot_proof.rs"]
mod proof;
