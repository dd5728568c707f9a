//! The gate before KVM_RUN: keeps vCPUs out of the guest while a memory slot is exchanged, and gets
//! them out of it when the VM ends.
//!
//! A vCPU announces itself, then looks whether the gate is closed. Whoever closes it does so first
//! and then looks for announced vCPUs. Both are sequentially consistent, so at least one of them
//! sees the other: a vCPU that is missed turns back by itself.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::kick::Kick;

/// How often a closed gate looks at the vCPUs again, in case one of them died.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(crate) struct Gate {
    /// How many changes keep it closed.
    closed: AtomicUsize,
    passers: Mutex<Vec<Arc<Passer>>>,
    lock: Mutex<()>,
    changed: Condvar,
}

/// A vCPU at the gate.
#[derive(Default)]
pub(crate) struct Passer {
    inside: AtomicBool,
    pub(crate) kick: Kick,
}

impl Gate {
    /// A place at the gate, until it is [removed](Self::remove).
    pub(crate) fn add(&self) -> Arc<Passer> {
        let passer = Arc::new(Passer::default());
        self.passers.lock().push(Arc::clone(&passer));
        passer
    }

    pub(crate) fn remove(&self, passer: &Arc<Passer>) {
        self.leave(passer);
        self.passers.lock().retain(|other| !Arc::ptr_eq(other, passer));
    }

    /// Passes the gate, and waits while it is closed.
    pub(crate) fn enter(&self, passer: &Passer) {
        loop {
            passer.inside.store(true, Ordering::SeqCst);
            if self.closed.load(Ordering::SeqCst) == 0 {
                return;
            }
            self.leave(passer);
            let mut lock = self.lock.lock();
            while self.closed.load(Ordering::SeqCst) != 0 {
                self.changed.wait(&mut lock);
            }
        }
    }

    /// Comes back out.
    pub(crate) fn leave(&self, passer: &Passer) {
        passer.inside.store(false, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) != 0 {
            let _lock = self.lock.lock();
            self.changed.notify_all();
        }
    }

    /// Closes the gate, and returns when no vCPU is inside. A vCPU's thread may call it when it is
    /// outside.
    pub(crate) fn close(&self) -> Closed<'_> {
        self.closed.fetch_add(1, Ordering::SeqCst);
        let closed = Closed(self);
        let inside = || -> Vec<Arc<Passer>> {
            let passers = self.passers.lock();
            passers.iter().filter(|it| it.inside.load(Ordering::SeqCst)).cloned().collect()
        };
        let mut lock = self.lock.lock();
        loop {
            let left = inside();
            if left.is_empty() {
                return closed;
            }
            left.iter().for_each(|passer| passer.kick.kick());
            self.changed.wait_for(&mut lock, LOOK);
        }
    }

    /// Gets all vCPUs out of the guest once.
    pub(crate) fn kick(&self) {
        self.passers.lock().iter().for_each(|passer| passer.kick.kick());
    }
}

/// A closed gate; dropping it opens it.
pub(crate) struct Closed<'a>(&'a Gate);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.closed.fetch_sub(1, Ordering::SeqCst);
        let _lock = self.0.lock.lock();
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn nobody_is_inside_while_it_is_closed() {
        let gate = Gate::default();
        let (inside, stop) = (AtomicU32::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let passer = gate.add();
                let (gate, inside, stop) = (&gate, &inside, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        gate.enter(&passer);
                        inside.fetch_add(1, Ordering::SeqCst);
                        core::hint::spin_loop();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        gate.leave(&passer);
                    }
                    gate.remove(&passer);
                });
            }
            let mut seen = 0;
            let mut look = || {
                for _ in 0..20 {
                    seen += inside.load(Ordering::SeqCst);
                    std::thread::yield_now();
                }
            };
            for _ in 0..500 {
                let closed = gate.close();
                look();
                let second = gate.close();
                drop(closed);
                look();
                drop(second);
            }
            stop.store(true, Ordering::Relaxed);
            assert_eq!(seen, 0);
        });
        assert!(gate.passers.lock().is_empty());
    }
}
