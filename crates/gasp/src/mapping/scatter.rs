//! Scatter maps: all of a range that is not consecutive in host memory, in pieces.
#![allow(unsafe_code, reason = "reaches guest memory through pointers that its slot keeps valid")]

use core::fmt;
use core::ptr::NonNull;

use smallvec::SmallVec;

use super::handle::segment_of;
use super::hold::Hold;
use crate::access::Access;
use crate::addr::DeviceAddr;
use crate::error::{Error, Location, Operation, Reason, Result};
use crate::memory::{HostExtent, MemoryObject, Stability};
use crate::span::Span;
use crate::view::lookup::Extent;

/// The number of pieces that are kept without an allocation.
const INLINE: usize = 8;
pub(super) type Pieces = SmallVec<[Extent; INLINE]>;

/// A device's mapping of a whole range, in pieces, until it is dropped (decision 21).
///
/// Up to eight pieces take no allocation. Everything said of a
/// [`Mapping`](crate::Mapping) holds for each of them.
pub struct Scatter {
    pieces: Pieces,
    span: Span<DeviceAddr>,
    access: Access,
    hold: Hold,
}

// SAFETY: `Send` asks that a scatter map may be used and dropped on another thread. Of its fields
// only the pointers of `pieces` are not `Send`: they are to immutable segments, which are `Sync`.
// The guest's memory behind them is accessed only through `memory::access` or the user's own
// unsafe code, and a slot may be released on any thread.
unsafe impl Send for Scatter {}
// SAFETY: `Sync` asks that accesses through `&Scatter` from several threads at once are no data
// race. Every safe access to the memory is a copy of `memory::access`, which says why a concurrent
// write does it no harm; the segments are immutable and `Sync`; the slot's words are atomics.
unsafe impl Sync for Scatter {}

/// One piece of a [`Scatter`].
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    extent: Extent,
    addr: DeviceAddr,
    scatter: &'a Scatter,
}

impl Scatter {
    /// A scatter map of `pieces`, which make up `span`, for `access`.
    ///
    /// # Safety
    /// All of `pieces` were found after `hold` was published, and `hold` is established for them.
    /// Their memory offers `access`.
    pub(super) unsafe fn new(
        hold: Hold,
        pieces: Pieces,
        span: Span<DeviceAddr>,
        access: Access,
    ) -> Self {
        Self { pieces, span, access, hold }
    }

    /// The device address of the first byte.
    pub fn device_addr(&self) -> DeviceAddr {
        self.span.start()
    }

    /// The length of all pieces in bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.span.len() as usize
    }

    /// The access that the mapping was created for.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Whether a drain of the range has ended without this mapping; see
    /// [`Mapping::is_revoked`](crate::Mapping::is_revoked).
    pub fn is_revoked(&self) -> bool {
        self.hold.is_revoked()
    }

    /// The pieces, in order of device address; at least one.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = Piece<'_>> {
        let mut addr = self.span.start();
        self.pieces.iter().map(move |&extent| {
            let piece = Piece { extent, addr, scatter: self };
            addr = DeviceAddr(addr.0.wrapping_add(extent.len));
            piece
        })
    }

    /// Copies bytes out of the mapping, from `offset` in bytes, across pieces.
    ///
    /// # Errors
    /// `EINVAL` if the range extends past the end; `EACCES` if the mapping was not created for
    /// reading; `EIO` if memory is [guarded](MemoryObject::is_guarded) and gone: part of `into`
    /// may then be written.
    pub fn read_at(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        self.check(offset, into.len(), Access::READ)?;
        let (mut done, total) = (0, into.len());
        let copied = self.each_part(offset, total, |object, from, len| {
            let Some(part) = into.get_mut(done..done + len) else { return Ok(()) };
            done += len;
            // SAFETY: `copy_out` asks that `part.len()` bytes at `from` are inside a mapping of the
            // object's memory for the whole call: `each_part` passes `len` bytes, as many, inside
            // a piece of `object`, and the slot keeps the object mapped while `self` lives.
            unsafe { object.copy_out(from.as_ptr(), part) }
        });
        copied.map_err(|reason| self.error(offset, total, reason))
    }

    /// Copies bytes into the mapping, to `offset` in bytes, across pieces.
    ///
    /// # Errors
    /// `EINVAL` if the range extends past the end; `EACCES` if the mapping was not created for
    /// writing; `EIO` if memory is [guarded](MemoryObject::is_guarded) and gone: the pieces
    /// before it, and possibly a part of its own, are then written.
    pub fn write_at(&self, offset: usize, from: &[u8]) -> Result<()> {
        self.check(offset, from.len(), Access::WRITE)?;
        let mut done = 0;
        let copied = self.each_part(offset, from.len(), |object, to, len| {
            let Some(part) = from.get(done..done + len) else { return Ok(()) };
            done += len;
            // SAFETY: `copy_in` asks that `part.len()` bytes at `to` are inside a writable mapping
            // of the object's memory for the whole call: `each_part` passes `len` bytes, as many,
            // inside a piece of `object`; `check` found that this mapping was created for writing,
            // so the memory is writable; and the slot keeps the object mapped while `self` lives.
            unsafe { object.copy_in(part, to.as_ptr()) }
        });
        copied.map_err(|reason| self.error(offset, from.len(), reason))
    }

    fn check(&self, offset: usize, len: usize, access: Access) -> Result<()> {
        let reason = if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            Reason::OutOfBounds { size: self.span.len() }
        } else if !self.access.contains(access) {
            Reason::NotAllowed { allowed: self.access }
        } else {
            return Ok(());
        };
        Err(self.error(offset, len, reason))
    }

    #[cold]
    fn error(&self, offset: usize, len: usize, reason: Reason) -> Error {
        Error::new(Operation::Access, Location::Offset(offset as u64), len as u64, reason)
    }

    /// Calls `each` with the parts of pieces that make up a range inside the mapping: the object,
    /// the address, and the length, which lie inside the piece.
    fn each_part(
        &self,
        offset: usize,
        len: usize,
        mut each: impl FnMut(&MemoryObject, NonNull<u8>, usize) -> core::result::Result<(), Reason>,
    ) -> core::result::Result<(), Reason> {
        let (mut skip, mut rest) = (offset, len);
        for piece in self.pieces() {
            if rest == 0 {
                break;
            }
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let take = rest.min(piece.len() - skip);
            // SAFETY: `add` asks that the result is inside the allocation of the pointer: `skip` is
            // less than the piece's length, and the piece lies in the object's window, which the
            // slot keeps mapped.
            let pointer = unsafe { piece.pointer().add(skip) };
            each(piece.object(), pointer, take)?;
            skip = 0;
            rest -= take;
        }
        Ok(())
    }
}

impl<'a> Piece<'a> {
    /// The device address of the first byte.
    pub fn device_addr(&self) -> DeviceAddr {
        self.addr
    }

    /// The length in bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a piece is never empty")]
    pub fn len(&self) -> usize {
        self.extent.len as usize
    }

    /// The address of the first byte, for reading. It is valid for [`len`](Self::len) bytes while
    /// the scatter map lives; otherwise as [`Mapping::as_ptr`](crate::Mapping::as_ptr).
    pub fn as_ptr(&self) -> *const u8 {
        self.pointer().as_ptr()
    }

    /// The address of the first byte, for writing; otherwise as [`as_ptr`](Self::as_ptr).
    ///
    /// # Errors
    /// `EACCES` if the mapping was not created for writing.
    pub fn as_mut_ptr(&self) -> Result<*mut u8> {
        let allowed = self.scatter.access;
        match allowed.contains(Access::WRITE) {
            true => Ok(self.pointer().as_ptr()),
            false => {
                let reason = Reason::NotAllowed { allowed };
                Err(Error::new(Operation::Access, self.addr, self.extent.len, reason))
            }
        }
    }

    /// The host-physical runs of the whole piece, in order, as
    /// [`Mapping::host_extents`](super::Mapping::host_extents).
    pub fn host_extents(&self) -> impl Iterator<Item = HostExtent> + '_ {
        self.object().extents_of(self.extent.offset, self.extent.len)
    }

    /// The class that says whether its host-physical addresses can change (decision 20).
    pub fn stability(&self) -> Stability {
        self.object().stability()
    }

    /// The offset of the piece in its memory object, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.extent.offset
    }

    /// The memory object that the piece is a part of.
    pub fn object(&self) -> &'a MemoryObject {
        segment_of(&self.extent, &self.scatter.hold).object()
    }

    fn pointer(&self) -> NonNull<u8> {
        // SAFETY: `Extent::pointer` asks for a slot that is busy or established since before the
        // extent was found: the scatter map's slot is, as `Scatter::new` asks.
        unsafe { self.extent.pointer() }
    }
}

impl fmt::Debug for Piece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").field("addr", &self.addr).field("len", &self.len()).finish()
    }
}

impl fmt::Debug for Scatter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scatter")
            .field("span", &self.span)
            .field("access", &self.access)
            .field("pieces", &self.pieces.len())
            .finish()
    }
}
