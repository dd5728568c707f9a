//! Errors, as vm-memory passes them on.

use std::io;

use gasp::Access;
use vm_memory::GuestMemoryError;

/// Why a burst does not lend memory that the engine would map.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The burst is too long.
    #[error("a burst holds {limit} mappings already; drop it and begin another")]
    TooMany {
        /// How many a burst may hold.
        limit: usize,
    },
    /// The ranges of the burst have too many pieces.
    #[error("the ranges that a burst holds have {limit} pieces already; drop it and begin another")]
    TooManyPieces {
        /// The number of pieces from which on no other range is mapped.
        limit: usize,
    },
    /// The [`Dma`](gasp::Dma) implementation returned a mapping of another length, or with less
    /// access, than requested.
    #[error(
        "{requested_len} bytes at {addr:#x} for {requested_access} were requested, and the `Dma` \
         implementation mapped {len} bytes for {access}"
    )]
    WrongMapping {
        /// The device address of the request.
        addr: u64,
        /// The length of the request, in bytes.
        requested_len: u64,
        /// The access of the request.
        requested_access: Access,
        /// The length of the mapping, in bytes.
        len: u64,
        /// The access of the mapping.
        access: Access,
    },
    /// Somebody else may cut the memory's file off, and an access through a slice would then
    /// end the process.
    #[error(
        "the file of memory \"{object}\" can be cut off by others, so no slice of it is lent; \
         seal it against shrinking, or read and write through the device"
    )]
    Guarded {
        /// The name of the memory object.
        object: String,
    },
    /// The memory is not mapped for reading and writing in this process. vm-memory's slices can be
    /// written through in safe code whatever they were obtained for, which would end the process.
    #[error(
        "memory \"{object}\" is not mapped for reading and writing in this process, so no slice \
         of it is lent; read through the device"
    )]
    ReadOnly {
        /// The name of the memory object.
        object: String,
    },
}

/// An error that vm-memory can carry: it is found again by
/// [`get_ref`](io::Error::get_ref) on the [`IOError`](GuestMemoryError::IOError) inside, with
/// everything that it says.
#[cold]
pub(crate) fn carry(error: impl std::error::Error + Send + Sync + 'static) -> GuestMemoryError {
    GuestMemoryError::IOError(io::Error::other(error))
}
