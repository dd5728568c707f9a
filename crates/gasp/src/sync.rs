//! The atomics of the revoke protocol: the machine's, or loom's, so that the very same
//! code runs under its model checker.

#[cfg(not(loom))]
mod machine {
    pub(crate) use core::hint::spin_loop as spin;
    pub(crate) use core::sync::atomic::{AtomicU64, Ordering, fence};
    pub(crate) use std::thread::yield_now;

    /// Lets any other thread run, of whatever priority.
    pub(crate) fn pause() {
        std::thread::sleep(core::time::Duration::from_micros(50));
    }
}

#[cfg(loom)]
mod machine {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
    pub(crate) use loom::thread::{yield_now as spin, yield_now as pause, yield_now};
}

pub(crate) use machine::*;
