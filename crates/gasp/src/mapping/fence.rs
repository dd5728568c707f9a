//! Fences: a mapping's memory at addresses where the processor checks a device's accesses.

use core::fmt;

use super::handle::Mapping;
use super::remap::Remap;
use super::token::Token;
use crate::error::{Error, Operation, Reason, Result};

/// A mapping's memory mapped once more, at addresses of its own, to find a device's stray
/// accesses: its pages have the mapping's access as their protection, and a guard page lies
/// before the first and after the last. So a write through the pointer of a mapping that was
/// made for reading, and an access in the pages before or after the mapping's, raise SIGSEGV at
/// the line that makes them; so does an access after the `Fence` was dropped, until its addresses
/// are used again.
///
/// The granularity is the page size of the memory, which is 2 MiB or 1 GiB for a huge page pool:
/// memory in the same page outside the mapping can still be reached. Memory that may be written
/// can be read on all usual processors.
///
/// A fence costs some system calls, and two or so of the mappings that a process may have
/// (`vm.max_map_count`, 65,530 by default). The memory is the guest's, not a copy, and stays
/// mapped here until this is dropped; a revoke waits only for the [`Mapping`], which should be
/// kept as long.
pub struct Fence(Remap);

impl Mapping {
    /// Maps the memory once more, between guard pages.
    ///
    /// # Errors
    /// `EINVAL` for [`External`](crate::External) memory without a file; `EPERM` for
    /// write access to [exclusive](crate::Ram::exclusive) RAM; any mmap() error, such as `ENOMEM`
    /// if the process has too many mappings.
    pub fn fence(&self) -> Result<Fence> {
        let range = (self.object(), self.object_offset(), self.len());
        match Remap::new(&[range], self.access()) {
            Ok(pages) => Ok(Fence(pages)),
            Err(reason) => Err(self.fence_error(reason)),
        }
    }

    #[cold]
    fn fence_error(&self, reason: Reason) -> Error {
        Error::new(Operation::Fence, self.device_addr(), self.len() as u64, reason)
    }

    /// Turns the mapping into plain data whose pointer is that of its `fence`, which has to be
    /// dropped before [`Token::unmap`]; see [`into_token`](Self::into_token).
    pub fn into_fenced_token(self, fence: &Fence) -> Token {
        self.into_token_at(fence.as_ptr())
    }
}

impl Fence {
    /// The address of the mapping's first byte in the fence, valid while the fence lives.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr()
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("pointer", &self.as_ptr()).finish_non_exhaustive()
    }
}
