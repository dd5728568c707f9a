//! Sections: short pieces of code in which a thread may use what it has found without
//! owning it.
//!
//! For front ends whose callers name objects by number, in C above all: looking an object
//! up and mapping through it happens inside a section, which costs two stores to the
//! thread's own cache line. Whoever takes an object out of the list waits for a *grace
//! period*, after which no thread is in a section that began before, and frees it. The
//! barriers are those of the [slots](super::slot):
//!
//! | using thread | removing thread |
//! |---|---|
//! | count the section in | take the object out of the list |
//! | light barrier | heavy barrier |
//! | look the object up | load the count |
//!
//! The count also says whether the thread still owns its [lane](super::lane). A section can
//! outlive that, in a thread-local variable that is dropped later: the lane then goes to another
//! thread only when its last section has ended, as two threads must not count in one word.

use core::marker::PhantomData;

use super::barrier;
use super::lane::{self, Lane};
use crate::sync::{AtomicU64, Ordering, pause, spin, yield_now};

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
    fn enter(&self) {
        let count = self.0.load(Ordering::Relaxed);
        assert!(count & DEPTH != DEPTH, "32,767 sections in one another");
        self.0.store(count.wrapping_add(1), Ordering::Release);
        barrier::light();
    }

    /// Only the owning thread calls this, or the one that was when it entered, once for each
    /// `enter`.
    #[inline(always)]
    fn leave(&self) {
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
    fn wait(&self) {
        let seen = self.0.load(Ordering::Acquire);
        let mut spins = 0_u32;
        let mut now = seen;
        // A section that began since then sees the removal: it needs no waiting for.
        while now & DEPTH != 0 && now | LOW == seen | LOW {
            spins = spins.saturating_add(1);
            match spins {
                0..100 => spin(),
                100..200 => yield_now(),
                _ => pause(),
            }
            now = self.0.load(Ordering::Acquire);
        }
    }
}

/// A piece of code in which this thread may use what it finds in a list that others take
/// things out of; see [`grace_period`].
///
/// Keep it short, and wait for nothing in it: whoever removes something waits for it.
/// Sections may be nested, up to 32,767 deep.
///
/// # Deadlocks
/// Two threads that call [`grace_period`], each in a section, wait for each other for ever. A
/// section that is never dropped ([`core::mem::forget`]) keeps every later grace period from
/// ending.
///
/// # Panics
/// [`enter`](Self::enter) panics in the 32,767th section of a thread.
#[must_use = "the section ends when this is dropped"]
pub struct Section {
    lane: &'static Lane,
    not_send: PhantomData<*const ()>,
}

impl Section {
    /// Begins a section.
    #[inline(always)]
    pub fn enter() -> Self {
        Lane::with(|lane| {
            lane.sections.enter();
            Self { lane, not_send: PhantomData }
        })
    }
}

impl Drop for Section {
    #[inline(always)]
    fn drop(&mut self) {
        self.lane.sections.leave();
    }
}

impl core::fmt::Debug for Section {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Section").finish_non_exhaustive()
    }
}

/// Waits until every section that other threads are in has ended, and every look-up of
/// [`Vdev::map_page_of`](crate::Vdev::map_page_of), and with them every use of what this
/// thread has taken out of a list before the call. Sections that begin
/// meanwhile do not count. Called inside a section it waits for other threads only.
///
/// It makes one membarrier(2), and looks at what any thread has mapped.
///
/// # Deadlocks
/// It never returns inside the look-up of a device
/// ([`Vdev::map_page_of`](crate::Vdev::map_page_of)); nor if two threads call it in sections of
/// theirs; nor in a thread-local variable's destructor, where a section of the same thread that
/// has outlived the thread's lane counts as another's.
pub fn grace_period() {
    barrier::prepare();
    barrier::heavy();
    lane::all().filter(|lane| !lane.is_current()).for_each(|lane| lane.sections.wait());
    lane::wait_for_lookups();
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicBool, AtomicU64 as Plain};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_grace_period_waits_for_the_outermost_section() {
        let (entered, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let other = {
            let (entered, ended) = (Arc::clone(&entered), Arc::clone(&ended));
            std::thread::spawn(move || {
                let outer = Section::enter();
                drop(Section::enter());
                entered.store(true, Ordering::Release);
                std::thread::sleep(Duration::from_millis(50));
                ended.store(true, Ordering::Release);
                drop(outer);
            })
        };
        while !entered.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        grace_period();
        assert!(ended.load(Ordering::Acquire));
        other.join().unwrap();
    }

    #[test]
    fn a_thread_that_enters_again_and_again_does_not_keep_a_grace_period_waiting() {
        let stop = Arc::new(AtomicBool::new(false));
        let other = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    drop(Section::enter());
                }
            })
        };
        (0..50).for_each(|_| grace_period());
        stop.store(true, Ordering::Relaxed);
        other.join().unwrap();
    }

    #[test]
    fn what_is_freed_after_a_grace_period_is_in_nobodys_use() {
        // The "list" is one word; "freeing" sets the object's word to 0.
        let objects: Arc<Vec<Plain>> = Arc::new((0..100).map(|_| Plain::new(1)).collect());
        let listed = Arc::new(Plain::new(0));
        let users: Vec<_> = (0..2)
            .map(|_| {
                let (objects, listed) = (Arc::clone(&objects), Arc::clone(&listed));
                std::thread::spawn(move || {
                    loop {
                        let _section = Section::enter();
                        let index = listed.load(Ordering::Acquire) as usize;
                        let Some(object) = objects.get(index) else { return };
                        assert_eq!(object.load(Ordering::Relaxed), 1, "object {index} is freed");
                    }
                })
            })
            .collect();
        for index in 0..objects.len() {
            listed.store(index as u64 + 1, Ordering::Release);
            grace_period();
            objects[index].store(0, Ordering::Relaxed);
        }
        users.into_iter().for_each(|user| user.join().unwrap());
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
