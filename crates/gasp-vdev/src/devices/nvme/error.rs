//! Why a controller cannot be made.

use std::io;
use std::path::PathBuf;

use gasp::Errno;
use thiserror::Error;

/// Why a controller cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NvmeError {
    /// The file cannot be opened, or another controller has it.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// There is no memory of this size.
    #[error("{size:#x} bytes of memory for a disk: {errno}")]
    Memory {
        /// How many bytes.
        size: u64,
        /// What the kernel says.
        errno: Errno,
    },
    /// It holds less than one block, or more than a file can.
    #[error("{size:#x} bytes are no disk of blocks of {block} bytes")]
    Size {
        /// How many bytes.
        size: u64,
        /// The size of a block.
        block: u64,
    },
    /// An option has a value that it cannot have.
    #[error("{0}")]
    Option(&'static str),
}

impl NvmeError {
    /// The error number.
    pub fn errno(&self) -> Errno {
        match self {
            Self::File { source, .. } => Errno::from_io_error(source).unwrap_or(Errno::IO),
            Self::Memory { errno, .. } => *errno,
            Self::Size { .. } | Self::Option(_) => Errno::INVAL,
        }
    }
}
