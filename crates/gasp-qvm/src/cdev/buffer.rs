//! A buffer of a character device, which C can see.
#![allow(unsafe_code, reason = "memory that C reads, and system calls on it")]

use core::ptr::NonNull;
use std::os::fd::{AsRawFd, BorrowedFd};

use gasp::Errno;

use super::window::Window;

/// Memory of zeros, freed when it is dropped, with a part in use.
///
/// C can read all of it at any time, and could write to it. Only what is in use is passed on, so
/// that what it writes is no more than other input or output.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Option<NonNull<u8>>,
    pub(crate) window: Window,
}

// SAFETY: it owns its memory, which is reached through raw pointers only.
unsafe impl Send for Buffer {}

impl Buffer {
    /// # Errors
    /// `ENOMEM`
    pub(crate) fn new(size: usize) -> Result<Self, Errno> {
        if size == 0 {
            return Ok(Self { memory: None, window: Window::new(0) });
        }
        // SAFETY: calloc(3) takes any size.
        let memory = NonNull::new(unsafe { libc::calloc(1, size) }).ok_or(Errno::NOMEM)?;
        Ok(Self { memory: Some(memory.cast()), window: Window::new(size) })
    }

    /// What C has of it.
    pub(crate) fn pointer(&self) -> *mut u8 {
        self.memory.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    /// The place of a byte.
    fn at(&self, offset: usize) -> *mut u8 {
        self.pointer().wrapping_add(offset)
    }

    /// Makes room for `wanted` bytes after those in use, as far as possible.
    fn make_room(&mut self, wanted: usize) {
        let moved = self.window.compact(wanted);
        if !moved.is_empty() {
            let (from, to) = (self.at(moved.start), self.at(0));
            // SAFETY: a window is within its buffer, which is valid for reads and writes of its
            // size; the two may overlap.
            unsafe { to.copy_from(from, moved.len()) };
        }
    }

    /// Reads from a device as much as there is room for. 0 bytes are the end of it, if there was room.
    ///
    /// # Errors
    /// Those of read(2).
    pub(crate) fn fill(&mut self, from: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.make_room(self.window.free());
        let room = self.window.room();
        // SAFETY: `room` is within the buffer.
        let read = unsafe { read(from, self.at(room.start), room.len()) }?;
        self.window.added(read);
        Ok(read)
    }

    /// Writes what is in use to a device, as far as that takes it.
    ///
    /// # Errors
    /// Those of write(2).
    pub(crate) fn drain(&mut self, to: BorrowedFd<'_>) -> Result<usize, Errno> {
        let taken = self.window.taken();
        // SAFETY: `taken` is within the buffer.
        let written = unsafe { write(to, self.at(taken.start), taken.len()) }?;
        self.window.removed(written);
        Ok(written)
    }

    /// Appends bytes, as far as there is room.
    ///
    /// # Safety
    /// `bytes` is valid for reads of `count` bytes outside of this buffer.
    pub(crate) unsafe fn push(&mut self, bytes: *const u8, count: usize) -> usize {
        self.make_room(count);
        let room = self.window.room();
        let count = count.min(room.len());
        // SAFETY: `room` is within the buffer, and `bytes` as this function asks.
        unsafe { self.at(room.start).copy_from_nonoverlapping(bytes, count) };
        self.window.added(count);
        count
    }

    /// Takes the first bytes.
    ///
    /// # Safety
    /// `bytes` is valid for writes of `count` bytes outside of this buffer.
    pub(crate) unsafe fn pop(&mut self, bytes: *mut u8, count: usize) -> usize {
        let taken = self.window.taken();
        let count = count.min(taken.len());
        // SAFETY: `taken` is within the buffer, and `bytes` as this function asks.
        unsafe { bytes.copy_from_nonoverlapping(self.at(taken.start), count) };
        self.window.removed(count);
        count
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(memory) = self.memory {
            // SAFETY: it is of calloc(3), and freed once. C has no use for it any more: its vdev is
            // gone.
            unsafe { libc::free(memory.as_ptr().cast()) };
        }
    }
}

/// Reads from a device.
///
/// # Errors
/// Those of read(2), but `EINTR`.
///
/// # Safety
/// `into` is valid for writes of `count` bytes.
pub(super) unsafe fn read(
    from: BorrowedFd<'_>,
    into: *mut u8,
    count: usize,
) -> Result<usize, Errno> {
    // SAFETY: as this function asks.
    retried(|| unsafe { libc::read(from.as_raw_fd(), into.cast(), count) })
}

/// Writes to a device.
///
/// # Errors
/// Those of write(2), but `EINTR`.
///
/// # Safety
/// `from` is valid for reads of `count` bytes.
pub(super) unsafe fn write(
    to: BorrowedFd<'_>,
    from: *const u8,
    count: usize,
) -> Result<usize, Errno> {
    // SAFETY: as this function asks.
    retried(|| unsafe { libc::write(to.as_raw_fd(), from.cast(), count) })
}

fn retried(mut call: impl FnMut() -> isize) -> Result<usize, Errno> {
    loop {
        match usize::try_from(call()) {
            Ok(count) => return Ok(count),
            Err(_) => match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => {}
                errno => return Err(errno.map_or(Errno::IO, Errno::from_raw_os_error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn bytes_come_out_in_the_order_in_which_they_went_in() {
        let mut buffer = Buffer::new(8).unwrap();
        let (mut next, mut expected, mut total) = (0_u8, 0_u8, 0);
        for count in (0..200).map(|round| 1 + round % 7) {
            let bytes: Vec<u8> = (0..count).map(|more| next.wrapping_add(more)).collect();
            // SAFETY: `bytes` has so many bytes.
            let pushed = unsafe { buffer.push(bytes.as_ptr(), bytes.len()) };
            next = next.wrapping_add(pushed as u8);
            assert!(pushed == bytes.len() || buffer.window.free() == 0, "it takes all that fits");
            let mut out = [0; 5];
            // SAFETY: `out` has so many bytes.
            let popped = unsafe { buffer.pop(out.as_mut_ptr(), out.len()) };
            total += popped;
            for byte in &out[..popped] {
                assert_eq!(*byte, expected);
                expected = expected.wrapping_add(1);
            }
        }
        assert!(total > 500);
    }

    #[test]
    fn it_is_filled_from_a_device_and_drained_to_one() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut buffer = Buffer::new(4).unwrap();
        rustix::io::write(&writer, b"abcdef").unwrap();
        assert_eq!(buffer.fill(reader.as_fd()), Ok(4));
        assert_eq!(buffer.fill(reader.as_fd()), Ok(0), "no room");
        assert_eq!(buffer.drain(writer.as_fd()), Ok(4));
        let mut bytes = [0; 9];
        assert_eq!(rustix::io::read(&reader, &mut bytes), Ok(6));
        assert_eq!(bytes[..6], *b"efabcd");
        drop(writer);
        assert_eq!(buffer.fill(reader.as_fd()), Ok(0), "the end");
        assert_eq!(Buffer::new(usize::MAX).unwrap_err(), Errno::NOMEM);
    }
}
