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
        // SAFETY: `reach` checked the range; the window stays mapped while `self` lives.
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
        // SAFETY: as in `read_at`, and `reach` checked that the window is writable.
        unsafe { self.copy_in(from, to) }.map_err(|reason| fail(offset, from.len(), reason))
    }

    /// Copies the object's memory at `src` into `dst`.
    ///
    /// # Errors
    /// [`Reason::MemoryGone`], of guarded memory; a part of `dst` may then have been written.
    ///
    /// # Safety
    /// `[src, src + dst.len())` must be inside the object's window, or another mapping of
    /// its memory, for the whole call.
    #[inline]
    pub(crate) unsafe fn copy_out(
        &self,
        src: *const u8,
        dst: &mut [u8],
    ) -> core::result::Result<(), Reason> {
        if self.is_guarded() {
            // SAFETY: the caller has `[src, src + dst.len())` in a mapping of this object's memory
            // for the whole call; that the memory behind may be gone is the guard's business.
            return unsafe { guard::copy_out(src, dst) };
        }
        // SAFETY: the caller has `[src, src + dst.len())` in a mapping of this object's memory for
        // the whole call, and memory that is not guarded stays.
        unsafe { raw::copy_out(src, dst) };
        Ok(())
    }

    /// Copies `src` into the object's memory at `dst`.
    ///
    /// # Errors
    /// [`Reason::MemoryGone`], of guarded memory; a part may then have been written.
    ///
    /// # Safety
    /// As [`copy_out`](Self::copy_out), for a writable mapping.
    #[inline]
    pub(crate) unsafe fn copy_in(
        &self,
        src: &[u8],
        dst: *mut u8,
    ) -> core::result::Result<(), Reason> {
        if self.is_guarded() {
            // SAFETY: the caller has `[dst, dst + src.len())` in a writable mapping of this
            // object's memory; that the memory behind may be gone is the guard's business.
            return unsafe { guard::copy_in(src, dst) };
        }
        // SAFETY: the caller has `[dst, dst + src.len())` in a writable mapping of this object's
        // memory for the whole call, and memory that is not guarded stays.
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
        let at = usize::try_from(offset).map_err(|_| fail(Reason::Wraps))?;
        // SAFETY: `offset` is at most the window's length, checked above.
        Ok(unsafe { self.base().add(at) })
    }
}

/// Reads an integer of guarded memory, ordered as strongly as `SeqCst`.
///
/// # Safety
/// As [`MemoryObject::copy_out`], and aligned for `size`: 1, 2, 4 or 8 bytes.
pub(crate) unsafe fn load(at: NonNull<u8>, size: usize) -> core::result::Result<u64, Reason> {
    // SAFETY: `guard::load` asks for what this function asks: `at` in a mapping, aligned for
    // `size`, which is 1, 2, 4 or 8.
    unsafe { guard::load(at.as_ptr(), size) }
}

/// Writes an integer of guarded memory, ordered as strongly as `SeqCst`.
///
/// # Safety
/// As [`load`], for a writable mapping.
pub(crate) unsafe fn store(
    at: NonNull<u8>,
    value: u64,
    size: usize,
) -> core::result::Result<(), Reason> {
    // SAFETY: `guard::store` asks for what this function asks: `at` in a writable mapping,
    // aligned for `size`, which is 1, 2, 4 or 8.
    unsafe { guard::store(at.as_ptr(), value, size) }
}

#[cold]
fn fail(offset: u64, len: usize, reason: Reason) -> Error {
    Error::new(Operation::Access, Location::Offset(offset), len as u64, reason)
}
