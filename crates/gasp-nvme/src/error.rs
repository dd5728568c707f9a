//! Why a controller cannot be created.

use gasp::Errno;
use gasp_disk::DiskError;
use thiserror::Error;

/// Why a controller cannot be created.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NvmeError {
    /// The backing cannot be opened.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// An option has an invalid value.
    #[error("{0}")]
    Option(&'static str),
}

impl NvmeError {
    /// The error number.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Disk(error) => error.errno(),
            Self::Option(_) => Errno::INVAL,
        }
    }
}
