//! An object's file: handed out, and mapped again.

use std::os::fd::{AsFd, BorrowedFd};

use super::file::{FileExtent, Seals};
use super::object::MemoryObject;
use super::window::Window;
use crate::access::Access;
use crate::error::{Errno, Reason};

impl MemoryObject {
    /// The object's file and its offset there, to share the memory with another process. `None` for
    /// [`external`](Self::external) memory without a file, and for memory that is not one piece of
    /// its file: see
    /// [`file_extents`](Self::file_extents).
    pub fn file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        match self.file_extents()? {
            (fd, [whole]) => Some((fd, whole.file_offset)),
            _ => None,
        }
    }

    /// The object's file and its pieces, in order and without gaps, to share
    /// [host-contiguous](super::Ram::host_contiguous) RAM with another process. `None` for
    /// [`external`](Self::external) memory without a file.
    ///
    /// RAM of a huge page pool is [guarded](Self::is_guarded) from the first call of this or of
    /// [`file`](Self::file) on, unless it is [exclusive](super::Ram::exclusive). An access that
    /// another thread has begun before is not.
    pub fn file_extents(&self) -> Option<(BorrowedFd<'_>, &[FileExtent])> {
        self.guard_what_is_shared();
        self.pieces()
    }

    /// The file and its pieces, for the engine's own mappings: the file is not handed out.
    fn pieces(&self) -> Option<(BorrowedFd<'_>, &[FileExtent])> {
        let file = self.memory_file()?;
        Some((file.fd.as_fd(), &file.pieces))
    }

    /// The seals of its file as they were when the object was created; none if it has no file.
    pub fn seals(&self) -> Seals {
        self.memory_file().map_or(Seals::empty(), |file| file.seals)
    }

    /// Maps a part of the object, in whole pages of its file, into `window` at `window_offset`.
    pub(crate) fn map_into(
        &self,
        window: &mut Window,
        window_offset: usize,
        (offset, len): (u64, u64),
        access: Access,
    ) -> Result<(), Reason> {
        const NO_FILE: Reason = Reason::Invalid("external memory has no file");
        let (fd, pieces) = self.pieces().ok_or(NO_FILE)?;
        let end = offset.checked_add(len).filter(|&end| end <= self.len());
        let end = end.ok_or(Reason::OutOfBounds { size: self.len() })?;
        if access.contains(Access::WRITE) && self.seals().intersects(Seals::NO_NEW_WRITER) {
            // mmap() would return the same; but after that the window could only be dropped.
            return Err(Reason::Os { what: "mmap", errno: Errno::PERM });
        }
        let first = pieces.partition_point(|piece| piece.offset + piece.len <= offset);
        for piece in pieces.get(first..).unwrap_or_default() {
            let from = offset.max(piece.offset);
            let to = end.min(piece.offset + piece.len);
            if from >= to {
                break;
            }
            let file_offset = piece.file_offset + (from - piece.offset);
            // Both are at most the object's length, which is a `usize`.
            let (start, len) = (window_offset + (from - offset) as usize, (to - from) as usize);
            window.map_part(start, fd, file_offset, len, access)?;
        }
        Ok(())
    }
}
