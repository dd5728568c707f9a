//! The handle of one mapping.
#![allow(unsafe_code, reason = "reaches guest memory through a pointer that its slot keeps valid")]

use core::fmt;
use core::ptr::NonNull;

use super::hold::Hold;
use crate::access::Access;
use crate::addr::DeviceAddr;
use crate::error::{Error, Operation, Place, Reason, Result};
use crate::memory::{HostExtent, HostRun, MemoryObject, Stability};
use crate::space::segment::Segment;
use crate::view::lookup::Extent;

/// A device's mapping of guest memory, until it is dropped.
///
/// While it lives, the pointer is valid and leads to the memory that was looked up, even
/// if the guest has taken its permission back meanwhile: that revoke waits, or detaches
/// the mapping, as its domain's [`DrainPolicy`](crate::DrainPolicy) says. A mapping can
/// be sent to and dropped on any thread.
///
/// The guest can write the memory at any time, so there is never a Rust reference to it:
/// copy with [`read_at`](Self::read_at) and [`write_at`](Self::write_at), use the atomic
/// [`load`](Self::load) and [`store`](Self::store), or take the raw pointer.
pub struct Mapping {
    extent: Extent,
    pointer: NonNull<u8>,
    addr: DeviceAddr,
    access: Access,
    hold: Hold,
}

// SAFETY: the pointer is to memory shared with a guest, which is only accessed through
// `memory::raw`, atomics or the user's own unsafe code; the segment is shared and immutable;
// a slot may be released on any thread.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` allows accesses from several threads at once. Every safe one is atomic,
// or a copy of `memory::access::raw`, which says why a concurrent write does it no harm; the
// segment is immutable, and a slot may be looked at from any thread.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// # Safety
    /// `extent` was found after `hold` was published, and `hold` is established for it.
    #[inline]
    pub(super) unsafe fn new(hold: Hold, extent: Extent, addr: DeviceAddr, access: Access) -> Self {
        // SAFETY: `pointer` asks that the segment lives: `hold` is established for the
        // extent, so whoever removes the segment keeps it while `hold` does.
        let pointer = unsafe { extent.pointer() };
        Self { extent, pointer, addr, access, hold }
    }

    /// What keeps the mapping.
    #[inline]
    pub(super) fn into_hold(self) -> Hold {
        self.hold
    }

    /// The device address of the first byte.
    pub fn device_addr(&self) -> DeviceAddr {
        self.addr
    }

    /// How many bytes; never 0.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.extent.len as usize
    }

    /// What the mapping was made for.
    #[inline]
    pub fn access(&self) -> Access {
        self.access
    }

    /// The first byte, for reading. Valid for [`len`](Self::len) bytes while the mapping
    /// lives; the guest may write them at any time. Where the memory is
    /// [guarded](MemoryObject::is_guarded), an access through the pointer may end in SIGBUS.
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.pointer.as_ptr()
    }

    /// The first byte, for writing.
    ///
    /// # Errors
    /// `EACCES` where the mapping was not made for writing.
    pub fn as_mut_ptr(&self) -> Result<*mut u8> {
        match self.access.contains(Access::WRITE) {
            true => Ok(self.pointer.as_ptr()),
            false => Err(self.error(0, self.len(), Reason::NotAllowed { allowed: self.access })),
        }
    }

    /// The host-physical run that begins at the first byte. It covers the whole mapping
    /// if that was made with [`map_host_contig`](crate::Vdev::map_host_contig), and may be
    /// shorter otherwise.
    ///
    /// # Errors
    /// `EPERM` where host-physical addresses are not known (decision 19).
    #[inline]
    pub fn host_run(&self) -> Result<HostRun> {
        match self.object().phys_run(self.extent.offset, self.extent.len) {
            Ok(run) => Ok(run),
            Err(reason) => Err(self.error(0, self.len(), reason)),
        }
    }

    /// The whole mapping as host-physical runs, in order. One extent without an address covers
    /// each part whose addresses are unknown.
    pub fn host_extents(&self) -> impl Iterator<Item = HostExtent> + '_ {
        self.object().extents_of(self.extent.offset, self.extent.len)
    }

    /// Whether the host-physical address can change while the mapping lives.
    #[inline]
    pub fn stability(&self) -> Stability {
        self.object().stability()
    }

    /// The memory object that the mapping is a part of.
    #[inline]
    pub fn object(&self) -> &MemoryObject {
        segment_of(&self.extent, &self.hold).object()
    }

    /// The offset in [`object`](Self::object) of the mapping's first byte.
    pub fn object_offset(&self) -> u64 {
        self.extent.offset
    }

    /// Whether a revoke of the range has completed without waiting for this mapping any
    /// longer. The memory is still there, but it is no longer the device's to use.
    pub fn is_revoked(&self) -> bool {
        self.hold.is_revoked()
    }

    /// Copies bytes out of the mapping.
    ///
    /// # Errors
    /// `EINVAL` where the range passes the end, `EACCES` where the mapping was not made
    /// for reading, `EIO` where the memory is [guarded](MemoryObject::is_guarded) and gone.
    pub fn read_at(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        let from = self.reach(offset, into.len(), Access::READ)?;
        // SAFETY: `reach` checked that the range is inside the mapping.
        let copied = unsafe { self.object().copy_out(from.as_ptr(), into) };
        copied.map_err(|reason| self.error(offset, into.len(), reason))
    }

    /// Copies bytes into the mapping.
    ///
    /// # Errors
    /// `EINVAL` where the range passes the end, `EACCES` where the mapping was not made
    /// for writing, `EIO` where the memory is [guarded](MemoryObject::is_guarded) and gone.
    pub fn write_at(&self, offset: usize, from: &[u8]) -> Result<()> {
        let to = self.reach(offset, from.len(), Access::WRITE)?;
        // SAFETY: `reach` checked that the range is inside the mapping and writable.
        let copied = unsafe { self.object().copy_in(from, to.as_ptr()) };
        copied.map_err(|reason| self.error(offset, from.len(), reason))
    }

    pub(super) fn reach_aligned<T>(&self, offset: usize, access: Access) -> Result<NonNull<u8>> {
        let at = self.reach(offset, size_of::<T>(), access)?;
        let align = size_of::<T>();
        if !at.addr().get().is_multiple_of(align) {
            let reason = Reason::Unaligned { align: align as u64 };
            return Err(self.error(offset, align, reason));
        }
        Ok(at)
    }

    #[inline]
    fn reach(&self, offset: usize, len: usize, access: Access) -> Result<NonNull<u8>> {
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            return Err(self.error(offset, len, Reason::OutOfBounds { size: self.extent.len }));
        }
        if !self.access.contains(access) {
            return Err(self.error(offset, len, Reason::NotAllowed { allowed: self.access }));
        }
        // SAFETY: `offset` is inside the mapping, or right behind it for an empty range.
        Ok(unsafe { self.pointer.add(offset) })
    }

    #[cold]
    pub(super) fn error(&self, offset: usize, len: usize, reason: Reason) -> Error {
        Error::new(Operation::Access, Place::Offset(offset as u64), len as u64, reason)
    }
}

/// The segment behind an extent that `hold` holds.
#[inline]
pub(super) fn segment_of<'hold>(extent: &Extent, _hold: &'hold Hold) -> &'hold Segment {
    // SAFETY: an extent is only stored beside the slot under which it was found. While
    // the slot is held, whoever removes the segment keeps it: the revoke that precedes
    // every removal collects the slot and stores the segment with it.
    unsafe { &*extent.segment.as_ptr() }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("addr", &self.addr)
            .field("len", &self.len())
            .field("access", &self.access)
            .field("pointer", &self.pointer)
            .field("revoked", &self.is_revoked())
            .finish_non_exhaustive()
    }
}
