//! Memory that the embedding program has mapped itself.
#![allow(unsafe_code, reason = "takes memory on the embedder's word")]

use core::ptr::NonNull;

use rustix::param::page_size;

use super::adopt::AT_START;
use super::backing::{Backing, BackingReport};
use super::classes::Residency;
use super::object::{MemoryObject, Parts};
use super::pin::PinMethod;
use super::window::Window;
use crate::access::Access;
use crate::error::{Error, Operation, Reason, Result};

/// What an embedding program says about memory that it has mapped itself.
#[derive(Clone, Copy, Debug)]
pub struct External {
    /// Where it is mapped; a multiple of the host's page size.
    pub base: NonNull<u8>,
    /// How many bytes; a multiple of the host's page size.
    pub len: usize,
    /// How it is mapped.
    pub access: Access,
    /// How firmly to hold its pages.
    pub residency: Residency,
}

impl MemoryObject {
    /// Memory that the embedding program has mapped already, and keeps mapped.
    ///
    /// This is how the engine is put into a VMM that owns its guest memory. The memory is
    /// not zeroed, not unmapped, and has no descriptor, so it cannot be part of a
    /// stitched map. Its pages are pinned by [`PinMethod::IoUring`] or not at all.
    ///
    /// # Errors
    /// `EINVAL` where base or length is not a multiple of the host's page size, or the
    /// length is 0.
    ///
    /// # Safety
    /// From this call until the last clone of the object *and* the last mapping of it
    /// are gone, which may be after every guest that used it is dropped:
    /// * `[base, base + len)` stays mapped, with at least `access`, to the same memory;
    /// * nobody makes a Rust reference to it; every access by anyone in the process is
    ///   volatile, atomic or made by code outside Rust's memory model;
    /// * where `residency` is [`Pinned`](Residency::Pinned), nobody punches holes into
    ///   it, discards it (`MADV_DONTNEED` on private memory) or truncates its file.
    pub unsafe fn external(name: &str, memory: External) -> Result<Self> {
        let External { base, len, access, residency } = memory;
        let fail = |reason| Err(Error::new(Operation::AdoptMemory, AT_START, len as u64, reason));
        if len == 0 {
            return fail(Reason::ZeroLength);
        }
        if !base.addr().get().is_multiple_of(page_size()) || !len.is_multiple_of(page_size()) {
            return fail(Reason::Invalid("address and length must be whole host pages"));
        }
        let report = BackingReport::of(Backing::External);
        let parts = Parts::new(name, Window::borrowed(base, len), access, report, page_size());
        // Whether it is shared, which is what a pipe can hold, is not known.
        Ok(Self::resident(parts, residency, &[PinMethod::IoUring]))
    }
}
