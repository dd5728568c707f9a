//! A mapping's memory where the processor checks what a device does with the pointer.

use core::fmt;

use super::handle::Mapping;
use super::remap::Remap;
use super::token::Token;
use crate::error::{Error, Operation, Reason, Result};

/// A mapping's memory once more, at addresses of its own, for finding a device's stray
/// accesses: its pages have the mapping's access as their protection, and a guard page lies
/// before the first and after the last. So a write through the pointer of a mapping that was
/// made for reading, and an access in another page than the mapping's, are a SIGSEGV at the
/// line that makes them; and so is, until the addresses are used again, an access after
/// `Fence` was dropped.
///
/// The granularity is the page of the memory, which is 2 MiB or 1 GiB for that of a huge page
/// pool: what lies in the same page outside the mapping can still be reached. Memory that may
/// be written can be read on all usual processors.
///
/// It costs some system calls, and two entries or so of the `vm.max_map_count` (65,530 by
/// default) that a process may have. The memory is the guest's, not a copy, and stays mapped
/// here until this is dropped; whether a revoke waits is up to the [`Mapping`], which should be
/// kept as long.
pub struct Fence(Remap);

impl Mapping {
    /// Maps the memory once more, fenced.
    ///
    /// # Errors
    /// `EINVAL` for memory without a descriptor ([`External`](crate::External)), `EPERM` for
    /// writing to [exclusive](crate::Ram::exclusive) RAM; any mmap() error, as
    /// `ENOMEM` when the process has too many mappings.
    pub fn fence(&self) -> Result<Fence> {
        let part = (self.object(), self.object_offset(), self.len());
        match Remap::new(&[part], self.access()) {
            Ok(pages) => Ok(Fence(pages)),
            Err(reason) => Err(self.fence_error(reason)),
        }
    }

    #[cold]
    fn fence_error(&self, reason: Reason) -> Error {
        Error::new(Operation::Fence, self.device_addr(), self.len() as u64, reason)
    }

    /// Turns the mapping into plain data whose pointer is that of its `fence`, which is to be
    /// dropped before [`Token::unmap`]; see [`into_token`](Self::into_token).
    pub fn into_fenced_token(self, fence: &Fence) -> Token {
        self.into_token_at(fence.as_ptr())
    }
}

impl Fence {
    /// The mapping's first byte, in the fence.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr()
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("pointer", &self.as_ptr()).finish_non_exhaustive()
    }
}
