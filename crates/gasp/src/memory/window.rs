//! One mapping of a file or of anonymous memory into the process.
#![allow(unsafe_code, reason = "maps and unmaps memory")]

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use std::os::fd::BorrowedFd;

use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use crate::access::Access;
use crate::error::{Errno, Reason};

/// A range of the process's addresses that belongs to one memory object.
///
/// Made by this crate, it is unmapped when dropped; handed in by an embedder, it is not.
#[derive(Debug)]
pub(crate) struct Window {
    base: NonNull<u8>,
    len: usize,
    owned: bool,
}

// SAFETY: a window is an address range; every access through it goes through
// `memory::raw` or atomics, which are sound from any thread.
unsafe impl Send for Window {}
// SAFETY: as above; `&Window` offers nothing but numbers and pointers.
unsafe impl Sync for Window {}

impl Window {
    /// Maps `len` bytes of `file` from `offset`, shared, at an address that is a
    /// multiple of `align` (a power of two, at least the host's page size).
    pub(crate) fn map(
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        access: Access,
        align: usize,
    ) -> Result<Self, Reason> {
        let mut reserved = Self::reserve(len, align)?;
        reserved.map_piece(0, file, offset, len, access)?;
        Ok(reserved)
    }

    /// Reserves address space without memory: nothing in it may be touched.
    pub(crate) fn reserve(len: usize, align: usize) -> Result<Self, Reason> {
        let too_large = Reason::Os { what: "mmap", errno: Errno::NOMEM };
        let padded = len.checked_add(align).ok_or(too_large)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            mm::mmap_anonymous(
                ptr::null_mut(),
                padded,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(Reason::os("mmap"))?;
        let head = start.cast::<u8>().align_offset(align);
        // SAFETY: `head < align`, so `head + len` is inside the mapping just made.
        let base = unsafe { start.cast::<u8>().add(head) };
        // SAFETY: as above; the tail begins inside the mapping or right behind it.
        let tail = unsafe { base.add(len) };
        unmap(start, head);
        unmap(tail.cast(), padded - head - len);
        let base = NonNull::new(base).ok_or(too_large)?;
        Ok(Self { base, len, owned: true })
    }

    /// Zeroed private memory that is no guest's: for tables.
    pub(crate) fn anonymous(len: usize, align: usize) -> Result<Self, Reason> {
        let reserved = Self::reserve(len, align)?;
        // SAFETY: the range was reserved above and nothing else knows of it.
        unsafe {
            mm::mmap_anonymous(
                reserved.base.as_ptr().cast(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            )
        }
        .map_err(Reason::os("mmap"))?;
        Ok(reserved)
    }

    /// Gives the pages of a part of anonymous memory back; it reads as zeros again.
    pub(crate) fn discard(&mut self, at: usize, len: usize) -> Result<(), Errno> {
        self.advise(at, len, Advice::LinuxDontNeed)
    }

    /// Maps a piece of `file` over part of this reservation.
    pub(crate) fn map_piece(
        &mut self,
        at: usize,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        access: Access,
    ) -> Result<(), Reason> {
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Reason::OutOfBounds { size: self.len as u64 });
        }
        // SAFETY: `[at, at + len)` was just checked to be inside this window, which is
        // ours alone (`&mut`).
        let target = unsafe { self.base.as_ptr().add(at) };
        // SAFETY: as above: the mapping replaced is part of our own reservation.
        unsafe {
            mm::mmap(
                target.cast(),
                len,
                protection(access),
                MapFlags::SHARED | MapFlags::FIXED,
                file,
                offset,
            )
        }
        .map_err(Reason::os("mmap"))?;
        Ok(())
    }

    /// Memory that somebody else mapped and keeps mapped.
    pub(crate) fn borrowed(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len, owned: false }
    }

    /// The first address.
    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The length in bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Puts pages behind a part of the window, for writing or only for reading.
    pub(crate) fn populate(&self, at: usize, len: usize, access: Access) -> Result<(), Errno> {
        let writable = access.contains(Access::WRITE);
        let advice = if writable { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        self.advise(at, len, advice)
    }

    /// Asks for transparent huge pages when pages are put in place.
    pub(crate) fn want_huge(&self) -> Result<(), Errno> {
        self.advise(0, self.len, Advice::LinuxHugepage)
    }

    /// Asks for no transparent huge pages any more.
    pub(crate) fn want_small(&self) -> Result<(), Errno> {
        self.advise(0, self.len, Advice::LinuxNoHugepage)
    }

    /// Gathers one range into a huge page now.
    pub(crate) fn collapse(&self, at: usize, len: usize) -> Result<(), Errno> {
        let start = self.part(at, len)?;
        // SAFETY: the range is inside the window, and gathering its pages never changes
        // what they hold. (rustix has no name for this advice yet.)
        match unsafe { libc::madvise(start.cast(), len, libc::MADV_COLLAPSE) } {
            0 => Ok(()),
            _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }

    fn advise(&self, at: usize, len: usize, advice: Advice) -> Result<(), Errno> {
        let start = self.part(at, len)?;
        // SAFETY: the range is inside the window. Populating and asking for huge pages
        // never change what the memory holds; discarding does, and is only done by the
        // owner of a window of its own (`&mut`).
        unsafe { mm::madvise(start.cast(), len, advice) }
    }

    /// Where the part of `len` bytes from `at` begins.
    fn part(&self, at: usize, len: usize) -> Result<*mut u8, Errno> {
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Errno::INVAL);
        }
        // SAFETY: `at <= self.len`, so the pointer stays inside the window.
        Ok(unsafe { self.base.as_ptr().add(at) })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if self.owned {
            unmap(self.base.as_ptr().cast(), self.len);
        }
    }
}

fn protection(access: Access) -> ProtFlags {
    let mut flags = ProtFlags::empty();
    flags.set(ProtFlags::READ, access.intersects(Access::READ | Access::EXEC));
    flags.set(ProtFlags::WRITE, access.contains(Access::WRITE));
    flags
}

fn unmap(start: *mut c_void, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: only called with ranges of mappings made in this module, once each.
    if let Err(error) = unsafe { mm::munmap(start, len) } {
        tracing::error!(?start, len, %error, "cannot unmap guest memory; it stays mapped");
    }
}
