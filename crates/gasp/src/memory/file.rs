//! The file behind an object, and which part of it is where.
//!
//! Most objects are one piece of their file, in its order. RAM that was placed in the order
//! of its [frames](super::place) is not: what is at an offset of the object is at another
//! offset of the file. Whoever maps the file by itself has to know that, so such an object
//! does not pretend to be one piece, but tells its pieces.

use std::os::fd::OwnedFd;

use rustix::fs::SealFlags;

bitflags::bitflags! {
    /// What the owner of a memory file can no longer do to it.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Seals: u8 {
        /// Make it shorter: memory that is mapped cannot vanish.
        const SHRINK = 1;
        /// Make it longer.
        const GROW = 2;
        /// Write to it at all.
        const WRITE = 4;
        /// Make new writable maps, or punch holes.
        const FUTURE_WRITE = 8;
        /// Add seals.
        const SEAL = 16;
    }
}

impl Seals {
    /// Those that nobody maps the file past for writing.
    pub(super) const NO_NEW_WRITER: Self = Self::WRITE.union(Self::FUTURE_WRITE);
}

/// The file behind a window.
#[derive(Debug)]
pub(super) struct MemoryFile {
    pub(super) fd: OwnedFd,
    pub(super) seals: Seals,
    /// Where the pieces are, in order of their offset in the object; at least one.
    pub(super) pieces: Vec<FilePiece>,
}

/// A part of an object that is one part of its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FilePiece {
    /// Where in the object.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// Where in the file.
    pub file_offset: u64,
}

impl MemoryFile {
    pub(super) fn whole(fd: OwnedFd, offset: u64, len: u64, seals: Seals) -> Self {
        Self { fd, seals, pieces: vec![FilePiece { offset: 0, len, file_offset: offset }] }
    }
}

pub(super) fn seals_from(flags: SealFlags) -> Seals {
    [
        (SealFlags::SHRINK, Seals::SHRINK),
        (SealFlags::GROW, Seals::GROW),
        (SealFlags::WRITE, Seals::WRITE),
        (SealFlags::FUTURE_WRITE, Seals::FUTURE_WRITE),
        (SealFlags::SEAL, Seals::SEAL),
    ]
    .into_iter()
    .filter(|(flag, _)| flags.contains(*flag))
    .fold(Seals::empty(), |all, (_, seal)| all | seal)
}
