//! A lock that a thread holds from one call to another, without a guard.

use parking_lot::{Condvar, Mutex};
use rustix::thread::{Pid, gettid};

/// A lock without a guard: a thread takes it, and releases it later.
///
/// It identifies the thread that holds it by the kernel's thread ID, which the thread has
/// until its very end: even a destructor of a thread-local value can release the lock.
#[derive(Default)]
pub struct ThreadLock {
    holder: Mutex<Option<Pid>>,
    released: Condvar,
}

impl ThreadLock {
    /// Takes the lock, after waiting for the thread that holds it. Returns `false`, at once, if
    /// that is the calling thread.
    #[must_use]
    pub fn take(&self) -> bool {
        let me = gettid();
        let mut holder = self.holder.lock();
        if *holder == Some(me) {
            return false;
        }
        self.released.wait_while(&mut holder, |holder| holder.is_some());
        *holder = Some(me);
        true
    }

    /// Releases the lock. To be called once for each [`take`](Self::take) that returned `true`.
    pub fn release(&self) {
        *self.holder.lock() = None;
        self.released.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_thread_has_it_and_is_told_when_it_asks_again() {
        let (lock, inside) = (ThreadLock::default(), AtomicU32::new(0));
        assert!(lock.take());
        assert!(!lock.take());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        assert!(lock.take());
                        assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::Relaxed);
                        lock.release();
                    }
                });
            }
            thread::sleep(Duration::from_millis(10));
            assert_eq!(inside.load(Ordering::Relaxed), 0, "this thread holds it");
            lock.release();
        });
        assert!(lock.take());
    }
}
