//! A second, independent mapping of an object's memory, to check the first one against.
#![allow(unsafe_code, reason = "copies through a mapping that it owns")]

use super::object::MemoryObject;
use super::window::Window;
use crate::access::Access;
use crate::error::{Error, Location, Operation, Reason, Result};

/// A second mapping of an object's file, at another address and in the order of the object.
///
/// The engine never uses one: with it a program can show that what it wrote through a mapping is in
/// the guest's memory, and not only where it wrote it.
#[derive(Debug)]
pub struct Alias {
    window: Window,
    object: MemoryObject,
}

impl MemoryObject {
    /// Maps the object's memory a second time, for reading.
    ///
    /// # Errors
    /// `EINVAL` for [`external`](Self::external) memory without a file; any
    /// mmap() error.
    pub fn alias(&self) -> Result<Alias> {
        let fail =
            |reason| Error::new(Operation::CreateMemory, Location::Offset(0), self.len(), reason);
        let len = usize::try_from(self.len()).map_err(|_| fail(Reason::Wraps))?;
        let align = self.page_size().max(2 << 20);
        let mut window = Window::reserve(len, align).map_err(fail)?;
        self.map_into(&mut window, 0, (0, self.len()), Access::READ).map_err(fail)?;
        Ok(Alias { window, object: self.clone() })
    }
}

impl Alias {
    /// Copies `into.len()` bytes from `offset` out of the memory.
    ///
    /// # Errors
    /// `EINVAL` if the range extends past the end; `EIO` if its owner has taken the memory away.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let size = self.window.len();
        let len = into.len() as u64;
        let fail = |reason| Error::new(Operation::Read, Location::Offset(offset), len, reason);
        let start = usize::try_from(offset)
            .ok()
            .filter(|start| start.checked_add(into.len()).is_some_and(|end| end <= size))
            .ok_or_else(|| fail(Reason::OutOfBounds { size: size as u64 }))?;
        // SAFETY: `start + into.len()` was just checked to be at most the window's length, so the
        // sum is inside the window or just past its end; a window is no longer than `isize::MAX`.
        let from = unsafe { self.window.base().add(start) };
        // SAFETY: the `into.len()` bytes from `from` are inside the window, as was just checked; it
        // maps all of the object's memory for reading while `self` lives, so for the whole call.
        unsafe { self.object.copy_out(from, into) }.map_err(fail)
    }
}
