//! The handle of a mapping.
#![allow(unsafe_code, reason = "reaches guest memory through a pointer that its slot keeps valid")]

use core::fmt;
use core::ptr::NonNull;

use super::hold::Hold;
use crate::access::Access;
use crate::addr::DeviceAddr;
use crate::error::{Error, Location, Operation, Reason, Result};
use crate::memory::{HostExtent, HostRun, MemoryObject, Stability};
use crate::space::segment::Segment;
use crate::view::lookup::Extent;

/// A device's mapping of guest memory, until it is dropped.
///
/// While it lives, the pointer is valid and points to the memory that was looked up, even
/// if the guest revokes the range: the revoke's drain waits for the mapping, or detaches it, as
/// the [`DrainPolicy`](crate::DrainPolicy) says (decisions 15 and 16). A mapping can be sent to
/// and dropped on any thread.
///
/// The guest can write the memory at any time, so there is never a Rust reference to it:
/// copy with [`read_at`](Self::read_at) and [`write_at`](Self::write_at), use the atomic
/// [`load`](Self::load) and [`store`](Self::store), or take the raw pointer.
pub struct Mapping {
    extent: Extent,
    pointer: NonNull<u8>,
    addr: DeviceAddr,
    access: WordWide,
    hold: Hold,
}

/// An [`Access`], with no padding after it: a `Result` of a mapping is then moved in whole words,
/// whose stores the processor can forward to the loads that follow.
#[derive(Clone, Copy)]
struct WordWide(u64);

impl WordWide {
    #[inline]
    fn new(access: Access) -> Self {
        Self(u64::from(access.bits()))
    }

    #[inline]
    fn get(self) -> Access {
        Access::from_bits_truncate(self.0 as u8)
    }
}

// SAFETY: `Send` asks that a mapping may be used and dropped on another thread. Of its fields
// only the two pointers are not `Send`. `pointer` is to memory shared with a guest, which is
// accessed only through `memory::access`, atomics or the user's own unsafe code, none of which
// depends on the thread; `extent.segment` is to an immutable segment, which is `Sync`. A slot
// may be released on any thread.
unsafe impl Send for Mapping {}
// SAFETY: `Sync` asks that accesses through `&Mapping` from several threads at once are no data
// race. Every safe access to the memory is atomic or a copy of `memory::access`, which says why
// a concurrent write does it no harm; the segment is immutable and `Sync`; the slot's words are
// atomics.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// A mapping of `extent` for `access`, whose first byte is at the device address `addr`.
    ///
    /// # Safety
    /// `extent` was found after `hold` was published, and `hold` is established for it. Its
    /// memory offers `access`.
    #[inline]
    pub(super) unsafe fn new(hold: Hold, extent: Extent, addr: DeviceAddr, access: Access) -> Self {
        // SAFETY: `Extent::pointer` asks for a slot that is busy or established since before the
        // extent was found: `hold` was published before, and is established, as this function's
        // contract asks.
        let pointer = unsafe { extent.pointer() };
        Self { extent, pointer, addr, access: WordWide::new(access), hold }
    }

    /// The slot of the mapping.
    #[inline]
    pub(super) fn into_hold(self) -> Hold {
        self.hold
    }

    /// The device address of the first byte.
    pub fn device_addr(&self) -> DeviceAddr {
        self.addr
    }

    /// The length in bytes; never 0.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.extent.len as usize
    }

    /// The access that the mapping was created for.
    #[inline]
    pub fn access(&self) -> Access {
        self.access.get()
    }

    /// The address of the first byte, for reading. It is valid for [`len`](Self::len) bytes while
    /// the mapping lives; the guest may write them at any time. If the memory is
    /// [guarded](MemoryObject::is_guarded), an access through the pointer can raise SIGBUS.
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.pointer.as_ptr()
    }

    /// The address of the first byte, for writing; otherwise as [`as_ptr`](Self::as_ptr).
    ///
    /// # Errors
    /// `EACCES` if the mapping was not created for writing.
    pub fn as_mut_ptr(&self) -> Result<*mut u8> {
        match self.access().contains(Access::WRITE) {
            true => Ok(self.pointer.as_ptr()),
            false => Err(self.error(0, self.len(), Reason::NotAllowed { allowed: self.access() })),
        }
    }

    /// The host-physical run that begins at the first byte. It covers the whole mapping
    /// if that was created with [`map_host_contig`](crate::Vdev::map_host_contig), and may be
    /// shorter otherwise. It is returned even if the address can change (decision 20).
    ///
    /// # Errors
    /// `EPERM` if host-physical addresses are not known (decision 19).
    #[inline]
    pub fn host_run(&self) -> Result<HostRun> {
        match self.object().phys_run(self.extent.offset, self.extent.len) {
            Ok(run) => Ok(run),
            Err(reason) => Err(self.error(0, self.len(), reason)),
        }
    }

    /// The host-physical runs of the whole mapping, in order. Each part whose addresses are
    /// unknown is one extent without an address.
    pub fn host_extents(&self) -> impl Iterator<Item = HostExtent> + '_ {
        self.object().extents_of(self.extent.offset, self.extent.len)
    }

    /// The class that says whether the host-physical address can change while the mapping lives
    /// (decision 20).
    #[inline]
    pub fn stability(&self) -> Stability {
        self.object().stability()
    }

    /// The memory object of which the mapping is a part.
    #[inline]
    pub fn object(&self) -> &MemoryObject {
        segment_of(&self.extent, &self.hold).object()
    }

    /// The offset in bytes of the mapping's first byte in [`object`](Self::object).
    pub fn object_offset(&self) -> u64 {
        self.extent.offset
    }

    /// Whether a drain of the range has ended without this mapping (decision 15). The memory
    /// stays mapped, but the device may no longer use it.
    #[inline]
    pub fn is_revoked(&self) -> bool {
        self.hold.is_revoked()
    }

    /// Copies bytes out of the mapping, from `offset` in bytes.
    ///
    /// # Errors
    /// `EINVAL` if the range extends past the end; `EACCES` if the mapping was not created for
    /// reading; `EIO` if the memory is [guarded](MemoryObject::is_guarded) and gone: part of
    /// `into` may then be written.
    pub fn read_at(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        let from = self.reach(offset, into.len(), Access::READ)?;
        // SAFETY: `copy_out` asks that `into.len()` bytes at `from` are inside a mapping of the
        // object's memory for the whole call: `reach` checked that they are inside this mapping,
        // and its slot keeps the object mapped while `self` lives.
        let copied = unsafe { self.object().copy_out(from.as_ptr(), into) };
        copied.map_err(|reason| self.error(offset, into.len(), reason))
    }

    /// Copies bytes into the mapping, to `offset` in bytes.
    ///
    /// # Errors
    /// `EINVAL` if the range extends past the end; `EACCES` if the mapping was not created for
    /// writing; `EIO` if the memory is [guarded](MemoryObject::is_guarded) and gone: part of
    /// `from` may then be copied.
    pub fn write_at(&self, offset: usize, from: &[u8]) -> Result<()> {
        let to = self.reach(offset, from.len(), Access::WRITE)?;
        // SAFETY: `copy_in` asks that `from.len()` bytes at `to` are inside a writable mapping of
        // the object's memory for the whole call: `reach` checked that they are inside this mapping
        // and that it was created for writing, so its memory is writable; its slot keeps the object
        // mapped while `self` lives.
        let copied = unsafe { self.object().copy_in(from, to.as_ptr()) };
        copied.map_err(|reason| self.error(offset, from.len(), reason))
    }

    /// The address at `offset` for an access to a `T` that must be aligned to its size.
    pub(super) fn reach_aligned<T>(&self, offset: usize, access: Access) -> Result<NonNull<u8>> {
        let pointer = self.reach(offset, size_of::<T>(), access)?;
        let align = size_of::<T>();
        if !pointer.addr().get().is_multiple_of(align) {
            let reason = Reason::Unaligned { align: align as u64 };
            return Err(self.error(offset, align, reason));
        }
        Ok(pointer)
    }

    /// The address at `offset` of `len` bytes inside the mapping, which allows `access`.
    #[inline]
    fn reach(&self, offset: usize, len: usize, access: Access) -> Result<NonNull<u8>> {
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            return Err(self.error(offset, len, Reason::OutOfBounds { size: self.extent.len }));
        }
        if !self.access().contains(access) {
            return Err(self.error(offset, len, Reason::NotAllowed { allowed: self.access() }));
        }
        // SAFETY: `add` asks that the result is inside the allocation of the pointer, or at its
        // end: `offset` is at most the mapping's length, checked above, and the mapping lies in
        // the object's window, which its slot keeps mapped.
        Ok(unsafe { self.pointer.add(offset) })
    }

    #[cold]
    pub(super) fn error(&self, offset: usize, len: usize, reason: Reason) -> Error {
        Error::new(Operation::Access, Location::Offset(offset as u64), len as u64, reason)
    }
}

/// The segment of an extent that was found under `hold`.
#[inline]
pub(super) fn segment_of<'hold>(extent: &Extent, _hold: &'hold Hold) -> &'hold Segment {
    // SAFETY: a shared reference asks that the segment lives while `_hold` is borrowed, and is
    // not mutably borrowed. `Mapping` and `Scatter`, which alone call this, store an extent only
    // together with the slot under which it was found. While that slot is held, the segment
    // lives: the revoke that precedes every removal of a segment finds the slot, and its drain,
    // or after that `detached`, keeps the segment until the slot is released. Segments are
    // immutable.
    unsafe { &*extent.segment.as_ptr() }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("addr", &self.addr)
            .field("len", &self.len())
            .field("access", &self.access())
            .field("pointer", &self.pointer)
            .field("revoked", &self.is_revoked())
            .finish_non_exhaustive()
    }
}
