//! How deep the owner of a lane is in [sections](super::section), and whether it has one.
//!
//! The count also says whether the thread still owns its [lane](super::lane). A section can
//! outlive that, in a thread-local variable that is dropped later: the lane then goes to another
//! thread only when its last section has ended, as two threads must not count in one word.

use super::barrier;
use crate::sync::{AtomicU64, Backoff, Ordering};

/// A thread's sections: how deep it is in them ([`DEPTH`]), whether it has given its lane up
/// ([`LEFT`]), and, above both, how often it has left the outermost.
pub(super) struct Sections(AtomicU64);

const DEPTH: u64 = 0x7fff;
const LEFT: u64 = 0x8000;
/// What a section that has ended leaves behind in these bits is one more in those above.
const LOW: u64 = DEPTH | LEFT;

impl Sections {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Only the owning thread calls this.
    #[inline(always)]
    pub(super) fn enter(&self) {
        let count = self.0.load(Ordering::Relaxed);
        assert!(count & DEPTH != DEPTH, "32,767 sections in one another");
        self.0.store(count.wrapping_add(1), Ordering::Release);
        barrier::light();
    }

    /// Only the owning thread calls this, or the one that was when it entered, once for each
    /// `enter`.
    #[inline(always)]
    pub(super) fn leave(&self) {
        let count = self.0.load(Ordering::Relaxed);
        let outermost = count & LOW == 1;
        let next = if outermost { count.wrapping_add(LOW) } else { count.wrapping_sub(1) };
        self.0.store(next, Ordering::Release);
    }

    /// Leaves the lane to another thread, from the end of the last section on. The owning
    /// thread calls this, and enters no section afterwards.
    pub(super) fn give_up(&self) {
        let count = self.0.load(Ordering::Relaxed);
        self.0.store(count | LEFT, Ordering::Release);
    }

    /// Makes this thread the owner of a lane that was given up, if nobody else is faster.
    pub(super) fn take_over(&self) -> bool {
        let count = self.0.load(Ordering::Relaxed);
        let next = count.wrapping_add(LEFT);
        count & LOW == LEFT
            && self.0.compare_exchange(count, next, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Waits for the section that the thread may be in. Called after the heavy barrier.
    pub(super) fn wait(&self) {
        let seen = self.0.load(Ordering::Acquire);
        let mut backoff = Backoff::default();
        let mut now = seen;
        // A section that began since then sees the removal: it needs no waiting for.
        while now & DEPTH != 0 && now | LOW == seen | LOW {
            backoff.wait();
            now = self.0.load(Ordering::Acquire);
        }
    }
}

#[cfg(all(test, loom))]
mod proof {
    //! As the proof of the slots, in every interleaving; the object is loom's cell.
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

    // SAFETY: loom reports accesses of the cell that are not ordered, and it has no contents.
    unsafe impl Sync for World {}

    impl World {
        fn new() -> Arc<Self> {
            let (listed, object) = (AtomicU64::new(1), UnsafeCell::new(()));
            Arc::new(Self { sections: Sections::new(), listed, object })
        }

        /// Looks the object up, in a section, and uses it.
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

        /// Takes the object out of the list, and frees it after a grace period.
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
                    // What only the owner of a lane uses.
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
