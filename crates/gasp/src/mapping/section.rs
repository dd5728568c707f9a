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

use core::marker::PhantomData;

use super::barrier;
use super::lane::{self, Lane};
use crate::sync::{AtomicU64, Ordering, pause, spin, yield_now};

/// A thread's sections: how deep it is in them (16 bits), and how often it has left the
/// outermost.
pub(super) struct Sections(AtomicU64);

const DEPTH: u64 = 0xffff;

impl Sections {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Only the owning thread calls this.
    #[inline(always)]
    fn enter(&self) {
        let count = self.0.load(Ordering::Relaxed);
        assert!(count & DEPTH != DEPTH, "65,535 sections in one another");
        self.0.store(count.wrapping_add(1), Ordering::Release);
        barrier::light();
    }

    /// Only the owning thread calls this, once for each `enter`.
    #[inline(always)]
    fn leave(&self) {
        let count = self.0.load(Ordering::Relaxed);
        let outermost = count & DEPTH == 1;
        let next = if outermost { count.wrapping_add(DEPTH) } else { count.wrapping_sub(1) };
        self.0.store(next, Ordering::Release);
    }

    /// Waits for the section that the thread may be in. Called behind the heavy barrier.
    fn wait(&self) {
        let seen = self.0.load(Ordering::Acquire);
        let mut spins = 0_u32;
        // A section that began since then sees the removal: it needs no waiting for.
        while seen & DEPTH != 0 && self.0.load(Ordering::Acquire) | DEPTH == seen | DEPTH {
            spins = spins.saturating_add(1);
            match spins {
                0..100 => spin(),
                100..200 => yield_now(),
                _ => pause(),
            }
        }
    }
}

/// A piece of code in which this thread may use what it finds in a list that others take
/// things out of; see [`grace_period`].
///
/// Keep it short, and wait for nothing in it: whoever removes something waits for it.
/// Sections may be nested.
#[must_use = "the section ends when this is dropped"]
pub struct Section {
    lane: &'static Lane,
    not_send: PhantomData<*const ()>,
}

impl Section {
    /// Begins a section.
    #[inline(always)]
    pub fn enter() -> Self {
        let lane = Lane::current();
        lane.sections.enter();
        Self { lane, not_send: PhantomData }
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
/// It makes one membarrier(2), and looks at every slot that any thread has ever used.
pub fn grace_period() {
    barrier::prepare();
    barrier::heavy();
    let own = Lane::current();
    let others = lane::all().filter(|&lane| !core::ptr::eq(lane, own));
    others.for_each(|lane| lane.sections.wait());
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
    //! As the proof of the slots, in every interleaving.

    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool;
    use loom::thread;

    #[test]
    fn nobody_uses_what_was_removed_before_a_grace_period() {
        loom::model(|| {
            let sections = Arc::new(Sections::new());
            let (listed, freed) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
            let user = {
                let (sections, listed, freed) =
                    (Arc::clone(&sections), Arc::clone(&listed), Arc::clone(&freed));
                thread::spawn(move || {
                    for _ in 0..2 {
                        sections.enter();
                        if listed.load(Ordering::Acquire) == 1 {
                            assert!(!freed.load(Ordering::SeqCst), "used after it was freed");
                        }
                        sections.leave();
                    }
                })
            };
            listed.store(0, Ordering::Release);
            barrier::heavy();
            sections.wait();
            freed.store(true, Ordering::SeqCst);
            user.join().unwrap();
        });
    }
}
