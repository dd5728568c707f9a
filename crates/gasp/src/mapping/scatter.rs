//! A mapping of several pieces: all of a range that is not consecutive in host memory.
#![allow(unsafe_code, reason = "reaches guest memory through pointers that its slot keeps valid")]

use core::fmt;
use core::ptr::NonNull;

use smallvec::SmallVec;

use super::handle::segment_of;
use super::hold::Hold;
use crate::access::Access;
use crate::addr::DeviceAddr;
use crate::error::{Error, Operation, Place, Reason, Result};
use crate::memory::{HostExtent, MemoryObject, Stability};
use crate::span::Span;
use crate::view::lookup::Extent;

/// Pieces that are kept without an allocation.
const INLINE: usize = 8;
pub(super) type Pieces = SmallVec<[Extent; INLINE]>;

/// A device's mapping of a whole range, in pieces, until it is dropped.
///
/// Up to eight pieces take no allocation. Everything said of a
/// [`Mapping`](crate::Mapping) holds for each of them.
pub struct Scatter {
    pieces: Pieces,
    span: Span<DeviceAddr>,
    access: Access,
    hold: Hold,
}

// SAFETY: as for `Mapping`: shared memory that is only accessed atomically, immutable
// segments, and a slot that may be released on any thread.
unsafe impl Send for Scatter {}
// SAFETY: as for `Mapping`: what several threads can do at once through `&Scatter` is atomic
// or a copy of `memory::access::raw`.
unsafe impl Sync for Scatter {}

/// One piece of a [`Scatter`].
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    extent: Extent,
    addr: DeviceAddr,
    scatter: &'a Scatter,
}

impl Scatter {
    /// # Safety
    /// All of `pieces` were found after `hold` was published, and it is established.
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

    /// How many bytes in all; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.span.len() as usize
    }

    /// What the mapping was made for.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Whether a revoke has completed without waiting for this mapping any longer.
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

    /// Copies bytes out, across pieces.
    ///
    /// # Errors
    /// `EINVAL` where the range passes the end, `EACCES` where the mapping was not made
    /// for reading, `EIO` where memory is [guarded](MemoryObject::is_guarded) and gone.
    pub fn read_at(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        self.check(offset, into.len(), Access::READ)?;
        let (mut done, total) = (0, into.len());
        let copied = self.each_part(offset, total, |object, from, len| {
            let Some(part) = into.get_mut(done..done + len) else { return Ok(()) };
            done += len;
            // SAFETY: `each_part` gives ranges inside the pieces.
            unsafe { object.copy_out(from.as_ptr(), part) }
        });
        copied.map_err(|reason| self.error(offset, total, reason))
    }

    /// Copies bytes in, across pieces.
    ///
    /// # Errors
    /// `EINVAL` where the range passes the end, `EACCES` where the mapping was not made
    /// for writing, `EIO` where memory is [guarded](MemoryObject::is_guarded) and gone; the
    /// pieces before it are written.
    pub fn write_at(&self, offset: usize, from: &[u8]) -> Result<()> {
        self.check(offset, from.len(), Access::WRITE)?;
        let mut done = 0;
        let copied = self.each_part(offset, from.len(), |object, to, len| {
            let Some(part) = from.get(done..done + len) else { return Ok(()) };
            done += len;
            // SAFETY: `each_part` gives ranges inside the pieces; writable, checked above.
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
        Error::new(Operation::Access, Place::Offset(offset as u64), len as u64, reason)
    }

    /// Calls `each` with the parts of pieces that make up a range inside the mapping.
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
            // SAFETY: `skip` is less than the piece's length.
            let at = unsafe { piece.pointer().add(skip) };
            each(piece.object(), at, take)?;
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

    /// How many bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a piece is never empty")]
    pub fn len(&self) -> usize {
        self.extent.len as usize
    }

    /// The first byte, for reading; valid while the scatter map lives.
    pub fn as_ptr(&self) -> *const u8 {
        self.pointer().as_ptr()
    }

    /// The first byte, for writing.
    ///
    /// # Errors
    /// `EACCES` where the mapping was not made for writing.
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

    /// The whole piece as host-physical runs, in order, as
    /// [`Mapping::host_extents`](super::Mapping::host_extents).
    pub fn host_extents(&self) -> impl Iterator<Item = HostExtent> + '_ {
        self.object().extents_of(self.extent.offset, self.extent.len)
    }

    /// Whether its host-physical addresses can change.
    pub fn stability(&self) -> Stability {
        self.object().stability()
    }

    /// Where the piece begins in its memory object.
    pub(super) fn offset(&self) -> u64 {
        self.extent.offset
    }

    pub(super) fn object(&self) -> &'a MemoryObject {
        segment_of(&self.extent, &self.scatter.hold).object()
    }

    fn pointer(&self) -> NonNull<u8> {
        // SAFETY: the scatter map's slot is established for the extent.
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
