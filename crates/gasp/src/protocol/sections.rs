//! The nesting depth of a lane's [sections](super::section), and whether the lane has an owner.
//!
//! Both are in one word because a section can outlive the ownership of its
//! [lane](super::lane), in a thread-local variable that is dropped later. The lane then goes to
//! another thread only after its last section has ended: two threads must not count in one word.

use super::barrier;
use crate::sync::{AtomicU64, Backoff, Ordering};

/// A thread's sections: their depth ([`DEPTH`]), whether the thread has given its lane up
/// ([`GIVEN_UP`]), and, above both, a count that grows when the outermost section ends in a lane
/// that is owned, and when a lane is taken over.
pub(super) struct Sections(AtomicU64);

const DEPTH: u64 = 0x7fff;
const GIVEN_UP: u64 = 0x8000;
/// The bits below that count. Adding `LOW` at a depth of 1 in a lane that is owned clears them
/// and increments the count.
const LOW: u64 = DEPTH | GIVEN_UP;

impl Sections {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Begins a section. Only the owning thread calls this.
    #[inline(always)]
    pub(super) fn enter(&self) {
        let count = self.0.load(Ordering::Relaxed);
        assert!(count & DEPTH != DEPTH, "32,767 sections in one another");
        self.0.store(count.wrapping_add(1), Ordering::Release);
        barrier::light();
    }

    /// Ends a section. The thread that called [`enter`](Self::enter) calls this, once for each
    /// call, even if it has given the lane up since.
    #[inline(always)]
    pub(super) fn leave(&self) {
        let count = self.0.load(Ordering::Relaxed);
        let outermost = count & LOW == 1;
        let next = if outermost { count.wrapping_add(LOW) } else { count.wrapping_sub(1) };
        self.0.store(next, Ordering::Release);
    }

    /// Gives the lane up: after its last section has ended, another thread can take it over.
    /// The owning thread calls this, and enters no section afterwards.
    pub(super) fn give_up(&self) {
        let count = self.0.load(Ordering::Relaxed);
        self.0.store(count | GIVEN_UP, Ordering::Release);
    }

    /// Makes this thread the owner of a lane that was given up and is in no section. Returns
    /// whether it has; of several threads that try, one succeeds.
    pub(super) fn take_over(&self) -> bool {
        let count = self.0.load(Ordering::Relaxed);
        let next = count.wrapping_add(GIVEN_UP);
        count & LOW == GIVEN_UP
            && self.0.compare_exchange(count, next, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Waits for the section that the thread may be in. The caller has passed the heavy
    /// barrier.
    pub(super) fn wait(&self) {
        let seen = self.0.load(Ordering::Acquire);
        let mut backoff = Backoff::default();
        let mut now = seen;
        // A section that began after the load sees the removal, and need not be waited for.
        while now & DEPTH != 0 && now | LOW == seen | LOW {
            backoff.wait();
            now = self.0.load(Ordering::Acquire);
        }
    }
}

#[cfg(all(test, loom))]
mod proof {
    //! Every interleaving of sections and a grace period, by loom, as in the proof of the
    //! slots; the object is loom's cell.
    #![allow(unsafe_code, reason = "shares a cell between threads, which is what loom watches")]

    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    struct World {
        sections: Sections,
        listed: AtomicU64,
        object: UnsafeCell<()>,
    }

    // SAFETY: `Sync` asks that accesses from several threads through `&World` are no data race.
    // The other fields are atomics; the cell has no contents, and loom reports accesses of it
    // that are not ordered.
    unsafe impl Sync for World {}

    impl World {
        fn new() -> Arc<Self> {
            let (listed, object) = (AtomicU64::new(1), UnsafeCell::new(()));
            Arc::new(Self { sections: Sections::new(), listed, object })
        }

        /// Looks the object up and uses it. The caller is in a section.
        fn find(&self) {
            if self.listed.load(Ordering::Acquire) == 1 {
                self.object.with(|_| ());
            }
        }

        fn section(&self) {
            self.sections.enter();
            self.find();
            self.sections.leave();
        }

        /// Removes the object from the list, and frees it after a grace period.
        fn remove(&self) {
            self.listed.store(0, Ordering::Release);
            barrier::heavy();
            self.sections.wait();
            self.object.with_mut(|_| ());
        }
    }

    #[test]
    fn nobody_uses_what_was_removed_before_a_grace_period() {
        loom::model(|| {
            let world = World::new();
            let user = {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    world.section();
                    world.sections.enter();
                    world.section();
                    world.find();
                    world.sections.leave();
                })
            };
            world.remove();
            user.join().unwrap();
        });
    }

    #[test]
    fn a_section_that_outlives_its_lane_is_waited_for_and_keeps_others_out_of_it() {
        loom::model(|| {
            let world = World::new();
            let ending = {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    world.sections.enter();
                    world.sections.give_up();
                    world.find();
                    world.sections.leave();
                })
            };
            let next = {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    if world.sections.take_over() {
                        world.section();
                    }
                })
            };
            world.remove();
            ending.join().unwrap();
            next.join().unwrap();
            assert_eq!(world.sections.0.load(Ordering::Relaxed) & DEPTH, 0);
        });
    }

    #[test]
    fn a_lane_is_taken_over_once_and_after_all_that_its_last_owner_did() {
        loom::model(|| {
            let world = World::new();
            let last = {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    // State that only the owner of a lane uses.
                    world.object.with_mut(|_| ());
                    world.sections.give_up();
                })
            };
            let take = |world: &World| {
                let taken = world.sections.take_over();
                if taken {
                    world.object.with_mut(|_| ());
                }
                taken
            };
            let other = {
                let world = Arc::clone(&world);
                thread::spawn(move || take(&world))
            };
            let mine = take(&world);
            assert!(!(mine && other.join().unwrap()), "two owners");
            last.join().unwrap();
        });
    }
}
