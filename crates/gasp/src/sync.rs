//! The atomics of the revoke protocol, and the lock of the questions to a translator: the
//! machine's, or loom's, so that the very same code runs under loom's model checker.

#[cfg(not(loom))]
mod machine {
    pub(super) use core::hint::spin_loop as spin;
    pub(crate) use core::sync::atomic::{AtomicU64, Ordering, fence};
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::thread::{ThreadId, yield_now};

    /// Locks `mutex`.
    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock()
    }

    /// Releases the lock until `condvar` is notified.
    pub(crate) fn wait<'a, T>(
        condvar: &Condvar,
        mut guard: MutexGuard<'a, T>,
    ) -> MutexGuard<'a, T> {
        condvar.wait(&mut guard);
        guard
    }

    pub(crate) fn this_thread() -> ThreadId {
        std::thread_local! {
            static ID: ThreadId = std::thread::current().id();
        }
        ID.with(|&id| id)
    }

    /// Lets any other thread run, whatever its priority.
    pub(super) fn pause() {
        std::thread::sleep(core::time::Duration::from_micros(50));
    }
}

#[cfg(loom)]
mod machine {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use loom::thread::{ThreadId, yield_now};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        condvar.wait(guard).unwrap()
    }

    pub(crate) fn this_thread() -> ThreadId {
        loom::thread::current().id()
    }
    pub(super) use loom::thread::{yield_now as pause, yield_now as spin};
}

pub(crate) use machine::{AtomicU64, Ordering, fence};
pub(crate) use machine::{Condvar, Mutex, ThreadId, lock, this_thread, wait};
use machine::{pause, spin, yield_now};

/// The backoff of a loop that waits for another thread to write a word, which it soon will.
#[derive(Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    /// Waits a little, the longer the more often it has been called: spins, then yields, then
    /// sleeps.
    pub(crate) fn wait(&mut self) {
        self.0 = self.0.saturating_add(1);
        match self.0 {
            0..100 => spin(),
            100..200 => yield_now(),
            // A thread of real-time priority must let one of lower priority finish.
            _ => pause(),
        }
    }
}
