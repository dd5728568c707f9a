//! The backing of a disk, as requested.

use core::fmt;
use std::path::{Path, PathBuf};

/// The backing of a disk: what its blocks are stored in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backing(pub(crate) Kind);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    File(PathBuf),
    Memory(u64),
    Null(u64),
}

impl Backing {
    /// An existing file or block device, with its size when it is opened: a multiple of the block
    /// size. It is locked (flock(2)) against a second disk.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File(path.into()))
    }

    /// Memory of `size` bytes, zero at first, and freed with the disk.
    pub fn memory(size: u64) -> Self {
        Self(Kind::Memory(size))
    }

    /// No storage: `size` bytes that read as zeros, whatever is written.
    pub fn null(size: u64) -> Self {
        Self(Kind::Null(size))
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::File(path) => Some(path),
            Kind::Memory(_) | Kind::Null(_) => None,
        }
    }
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::File(path) => write!(f, "{}", path.display()),
            Kind::Memory(size) => write!(f, "a memory disk of {size} bytes"),
            Kind::Null(size) => write!(f, "a null disk of {size} bytes"),
        }
    }
}
