//! Why a disk cannot be opened, and why a transfer fails.

use core::fmt;
use std::io;
use std::path::PathBuf;

use gasp::Errno;
use thiserror::Error;

use crate::backing::Backing;

/// Why a disk cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The file cannot be opened.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// Another disk, or another program that locks its images, has locked the file.
    #[error(
        "{path} is in use{}: each disk needs an image of its own",
        Holder(*by), path = path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// The process that has locked it, if it is known; it may be this one.
        by: Option<u32>,
    },
    /// The path is neither a file nor a block device.
    #[error("{path} is {kind}: a disk must be a file or a block device", path = path.display())]
    NotADisk {
        /// The path.
        path: PathBuf,
        /// What is there, with its article.
        kind: &'static str,
    },
    /// Memory of this size cannot be mapped.
    #[error("a disk in {size} bytes of memory: {errno}")]
    Memory {
        /// The size in bytes.
        size: u64,
        /// The kernel's error.
        errno: Errno,
    },
    /// The backing has no blocks.
    #[error("{backing} is empty: a disk has at least one block{}", Create(backing))]
    Empty {
        /// The backing.
        backing: Backing,
    },
    /// The backing does not end with a whole block. It is refused, because serving it without its
    /// tail would hide data, such as the backup of a partition table.
    #[error(
        "{backing} has {size} bytes, which is not a multiple of the block size, {block}: \
         the last {} would be lost. {}",
        Bytes(size % block), Remedy { backing, size: *size, block: *block }
    )]
    Tail {
        /// The backing.
        backing: Backing,
        /// Its size in bytes.
        size: u64,
        /// The block size.
        block: u64,
    },
    /// The backing is larger than a file can be.
    #[error("{backing} is too large: a disk has at most {max} bytes", max = i64::MAX)]
    TooLarge {
        /// The backing.
        backing: Backing,
    },
}

impl DiskError {
    /// The error number.
    pub fn errno(&self) -> Errno {
        match self {
            Self::File { source, .. } => Errno::from_io_error(source).unwrap_or(Errno::IO),
            Self::InUse { .. } => Errno::AGAIN,
            Self::Memory { errno, .. } => *errno,
            Self::TooLarge { .. } => Errno::FBIG,
            Self::NotADisk { .. } | Self::Empty { .. } | Self::Tail { .. } => Errno::INVAL,
        }
    }
}

/// Why a transfer, or a change of a disk, fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Failure {
    /// The guest's memory cannot be accessed.
    #[error("the guest's memory cannot be accessed")]
    Memory,
    /// The file system has no room.
    #[error("the file system has no room")]
    Full,
    /// The host cannot do it now, for example because it has no memory.
    #[error("the host cannot do it now")]
    Busy,
    /// The backing cannot be read.
    #[error("the backing cannot be read")]
    Read,
    /// The backing cannot be written.
    #[error("the backing cannot be written")]
    Write,
    /// The disk is open for reading only.
    #[error("the disk is read-only")]
    ReadOnly,
    /// It was to stop.
    #[error("stopped before its end")]
    Stopped,
}

/// Who has locked it.
struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) if id == std::process::id() => f.write_str(" by another disk of this process"),
            Some(id) => write!(f, " by process {id}"),
            None => Ok(()),
        }
    }
}

/// How to extend an empty file.
struct Create<'a>(&'a Backing);

impl fmt::Display for Create<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.path() {
            Some(path) => write!(f, ", for example after truncate -s 1G {}", path.display()),
            None => Ok(()),
        }
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("byte"),
            count => write!(f, "{count} bytes"),
        }
    }
}

/// What to do about a tail.
struct Remedy<'a> {
    backing: &'a Backing,
    size: u64,
    block: u64,
}

impl fmt::Display for Remedy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backing, size, block } = *self;
        // Smaller blocks lose nothing, and leave the file as it is.
        if block > 512 && size.is_multiple_of(512) {
            f.write_str("Use blocks of 512 bytes, or extend it")?;
        } else {
            f.write_str("Extend it")?;
        }
        match (backing.path(), size.checked_next_multiple_of(block)) {
            (Some(path), Some(more)) => write!(f, ": truncate -s {more} {}", path.display()),
            (None, Some(more)) => write!(f, " to {more} bytes"),
            (_, None) => Ok(()),
        }
    }
}
