//! The file of an object, and which part of it is where in the object.
//!
//! Most objects are one piece of their file, in its order. RAM that is mapped in the order of its
//! [frames](super::contiguity) is not: what is at an offset of the object is at another offset of
//! the file. Whoever maps the file has to know that, so such an object reports its pieces.

use std::os::fd::OwnedFd;

use rustix::fs::SealFlags;

bitflags::bitflags! {
    /// The seals of a memory file (`F_ADD_SEALS` of fcntl(2)): what nobody can do to it any more.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Seals: u8 {
        /// Shorten it, so that memory that is mapped would vanish.
        const SHRINK = 1;
        /// Lengthen it.
        const GROW = 2;
        /// Write to it.
        const WRITE = 4;
        /// Write to it except through writable mappings that exist already, or punch holes.
        const FUTURE_WRITE = 8;
        /// Add seals.
        const SEAL = 16;
    }
}

impl Seals {
    /// Those of which each prevents new writable mappings.
    pub(super) const NO_NEW_WRITER: Self = Self::WRITE.union(Self::FUTURE_WRITE);
}

/// The file of an object.
#[derive(Debug)]
pub(super) struct MemoryFile {
    pub(super) fd: OwnedFd,
    pub(super) seals: Seals,
    /// The pieces, in order of their offset in the object and without gaps; at least one.
    pub(super) pieces: Vec<FileExtent>,
}

/// A part of an object that is one consecutive part of its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileExtent {
    /// Bytes from the start of the object.
    pub offset: u64,
    /// Bytes; never 0.
    pub len: u64,
    /// Bytes from the start of the file.
    pub file_offset: u64,
}

impl MemoryFile {
    pub(super) fn whole(fd: OwnedFd, offset: u64, len: u64, seals: Seals) -> Self {
        Self { fd, seals, pieces: vec![FileExtent { offset: 0, len, file_offset: offset }] }
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
