//! The functions that C calls. Their documentation is in the headers.
//!
//! # Safety
//!
//! SAFETY comments call it *the pointer rule*, as libgasp does: during the call, a pointer to data
//! is NULL; or it is aligned, valid for the reads and writes that the header implies, initialized if
//! it is read, and not accessed by another thread in a way that would be a data race. A `vdev_t *`,
//! a `struct guest_cpu *` or a `struct guest_timer *` may have any value: it is looked up and never
//! dereferenced.
#![allow(unsafe_code, reason = "reads and writes through pointers from C")]
#![allow(clippy::missing_safety_doc, reason = "the headers say what C must pass: see Safety")]

pub mod assign;
pub mod cdev;
pub mod core;
pub mod cpu;
pub mod guest;
pub mod instr;
pub mod intr;
pub mod log;
pub mod parse;
pub mod power;
pub mod pulse;
pub mod timer;
pub mod vpci;
pub mod wdog;

use ::core::ffi::{CStr, c_char};
use std::borrow::Cow;

/// A text of C; empty for NULL.
///
/// # Safety
/// `text` is NULL, or a string that stays as it is during `'call`: the pointer rule.
unsafe fn text<'call>(text: *const c_char) -> Cow<'call, str> {
    match text.is_null() {
        true => Cow::Borrowed(""),
        // SAFETY: it is not NULL, so it is a string, as this function asks.
        false => unsafe { CStr::from_ptr(text) }.to_string_lossy(),
    }
}

/// A text of C as bytes, without the NUL; empty for NULL.
///
/// # Safety
/// As [`text`] asks.
unsafe fn bytes<'call>(text: *const c_char) -> &'call [u8] {
    match text.is_null() {
        true => &[],
        // SAFETY: it is not NULL, so it is a string, as this function asks.
        false => unsafe { CStr::from_ptr(text) }.to_bytes(),
    }
}

/// Writes a text as snprintf(3) does; the bytes that it has without the NUL.
///
/// # Safety
/// `buf` is NULL or valid for writes of `len` bytes: the pointer rule.
unsafe fn print(text: &str, buf: *mut c_char, len: usize) -> usize {
    if !buf.is_null() && len > 0 {
        let copied = text.len().min(len - 1);
        // SAFETY: `buf` is valid for writes of `len` bytes, as this function asks, of which
        // `copied` are fewer; it does not overlap `text`, which is the host's.
        unsafe { buf.copy_from_nonoverlapping(text.as_ptr().cast(), copied) };
        // SAFETY: `copied` is less than `len`.
        let end = unsafe { buf.add(copied) };
        // SAFETY: as above.
        unsafe { end.write(0) };
    }
    text.len()
}
