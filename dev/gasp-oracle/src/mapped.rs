//! Memory and device registers that this crate maps itself.
//!
//! All unsafe code of the crate is here. Mapped memory is accessed by volatile reads and writes of
//! single words only, because a device, the guest or another mapping of the same file may
//! change it at any time.
#![allow(unsafe_code, reason = "maps and accesses memory and device registers")]

use core::ptr::NonNull;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::mm::{self, Advice, MapFlags, ProtFlags};

/// The size of a huge page in bytes, and the alignment of every mapping here: the kernel collapses
/// pages into huge ones only if address and offset agree.
pub const HUGE: usize = 2 << 20;

/// A mapped range of the process's address space; unmapped on drop.
#[derive(Debug)]
pub struct Mapped {
    base: NonNull<u8>,
    len: usize,
    /// The range to be unmapped, including what was reserved to align it.
    whole: (NonNull<u8>, usize),
}

enum What<'fd> {
    Anonymous,
    File(BorrowedFd<'fd>),
}

/// Advice for any memory of a process that does not change its contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disturbance {
    /// Collapse the pages into huge ones at once (`MADV_COLLAPSE`).
    Collapse,
    /// Reclaim the pages, to swap (`MADV_PAGEOUT`).
    PageOut,
}

impl Mapped {
    /// Maps private memory of ordinary pages, which are populated on first access.
    ///
    /// # Errors
    /// Those of mmap().
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let mapped = Self::place(len, &What::Anonymous)?;
        mapped.advise(0, len, Advice::LinuxNoHugepage)?;
        Ok(mapped)
    }

    /// Maps the first `len` bytes of a file, shared; or the registers of a device, through their
    /// file.
    ///
    /// # Errors
    /// Those of mmap().
    pub fn file(fd: impl AsFd, len: usize) -> io::Result<Self> {
        Self::place(len, &What::File(fd.as_fd()))
    }

    fn place(len: usize, what: &What<'_>) -> io::Result<Self> {
        let reserved = len.checked_add(HUGE).ok_or(io::ErrorKind::InvalidInput)?;
        let none = (core::ptr::null_mut(), ProtFlags::empty(), MapFlags::PRIVATE);
        // SAFETY: without an address and MAP_FIXED, mmap(2) replaces no mapping.
        let start =
            unsafe { mm::mmap_anonymous(none.0, reserved, none.1, none.2 | MapFlags::NORESERVE) }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let head = start.addr().get().next_multiple_of(HUGE) - start.addr().get();
        // SAFETY: `head` is less than `HUGE`, so it is inside the `len + HUGE` bytes that were
        // reserved, whose length fits `isize`, as the kernel has mapped them.
        let base = unsafe { start.add(head) };
        // From here on, a drop unmaps the reservation, whatever fails below.
        let mapped = Self { base, len, whole: (start, reserved) };
        let rw = ProtFlags::READ | ProtFlags::WRITE;
        let at = base.as_ptr().cast();
        match what {
            What::Anonymous => {
                let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
                // SAFETY: `[at, at + len)` is inside the reservation, as `head + len` is less than
                // `reserved`: it replaces pages that nobody has used.
                unsafe { mm::mmap_anonymous(at, len, rw, flags) }?;
            }
            What::File(fd) => {
                let flags = MapFlags::SHARED | MapFlags::FIXED;
                // SAFETY: `[at, at + len)` is inside the reservation, as `head + len` is less than
                // `reserved`: it replaces pages that nobody has used.
                unsafe { mm::mmap(at, len, rw, flags, fd, 0) }?;
            }
        }
        Ok(mapped)
    }

    /// The first address.
    pub fn base(&self) -> *const u8 {
        self.base.as_ptr()
    }

    /// The length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "nobody maps nothing")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Reads a word at an offset, once.
    ///
    /// # Errors
    /// The word is out of range, or not aligned.
    pub fn load(&self, at: usize) -> io::Result<u32> {
        let at = self.word::<u32>(at)?;
        // SAFETY: `word` has checked that `at` is inside the mapping and aligned; that is readable
        // while `self` lives, and any bits are a `u32`.
        Ok(unsafe { at.read_volatile() })
    }

    /// Writes a word at an offset, once.
    ///
    /// # Errors
    /// The word is out of range, or not aligned.
    pub fn store(&self, at: usize, value: u32) -> io::Result<()> {
        let at = self.word::<u32>(at)?;
        // SAFETY: `word` has checked that `at` is inside the mapping and aligned; that is writable
        // while `self` lives. No Rust reference to it exists.
        unsafe { at.write_volatile(value) };
        Ok(())
    }

    /// Writes 64 bits at an offset, once: an address register of a device.
    ///
    /// # Errors
    /// The bytes are out of range, or not aligned.
    pub fn store_wide(&self, at: usize, value: u64) -> io::Result<()> {
        let at = self.word::<u64>(at)?;
        // SAFETY: `word` has checked that `at` is inside the mapping and aligned for a `u64`; that
        // is writable while `self` lives. No Rust reference to it exists.
        unsafe { at.write_volatile(value) };
        Ok(())
    }

    /// Allows huge pages in a part of the mapping, and the collapse of its pages into them.
    ///
    /// # Errors
    /// The part is out of range; those of madvise().
    pub fn want_huge(&self, at: usize, len: usize) -> io::Result<()> {
        self.advise(at, len, Advice::LinuxHugepage)
    }

    /// Releases pages to the kernel. Private memory reads as zero afterwards.
    ///
    /// # Errors
    /// The part is out of range; those of madvise().
    pub fn discard(&self, at: usize, len: usize) -> io::Result<()> {
        self.advise(at, len, Advice::LinuxDontNeed)
    }

    fn advise(&self, at: usize, len: usize, advice: Advice) -> io::Result<()> {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        let start = inside.then(|| self.base.as_ptr().wrapping_add(at));
        let start = start.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: `[start, start + len)` was checked to be inside this mapping. No Rust reference
        // to it exists, so its bytes may change: `LinuxDontNeed` zeroes private ones.
        unsafe { mm::madvise(start.cast(), len, advice) }?;
        Ok(())
    }

    fn word<T>(&self, at: usize) -> io::Result<*mut T> {
        let inside = at.checked_add(size_of::<T>()).is_some_and(|end| end <= self.len);
        if !inside || !at.is_multiple_of(size_of::<T>()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.base.as_ptr().wrapping_add(at).cast())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let (start, len) = self.whole;
        // SAFETY: `whole` is the reservation, which is this value's own. Pointers into it are used
        // inside methods alone; `base` hands out one to be compared and passed to the kernel.
        let _ = unsafe { mm::munmap(start.as_ptr().cast(), len) };
    }
}

/// Disturbs `[base, base + len)` of this process's memory, whoever has mapped it.
///
/// # Errors
/// Those of madvise(), such as `EAGAIN` if the pages are pinned.
pub fn disturb(base: *const u8, len: usize, how: Disturbance) -> io::Result<()> {
    let advice = match how {
        Disturbance::Collapse => libc::MADV_COLLAPSE,
        Disturbance::PageOut => libc::MADV_PAGEOUT,
    };
    // SAFETY: madvise(2) does not access the memory, and neither of the two advices unmaps it,
    // changes what it holds or how it can be accessed: they are sound for any range. One that is
    // not mapped is an error.
    match unsafe { libc::madvise(base.cast_mut().cast(), len, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_and_nothing_outside_is_reached() {
        let mapped = Mapped::anonymous(HUGE).unwrap();
        assert!(mapped.base().addr().is_multiple_of(HUGE));
        mapped.store(HUGE - 4, 7).unwrap();
        mapped.store_wide(8, u64::MAX).unwrap();
        assert_eq!((mapped.load(HUGE - 4).unwrap(), mapped.load(12).unwrap()), (7, u32::MAX));
        mapped.discard(0, 4096).unwrap();
        assert_eq!(mapped.load(8).unwrap(), 0);
        for at in [HUGE, HUGE - 2, 2, usize::MAX, usize::MAX - 3] {
            assert!(mapped.load(at).is_err());
            assert!(mapped.store_wide(at, 1).is_err());
            assert!(mapped.discard(at, 4096).is_err());
        }
    }
}
