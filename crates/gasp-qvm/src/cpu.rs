//! `struct guest_cpu`: an access of a processor, while a vdev answers it.

use core::cell::Cell;
use core::ffi::c_void;
use core::ptr;

use gasp::Errno;

/// The bytes of the longest access.
pub(crate) const ACCESS_MAX: usize = 8;

/// What an access is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// The processor reads: the vdev supplies the bytes with `guest_cpu_write()`.
    Read,
    /// The processor writes: the vdev takes the bytes with `guest_cpu_read()`.
    Write,
}

/// An access of a processor. C has its address during the call alone, and on its thread alone: any
/// other `struct guest_cpu *` is refused.
#[derive(Debug)]
pub(crate) struct GuestCpu {
    direction: Direction,
    /// The bytes of the register, in the guest's order.
    data: Cell<[u8; ACCESS_MAX]>,
    len: usize,
    supplied: Cell<bool>,
}

impl GuestCpu {
    /// A read of `len` bytes, at most [`ACCESS_MAX`].
    pub(crate) fn reads(len: usize) -> Self {
        let (data, supplied) = (Cell::new([0; ACCESS_MAX]), Cell::new(false));
        Self { direction: Direction::Read, data, len: len.min(ACCESS_MAX), supplied }
    }

    /// A write of these bytes, at most [`ACCESS_MAX`].
    pub(crate) fn writes(bytes: &[u8]) -> Self {
        let mut data = [0; ACCESS_MAX];
        data.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        let len = bytes.len().min(ACCESS_MAX);
        let (data, supplied) = (Cell::new(data), Cell::new(false));
        Self { direction: Direction::Write, data, len, supplied }
    }

    /// The address that C has.
    pub(crate) fn pointer(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// What the vdev has supplied, if it did.
    pub(crate) fn supplied(&self) -> Option<[u8; ACCESS_MAX]> {
        self.supplied.get().then(|| self.data.get())
    }

    /// Supplies the register of a read; what is missing is zero.
    ///
    /// # Errors
    /// `EINVAL` if the processor writes.
    pub(crate) fn supply(&self, bytes: &[u8]) -> Result<(), Errno> {
        if self.direction != Direction::Read {
            return Err(Errno::INVAL);
        }
        let mut data = [0; ACCESS_MAX];
        data.iter_mut().zip(bytes).take(self.len).for_each(|(place, byte)| *place = *byte);
        self.data.set(data);
        self.supplied.set(true);
        Ok(())
    }

    /// Takes the register of a write; what is missing is zero.
    ///
    /// # Errors
    /// `EINVAL` if the processor reads.
    pub(crate) fn take(&self, bytes: &mut [u8]) -> Result<(), Errno> {
        if self.direction != Direction::Write {
            return Err(Errno::INVAL);
        }
        let data = self.data.get();
        let register = data.iter().take(self.len).copied().chain(core::iter::repeat(0));
        bytes.iter_mut().zip(register).for_each(|(place, byte)| *place = byte);
        Ok(())
    }
}
