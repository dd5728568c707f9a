//! The atomics of the revoke protocol: the machine's, or loom's, so that the very same
//! code runs under its model checker.

#[cfg(not(loom))]
mod machine {
    pub(crate) use core::hint::spin_loop as spin;
    pub(crate) use core::sync::atomic::{AtomicU64, Ordering, fence};
    pub(crate) use std::thread::yield_now;
}

#[cfg(loom)]
mod machine {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
    pub(crate) use loom::thread::{yield_now as spin, yield_now};
}

pub(crate) use machine::*;
