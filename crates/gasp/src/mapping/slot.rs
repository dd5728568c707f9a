//! A slot: how one mapping says which memory it is using, and how a revoke finds out.
//!
//! ```text
//! free  --publish-->  busy  --establish-->  held  --release--> free
//!                       \------------------- release ----------/
//! ```
//!
//! *Busy* is a look-up in progress: it lasts a bounded number of instructions and never
//! waits for anything, so a revoking thread waits for it to end. *Held* is a mapping:
//! it may last for ever, and the revoking thread drains it. Nobody publishes the same
//! stamp twice in a slot, so a revoking thread that waits for one mapping is not kept by
//! the next one.
//!
//! The order that makes it safe:
//!
//! | mapping thread | revoking thread |
//! |---|---|
//! | store the stamp, busy | remove the range from the view |
//! | [light barrier](super::barrier) | [heavy barrier](super::barrier) |
//! | look the range up | load the stamp |
//!
//! Whatever the interleaving, the look-up finds nothing or the stamp is seen. `mod proof`
//! below goes through all of them.

use super::barrier;
use crate::addr::DeviceAddr;
use crate::span::Span;
use crate::sync::{AtomicU64, Ordering, pause, spin, yield_now};

const FREE: u64 = 0;
const BUSY: u64 = 1;
/// Stamps are multiples of this, and never 0.
pub(super) const NEXT_STAMP: u64 = 2;

/// What one mapping uses, in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Slot {
    /// [`FREE`], or a stamp, with the [`BUSY`] bit while a look-up is in progress.
    stamp: AtomicU64,
    /// The view in the upper half, the vdev in the lower.
    user: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
    /// The stamp of a mapping whose drain ended without it.
    revoked: AtomicU64,
    /// The stamp of a mapping that is a [token](super::token), and its address.
    token: AtomicU64,
    pointer: AtomicU64,
    /// Lane and place, for tokens.
    id: u64,
}

const _: () = assert!(size_of::<Slot>() == 64 || cfg!(loom), "a slot is one cache line");

/// What a held slot says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Use {
    pub(super) stamp: u64,
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
    pub(super) fn new(id: u64) -> Self {
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

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    #[inline]
    pub(super) fn is_free(&self) -> bool {
        self.stamp.load(Ordering::Acquire) == FREE
    }

    /// Whether a look-up with this stamp or a later one is in progress.
    pub(super) fn is_busy_since(&self, stamp: u64) -> bool {
        let now = self.stamp.load(Ordering::Relaxed);
        now & BUSY != 0 && now >= stamp
    }

    /// The stamp of the mapping that is held, if it is this one or a later one.
    pub(super) fn held_since(&self, stamp: u64) -> Option<u64> {
        let now = self.stamp.load(Ordering::Acquire);
        (now & BUSY == 0 && now >= stamp).then_some(now)
    }

    /// Says that a range is about to be looked up. Look-ups that come after this call
    /// see every removal whose thread did not see the slot. Only the slot's owner calls
    /// this, while it is free.
    #[inline(always)]
    pub(super) fn publish(&self, stamp: u64, first: u64, last: u64) {
        self.first.store(first, Ordering::Relaxed);
        self.last.store(last, Ordering::Relaxed);
        self.stamp.store(stamp | BUSY, Ordering::Release);
        barrier::light();
    }

    /// Turns the look-up `stamp` into a mapping that `vdev` has made through `view`.
    #[inline(always)]
    pub(super) fn establish(&self, stamp: u64, view: u32, vdev: u32) {
        self.user.store(u64::from(vdev) | u64::from(view) << 32, Ordering::Relaxed);
        self.stamp.store(stamp, Ordering::Release);
    }

    /// Says that the mapping ends at `last`, sooner than was published.
    #[inline]
    pub(super) fn shorten(&self, last: u64) {
        self.last.store(last, Ordering::Relaxed);
    }

    /// Ends the look-up or the mapping.
    #[inline]
    pub(super) fn release(&self) {
        self.stamp.store(FREE, Ordering::Release);
    }

    /// Makes the mapping `stamp` a token.
    #[inline]
    pub(super) fn make_token(&self, stamp: u64, pointer: u64) {
        // Whoever sees the pointer of a later token sees that the earlier one's stamp is
        // gone; whoever sees the stamp here sees its pointer.
        self.pointer.store(pointer, Ordering::Release);
        self.token.store(stamp, Ordering::Release);
    }

    /// The address of the token `stamp`, if it is one and held. Any number may be asked.
    #[inline]
    pub(super) fn token_pointer(&self, stamp: u64) -> Option<u64> {
        if stamp == FREE || self.token.load(Ordering::Acquire) != stamp {
            return None;
        }
        let pointer = self.pointer.load(Ordering::Acquire);
        self.holds(stamp).then_some(pointer)
    }

    /// Whether the mapping `stamp` is a token with this address, and held. Any numbers may
    /// be asked.
    #[inline]
    pub(super) fn is_token(&self, stamp: u64, pointer: u64) -> bool {
        self.token_pointer(stamp) == Some(pointer)
    }

    /// Releases a mapping for which [`is_token`](Self::is_token) has held, on a thread that
    /// does not own the slot: of several that try, one succeeds.
    ///
    /// The owner uses [`release`](Self::release) instead, which needs no locked instruction:
    /// only the owner publishes here, so the stamp that it has just seen is there still or
    /// is gone, and storing "free" takes nothing away. An exchange on another thread comes
    /// immediately behind the stamp that it replaces, so never behind a later one. (Loom's
    /// order of modifications does not know the latter; `tests/token.rs` shows it.)
    #[inline]
    pub(super) fn release_token(&self, stamp: u64) -> bool {
        self.stamp.compare_exchange(stamp, FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether the mapping `stamp` is still held.
    pub(super) fn holds(&self, stamp: u64) -> bool {
        self.stamp.load(Ordering::Acquire) == stamp
    }

    /// Tells the mapping `stamp` that its drain has ended without it.
    pub(super) fn mark_revoked(&self, stamp: u64) {
        // Stamps of a slot only grow, so a mark that comes late does not erase a newer one.
        self.revoked.fetch_max(stamp, Ordering::Release);
    }

    /// Whether the drain of the mapping `stamp` has ended without it.
    #[inline]
    pub(super) fn is_revoked(&self, stamp: u64) -> bool {
        self.revoked.load(Ordering::Acquire) == stamp
    }

    /// What is held, once the look-up that may be in progress is over. Called behind the
    /// heavy barrier.
    pub(super) fn held(&self) -> Option<Use> {
        let mut stamp = self.stamp.load(Ordering::Acquire);
        if stamp & BUSY != 0 {
            stamp = self.wait_while(stamp);
        }
        // A look-up that began since then sees the removal: it needs no waiting for.
        if stamp == FREE || stamp & BUSY != 0 {
            return None;
        }
        // If the slot changes hands while it is read, its mapping is gone, and the new
        // one is later than the removal: a mixture of both does no harm.
        let user = self.user.load(Ordering::Relaxed);
        Some(Use {
            stamp,
            view: (user >> 32) as u32,
            vdev: user as u32,
            first: self.first.load(Ordering::Relaxed),
            last: self.last.load(Ordering::Relaxed),
        })
    }

    /// The stamp once it is no longer `busy`.
    fn wait_while(&self, busy: u64) -> u64 {
        let mut spins = 0_u32;
        loop {
            let stamp = self.stamp.load(Ordering::Acquire);
            if stamp != busy {
                return stamp;
            }
            spins += 1;
            match spins {
                0..100 => spin(),
                100..200 => yield_now(),
                // A thread of real-time priority must let a lesser one finish.
                _ => pause(),
            }
        }
    }
}

#[cfg(all(test, loom))]
mod proof {
    //! Every interleaving of a mapping and a revoking thread, by loom, with this very
    //! code: `RUSTFLAGS="--cfg loom" cargo test -p gasp --no-default-features --release --lib proof`.
    //!
    //! The view is one word that holds 1 while the range is granted, the memory one that
    //! holds 1 while the device may write.

    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicU64};
    use loom::thread;

    const VIEW: u32 = 7;
    const VDEV: u32 = 1;

    struct World {
        slot: Slot,
        granted: AtomicU64,
        /// Set when the revoke has completed.
        taken_back: AtomicBool,
    }

    fn world() -> Arc<World> {
        Arc::new(World {
            slot: Slot::new(0),
            granted: AtomicU64::new(1),
            taken_back: AtomicBool::new(false),
        })
    }

    /// Maps, uses and unmaps once; says whether the map succeeded.
    fn map(world: &World, stamp: u64) -> bool {
        world.slot.publish(stamp, 0, 4095);
        if world.granted.load(Ordering::Acquire) == 0 {
            world.slot.release();
            return false;
        }
        world.slot.establish(stamp, VIEW, VDEV);
        assert!(!world.taken_back.load(Ordering::SeqCst), "a mapping outlives its revoke");
        world.slot.release();
        true
    }

    /// Takes the range back and waits for holders, as `Drain::wait` does.
    fn revoke(world: &World) {
        world.granted.store(0, Ordering::Release);
        barrier::heavy();
        if let Some(found) = world.slot.held() {
            assert_eq!((found.view, found.vdev, found.first, found.last), (VIEW, VDEV, 0, 4095));
            while world.slot.holds(found.stamp) {
                yield_now();
            }
        }
        world.taken_back.store(true, Ordering::SeqCst);
    }

    #[test]
    fn no_mapping_outlives_a_completed_revoke() {
        loom::model(|| {
            let world = world();
            let device = {
                let world = Arc::clone(&world);
                thread::spawn(move || map(&world, NEXT_STAMP))
            };
            revoke(&world);
            device.join().unwrap();
            assert!(!map(&world, 2 * NEXT_STAMP), "nothing can be mapped any more");
        });
    }

    #[test]
    fn a_device_that_maps_again_and_again_does_not_keep_a_revoke_waiting() {
        loom::model(|| {
            let world = world();
            let device = {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    map(&world, NEXT_STAMP);
                    map(&world, 2 * NEXT_STAMP);
                })
            };
            revoke(&world);
            device.join().unwrap();
        });
    }

    #[test]
    fn a_revoke_without_a_holder_does_not_wait() {
        loom::model(|| {
            let world = world();
            world.granted.store(0, Ordering::Release);
            barrier::heavy();
            assert_eq!(world.slot.held(), None);
        });
    }

    #[test]
    fn a_handle_released_on_another_thread_ends_the_drain() {
        loom::model(|| {
            let world = world();
            world.slot.publish(NEXT_STAMP, 0, 4095);
            world.slot.establish(NEXT_STAMP, VIEW, VDEV);
            let other = {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    assert!(!world.taken_back.load(Ordering::SeqCst));
                    world.slot.release();
                })
            };
            revoke(&world);
            other.join().unwrap();
            assert!(world.slot.is_free(), "no slot is lost");
        });
    }

    #[test]
    fn a_token_is_released_once_and_ends_the_drain() {
        loom::model(|| {
            let world = world();
            world.slot.publish(NEXT_STAMP, 0, 4095);
            world.slot.establish(NEXT_STAMP, VIEW, VDEV);
            world.slot.make_token(NEXT_STAMP, 0x1000);
            let other = {
                let world = Arc::clone(&world);
                thread::spawn(move || world.slot.release_token(NEXT_STAMP))
            };
            let mine = world.slot.release_token(NEXT_STAMP);
            revoke(&world);
            assert!(mine ^ other.join().unwrap(), "of two threads that unmap one succeeds");
            assert!(world.slot.is_free());
        });
    }

    #[test]
    fn a_stale_token_never_shows_nor_ends_the_next_mapping() {
        loom::model(|| {
            let world = world();
            world.slot.publish(NEXT_STAMP, 0, 4095);
            world.slot.establish(NEXT_STAMP, VIEW, VDEV);
            world.slot.make_token(NEXT_STAMP, 0x1000);
            let stale = {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    let seen = world.slot.token_pointer(NEXT_STAMP);
                    assert!(matches!(seen, None | Some(0x1000)), "{seen:?}");
                    world.slot.release_token(NEXT_STAMP)
                })
            };
            let mine = world.slot.release_token(NEXT_STAMP);
            if mine || world.slot.is_free() {
                world.slot.publish(2 * NEXT_STAMP, 0, 4095);
                world.slot.establish(2 * NEXT_STAMP, VIEW, VDEV);
                world.slot.make_token(2 * NEXT_STAMP, 0x2000);
                assert!(mine ^ stale.join().unwrap());
                assert_eq!(world.slot.token_pointer(2 * NEXT_STAMP), Some(0x2000));
            } else {
                stale.join().unwrap();
            }
        });
    }

    #[test]
    fn a_late_mark_does_not_erase_a_newer_one() {
        loom::model(|| {
            let world = world();
            let late = {
                let world = Arc::clone(&world);
                thread::spawn(move || world.slot.mark_revoked(NEXT_STAMP))
            };
            world.slot.mark_revoked(2 * NEXT_STAMP);
            late.join().unwrap();
            assert!(world.slot.is_revoked(2 * NEXT_STAMP));
        });
    }

    #[test]
    fn a_mark_reaches_the_mapping_it_is_meant_for_and_no_other() {
        loom::model(|| {
            let world = world();
            world.slot.publish(NEXT_STAMP, 0, 4095);
            world.slot.establish(NEXT_STAMP, VIEW, VDEV);
            let revoker = {
                let world = Arc::clone(&world);
                thread::spawn(move || world.slot.mark_revoked(NEXT_STAMP))
            };
            world.slot.release();
            world.slot.publish(2 * NEXT_STAMP, 0, 4095);
            assert!(!world.slot.is_revoked(2 * NEXT_STAMP));
            revoker.join().unwrap();
            assert!(!world.slot.is_revoked(2 * NEXT_STAMP));
        });
    }
}
