//! What [`near`](crate::near) orders its accesses with. `tests/near_proof.rs` has the same of loom,
//! so that the very same code runs under a model checker.

pub(crate) use core::sync::atomic::{AtomicU8, Ordering};

use core::cell::Cell;
use core::sync::atomic::AtomicU64;

/// How many values there is room for.
pub(crate) const PLACES: usize = 64;
/// Keys that are told apart; a power of two.
pub(crate) const SETS: usize = 128;

/// A cell, with loom's interface.
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    #[inline]
    pub(crate) fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Calls `read` with the cell's pointer.
    #[inline(always)]
    pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    /// Calls `write` with the cell's pointer.
    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// A number of this thread that no other thread of the process has had, or will have.
#[inline]
pub(crate) fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    #[cold]
    fn new() -> u64 {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        NUMBER.set(number);
        number
    }
    match NUMBER.get() {
        0 => new(),
        number => number,
    }
}
