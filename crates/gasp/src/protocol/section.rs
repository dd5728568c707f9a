//! Sections: read-side critical sections, in which a thread may use an object that it has
//! found in a list without owning it.
//!
//! They are for front ends whose callers name objects by number, in C above all: looking an
//! object up and mapping through it happens inside a section, which costs two stores to the
//! thread's own cache line. The thread that removes an object from the list waits for a *grace
//! period*, after which no thread is in a section that began before the removal, and frees the
//! object. The barriers are those of the [slots](super::slot):
//!
//! | using thread | removing thread |
//! |---|---|
//! | store the count, one more | remove the object from the list |
//! | light barrier | heavy barrier |
//! | look the object up | load the count |

use core::marker::PhantomData;

use super::barrier;
use super::lane::{self, Lane};
use super::scan;

/// A read-side critical section: while it lives, an object that this thread finds in a list is
/// not freed by other threads that remove it and wait for a [`grace_period`].
///
/// Keep it short, and wait for nothing in it: every thread that removes something waits for
/// it. Sections nest, up to 32,767 deep.
///
/// # Deadlocks
/// Two threads that call [`grace_period`], each in a section, wait for each other for ever. A
/// section that is never dropped ([`core::mem::forget`]) keeps every later grace period from
/// ending.
///
/// # Panics
/// [`enter`](Self::enter) panics if the thread is in 32,767 sections already.
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

/// Waits for a grace period: until every section that other threads are in and every look-up
/// of [`Vdev::map_page_of`](crate::Vdev::map_page_of) has ended, and with them every use of
/// what this thread removed from a list before the call. Sections that begin meanwhile are not
/// waited for. Called inside a section, it waits for other threads only.
///
/// It costs one membarrier(2) and a scan of the slots of all threads.
///
/// # Deadlocks
/// It never returns if it is called inside the look-up of a device
/// ([`Vdev::map_page_of`](crate::Vdev::map_page_of)); nor if two threads call it, each in a
/// section of its own; nor in a thread-local variable's destructor while a section of the same
/// thread has outlived the thread's lane, because that counts as another thread's.
pub fn grace_period() {
    barrier::prepare();
    barrier::heavy();
    lane::all().filter(|lane| !lane.is_current()).for_each(|lane| lane.sections.wait());
    scan::wait_for_lookups();
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicBool, AtomicU64 as Plain, Ordering};
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
        // The list is one word, and freeing an object sets its word to 0.
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
