//! Accesses to memory that its owner can take away meanwhile.
//!
//! A file that cannot be sealed can be truncated, and an access to a mapping past its new end
//! raises SIGBUS, which ends the process. So every access to such memory is one of the few
//! functions below, in [machine code](code) whose addresses are known. When they are first needed,
//! a handler for SIGBUS is installed: if the signal is raised inside of them, the function returns
//! an error.
//!
//! * Signals from anywhere else are passed to the previous handler, as if the kernel had called it,
//!   or end the process as they would have. So are signals that were sent, by a process or about a
//!   broken page that nobody has accessed, even if they arrive while one of the functions runs. If
//!   the previous handler changes the action while it handles a signal that was sent, that is
//!   undone: the handler of Rust's standard library removes itself. Until then, for some
//!   instructions, a fault in another thread ends the process.
//! * Of the previous action, the signal mask and `SA_RESTART` are honoured: ours takes them over.
//!   `SA_RESETHAND` (the handler is called every time) and `SA_NODEFER` (SIGBUS is blocked
//!   meanwhile) are not, and the handler runs on the alternative stack if there is one.
//! * The handler reads one address and changes one: it calls nothing that a signal handler may not
//!   call, and needs no state of any thread.
//! * A thread must not block SIGBUS while it accesses guarded memory: the kernel then ends the
//!   process. A handler that is installed later has to call ours for every signal that it does not
//!   handle.
//!
//! System calls such as `process_vm_readv` would return an error, too, and need no handler, but
//! cost a system call for each access and are not atomic.
#![allow(unsafe_code, reason = "reaches memory that may be gone, and catches the signal")]

mod code;
mod signal;

use core::sync::atomic::{Ordering, fence};

use crate::error::Reason;

/// Installs the handler that the functions below need, once.
///
/// # Errors
/// [`Reason::Invalid`] if that is impossible, or there are no such functions for this machine.
pub(crate) fn install() -> Result<(), Reason> {
    if signal::install() {
        return Ok(());
    }
    Err(Reason::Invalid(
        "memory that its owner can take away is not supported on this machine; seal it against \
         shrinking, or adopt it as trusted",
    ))
}

/// Copies guarded memory at `src` into `dst`.
///
/// # Safety
/// `src` must be mapped for reading, for `dst.len()` bytes and the whole call, though its memory
/// may be gone; nobody in the process has a Rust reference to it other than to an atomic.
/// [`install`] has succeeded.
pub(super) unsafe fn copy_out(src: *const u8, dst: &mut [u8]) -> Result<(), Reason> {
    // SAFETY: `code::copy` requires that `src` is mapped for reading for `dst.len()` bytes, and
    // that `install` has succeeded: this function's caller promises both. `dst` is a slice, so
    // valid for writes of its length, and does not overlap `src`, which is in no slice.
    done(unsafe { code::copy(dst.as_mut_ptr(), src, dst.len()) })
}

/// Copies `src` into guarded memory at `dst`.
///
/// # Safety
/// `dst` must be mapped for writing, for `src.len()` bytes and the whole call, though its memory
/// may be gone; nobody in the process has a Rust reference to it other than to an atomic.
/// [`install`] has succeeded.
pub(super) unsafe fn copy_in(src: &[u8], dst: *mut u8) -> Result<(), Reason> {
    // SAFETY: `code::copy` requires that `dst` is mapped for writing for `src.len()` bytes, and
    // that `install` has succeeded: this function's caller promises both. `src` is a slice, so
    // valid for reads of its length, and does not overlap `dst`, which is in no slice.
    done(unsafe { code::copy(dst, src.as_ptr(), src.len()) })
}

/// Reads an integer of `size` bytes: 1, 2, 4 or 8. It is ordered as strongly as `SeqCst`.
///
/// # Safety
/// `src` must be a multiple of `size` and mapped for reading, for `size` bytes and the whole call,
/// though its memory may be gone; nobody in the process has a Rust reference to it other than to an
/// atomic. [`install`] has succeeded.
pub(super) unsafe fn load(src: *const u8, size: usize) -> Result<u64, Reason> {
    let mut value = 0;
    // SAFETY: `code::load` requires that `size` is 1, 2, 4 or 8, that `src` is a multiple of it and
    // mapped for reading for as many bytes, and that `install` has succeeded: this function's
    // caller promises all. `value` is a local, valid for the write of 8 bytes.
    done(unsafe { code::load(src, &raw mut value, size) })?;
    // Later reads must not be moved before it, by the compiler either.
    fence(Ordering::Acquire);
    Ok(value)
}

/// Writes an integer of `size` bytes: 1, 2, 4 or 8. It is ordered as strongly as `SeqCst`.
///
/// # Safety
/// `dst` must be a multiple of `size` and mapped for writing, for `size` bytes and the whole call,
/// though its memory may be gone; nobody in the process has a Rust reference to it other than to an
/// atomic. [`install`] has succeeded.
pub(super) unsafe fn store(dst: *mut u8, value: u64, size: usize) -> Result<(), Reason> {
    fence(Ordering::Release);
    // SAFETY: `code::store` requires that `size` is 1, 2, 4 or 8, that `dst` is a multiple of it
    // and mapped for writing for as many bytes, and that `install` has succeeded: this function's
    // caller promises all.
    done(unsafe { code::store(dst, value, size) })
}

fn done(failed: usize) -> Result<(), Reason> {
    if failed == 0 { Ok(()) } else { Err(Reason::MemoryGone) }
}
