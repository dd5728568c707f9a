//! Accesses to an object's memory, from inside the crate and from outside.
//!
//! Memory whose owner can take it away is *guarded*: every access goes through
//! [`guard`](super::guard), which returns an error instead of raising SIGBUS.
#![allow(unsafe_code, reason = "reaches memory that it owns, through checked raw copies")]

use core::ptr::NonNull;

use crate::access::Access;
use crate::error::{Error, Location, Operation, Reason, Result};
use crate::memory::access::guard;
use crate::memory::access::raw;
use crate::memory::object::MemoryObject;

impl MemoryObject {
    /// Copies `into.len()` bytes from `offset` out of the memory, whatever access its regions
    /// offer: for loaders and checks.
    ///
    /// # Errors
    /// `EINVAL` if the range extends past the end; `EACCES` if the memory cannot be read; `EIO` if
    /// its owner has taken the memory away, see [`is_guarded`](Self::is_guarded).
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let from = self.reach(offset, into.len(), Access::READ)?;
        // SAFETY: `reach` has checked that the `into.len()` bytes from `from` are inside the window
        // and may be read; the window stays mapped while `self` lives, so for the whole call.
        unsafe { self.copy_out(from, into) }.map_err(|reason| fail(offset, into.len(), reason))
    }

    /// Copies `from` to `offset` of the memory, whatever access its regions offer: for loaders and
    /// checks.
    ///
    /// # Errors
    /// `EINVAL` if the range extends past the end; `EACCES` if the memory cannot be written; `EIO`
    /// if its owner has taken the memory away, see [`is_guarded`](Self::is_guarded).
    pub fn write_at(&self, offset: u64, from: &[u8]) -> Result<()> {
        let to = self.reach(offset, from.len(), Access::WRITE)?;
        // SAFETY: `reach` has checked that the `from.len()` bytes from `to` are inside the window
        // and that it is writable; the window stays mapped while `self` lives, so for the whole
        // call.
        unsafe { self.copy_in(from, to) }.map_err(|reason| fail(offset, from.len(), reason))
    }

    /// Copies the object's memory at `src` into `dst`.
    ///
    /// # Errors
    /// [`Reason::MemoryGone`], of guarded memory; a part of `dst` may then have been written.
    ///
    /// # Safety
    /// `[src, src + dst.len())` must be inside the object's window, or another mapping of its
    /// memory, and mapped for reading, for the whole call.
    #[inline]
    pub(crate) unsafe fn copy_out(
        &self,
        src: *const u8,
        dst: &mut [u8],
    ) -> core::result::Result<(), Reason> {
        if self.is_guarded() {
            // SAFETY: `[src, src + dst.len())` is mapped for reading for the whole call, as this
            // function's caller promises; its memory may be gone, as `guard::copy_out` allows. It
            // is guest memory: there are no Rust references to it other than to atomics.
            // `guard::install` has succeeded: no object is guarded before.
            return unsafe { guard::copy_out(src, dst) };
        }
        // SAFETY: `[src, src + dst.len())` is in a mapping of this object's memory, and mapped for
        // reading, for the whole call, as this function's caller promises; memory that is not
        // guarded stays, so it is valid for reads. It is guest memory, which this process writes
        // only through `raw` or atomically.
        unsafe { raw::copy_out(src, dst) };
        Ok(())
    }

    /// Copies `src` into the object's memory at `dst`.
    ///
    /// # Errors
    /// [`Reason::MemoryGone`], of guarded memory; a part may then have been written.
    ///
    /// # Safety
    /// `[dst, dst + src.len())` must be inside the object's window, or another mapping of its
    /// memory, and mapped for writing, for the whole call.
    #[inline]
    pub(crate) unsafe fn copy_in(
        &self,
        src: &[u8],
        dst: *mut u8,
    ) -> core::result::Result<(), Reason> {
        if self.is_guarded() {
            // SAFETY: `[dst, dst + src.len())` is mapped for writing for the whole call, as this
            // function's caller promises; its memory may be gone, as `guard::copy_in` allows. It is
            // guest memory: there are no Rust references to it other than to atomics.
            // `guard::install` has succeeded: no object is guarded before.
            return unsafe { guard::copy_in(src, dst) };
        }
        // SAFETY: `[dst, dst + src.len())` is in a mapping of this object's memory, and mapped for
        // writing, for the whole call, as this function's caller promises; memory that is not
        // guarded stays, so it is valid for writes. It is guest memory, which this process accesses
        // only through `raw` or atomically.
        unsafe { raw::copy_in(src, dst) };
        Ok(())
    }

    fn reach(&self, offset: u64, len: usize, access: Access) -> Result<*mut u8> {
        let fail = |reason| fail(offset, len, reason);
        if len > 0 {
            self.check(offset, len as u64).map_err(fail)?;
        } else if offset > self.len() {
            return Err(fail(Reason::OutOfBounds { size: self.len() }));
        }
        if !self.access().contains(access) {
            return Err(fail(Reason::NotAllowed { allowed: self.access() }));
        }
        let start = usize::try_from(offset).map_err(|_| fail(Reason::Wraps))?;
        // SAFETY: `start` is at most the window's length, as was checked above, so the sum is
        // inside the window or just past its end; a window is one range of addresses, no longer
        // than `isize::MAX`.
        Ok(unsafe { self.base().add(start) })
    }
}

/// Reads an integer of guarded memory, ordered as strongly as `SeqCst`.
///
/// # Safety
/// `src` must be in a mapping of a [guarded](MemoryObject::is_guarded) object's memory, for
/// reading, with `size` bytes to go: 1, 2, 4 or 8, of which it is a multiple.
pub(crate) unsafe fn load(src: NonNull<u8>, size: usize) -> core::result::Result<u64, Reason> {
    // SAFETY: this function's caller promises that `src` is mapped for reading with `size` bytes to
    // go, is a multiple of `size`, and that `size` is 1, 2, 4 or 8. It is guest memory: there are
    // no Rust references to it other than to atomics. `guard::install` has succeeded: no object is
    // guarded before.
    unsafe { guard::load(src.as_ptr(), size) }
}

/// Writes an integer of guarded memory, ordered as strongly as `SeqCst`.
///
/// # Safety
/// `dst` must be in a mapping of a [guarded](MemoryObject::is_guarded) object's memory, for
/// writing, with `size` bytes to go: 1, 2, 4 or 8, of which it is a multiple.
pub(crate) unsafe fn store(
    dst: NonNull<u8>,
    value: u64,
    size: usize,
) -> core::result::Result<(), Reason> {
    // SAFETY: this function's caller promises that `dst` is mapped for writing with `size` bytes to
    // go, is a multiple of `size`, and that `size` is 1, 2, 4 or 8. It is guest memory: there are
    // no Rust references to it other than to atomics. `guard::install` has succeeded: no object is
    // guarded before.
    unsafe { guard::store(dst.as_ptr(), value, size) }
}

#[cold]
fn fail(offset: u64, len: usize, reason: Reason) -> Error {
    Error::new(Operation::Access, Location::Offset(offset), len as u64, reason)
}
