//! Calls of threads that C may cancel.
#![allow(unsafe_code, reason = "pthread_setcancelstate(3)")]

use core::ffi::c_int;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// Calls `call` while this thread cannot be cancelled: reading, writing and logging are points at
/// which it could be, and frames of Rust are not unwound.
pub(crate) fn uncancelled<T>(call: impl FnOnce() -> T) -> T {
    const DISABLE: c_int = 1;
    let mut before = 0;
    // SAFETY: `before` is valid for writes.
    unsafe { pthread_setcancelstate(DISABLE, &raw mut before) };
    let result = call();
    // SAFETY: as above; it is the state that was found.
    unsafe { pthread_setcancelstate(before, &raw mut before) };
    result
}
