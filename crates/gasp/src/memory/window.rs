//! A range of the process's address space: memory that is mapped, or room reserved for it.
#![allow(unsafe_code, reason = "maps and unmaps memory")]

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use std::os::fd::BorrowedFd;

use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use crate::access::Access;
use crate::error::{Errno, Reason};

/// A range of the process's address space: the memory of an object, a further mapping of objects,
/// or the engine's own tables.
///
/// Unmapped when dropped, unless an embedder mapped it.
#[derive(Debug)]
pub(crate) struct Window {
    base: NonNull<u8>,
    len: usize,
    owned: bool,
    /// A part, as offset and length, that another mapping may have taken by now: it is neither
    /// touched nor unmapped, and the rest of the window is no longer used.
    lost: Option<(usize, usize)>,
}

// SAFETY: a window is a range of addresses, which are the same in every thread of the process; any
// thread may advise or unmap them. Accesses through its pointers are unsafe, and argued for where
// they are made.
unsafe impl Send for Window {}
// SAFETY: `&Window` only offers numbers and pointers, and makes system calls on its addresses,
// which the kernel orders itself; whatever changes its fields takes `&mut`.
unsafe impl Sync for Window {}

impl Window {
    /// Maps `len` bytes of `file` from `file_offset`, shared, at an address that is a
    /// multiple of `align` (a power of two, at least the host's page size).
    pub(crate) fn map(
        file: BorrowedFd<'_>,
        file_offset: u64,
        len: usize,
        access: Access,
        align: usize,
    ) -> Result<Self, Reason> {
        // At an address of the kernel's choice, a mmap that fails has changed nothing. The kernel
        // aligns pages of a pool by itself, and often others.
        // SAFETY: a new mapping at an address of the kernel's choice, so that it replaces none.
        let start = unsafe {
            mm::mmap(ptr::null_mut(), len, protection(access), MapFlags::SHARED, file, file_offset)
        }
        .map_err(Reason::os("mmap"))?;
        match NonNull::new(start.cast::<u8>()) {
            Some(base) if base.addr().get().is_multiple_of(align) => Ok(Self::owned(base, len)),
            _ => {
                unmap(start, len);
                let mut reserved = Self::reserve(len, align)?;
                reserved.map_part(0, file, file_offset, len, access)?;
                Ok(reserved)
            }
        }
    }

    /// A range that this crate has mapped, and unmaps.
    fn owned(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len, owned: true, lost: None }
    }

    /// Reserves `len` bytes of address space at a multiple of `align` (a power of two), without
    /// memory: nothing in it may be touched.
    pub(crate) fn reserve(len: usize, align: usize) -> Result<Self, Reason> {
        let too_large = Reason::Os { what: "mmap", errno: Errno::NOMEM };
        let padded = len.checked_add(align).ok_or(too_large)?;
        // SAFETY: a new mapping at an address of the kernel's choice, so that it replaces none.
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
        // SAFETY: `head < align`, so `head + len` is less than `padded`, and the sum is inside the
        // mapping just created, which like every mapping is no longer than `isize::MAX`.
        let base = unsafe { start.cast::<u8>().add(head) };
        // SAFETY: `head + len <= padded`, so the tail begins inside the mapping just created or
        // just past its end.
        let tail = unsafe { base.add(len) };
        unmap(start, head);
        unmap(tail.cast(), padded - head - len);
        let base = NonNull::new(base).ok_or(too_large)?;
        Ok(Self::owned(base, len))
    }

    /// Zeroed private memory for the engine's tables, not for a guest's memory.
    pub(crate) fn anonymous(len: usize, align: usize) -> Result<Self, Reason> {
        let reserved = Self::reserve(len, align)?;
        // If this fails, the reservation is still there, unlike after a mmap over it.
        // SAFETY: the range is all of `reserved`, which was created above and which nothing else
        // uses yet, so that no access depends on its protection.
        unsafe {
            mm::mprotect(
                reserved.base.as_ptr().cast(),
                len,
                mm::MprotectFlags::READ | mm::MprotectFlags::WRITE,
            )
        }
        .map_err(Reason::os("mprotect"))?;
        Ok(reserved)
    }

    /// Releases the pages of a part of anonymous memory, which reads as zeros again.
    pub(crate) fn discard(&mut self, offset: usize, len: usize) -> Result<(), Errno> {
        self.advise(offset, len, Advice::LinuxDontNeed)
    }

    /// Maps a part of `file`, shared, over a part of this reservation. After an error the window
    /// may only be dropped.
    pub(crate) fn map_part(
        &mut self,
        offset: usize,
        file: BorrowedFd<'_>,
        file_offset: u64,
        len: usize,
        access: Access,
    ) -> Result<(), Reason> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Reason::OutOfBounds { size: self.len as u64 });
        }
        if self.lost.is_some() {
            return Err(Reason::Os { what: "mmap", errno: Errno::NOMEM });
        }
        // SAFETY: `offset + len <= self.len` was just checked, so the sum is inside this window or
        // just past its end; a window is one range of addresses, no longer than `isize::MAX`.
        let target = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: this replaces `[offset, offset + len)` of this window, which was checked above to
        // be inside it; no part of the window is lost, so these addresses are still its own, and
        // nobody uses them meanwhile, because `&mut` is exclusive.
        let mapped = unsafe {
            mm::mmap(
                target.cast(),
                len,
                protection(access),
                MapFlags::SHARED | MapFlags::FIXED,
                file,
                file_offset,
            )
        };
        match mapped {
            Ok(_) => Ok(()),
            Err(errno) => {
                if !reserve_again(target.cast(), len) {
                    tracing::warn!(?target, len, %errno, "abandoned addresses after a failed map");
                    self.lost = Some((offset, len));
                }
                Err(Reason::os("mmap")(errno))
            }
        }
    }

    /// A range that somebody else mapped and keeps mapped.
    pub(crate) fn borrowed(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len, owned: false, lost: None }
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

    /// Populates a part of the window, for writing if `access` has that, else for reading.
    pub(crate) fn populate(&self, offset: usize, len: usize, access: Access) -> Result<(), Errno> {
        let writable = access.contains(Access::WRITE);
        let advice = if writable { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        self.advise(offset, len, advice)
    }

    /// Enables transparent huge pages (`MADV_HUGEPAGE`).
    pub(crate) fn want_huge(&self) -> Result<(), Errno> {
        self.advise(0, self.len, Advice::LinuxHugepage)
    }

    /// Disables transparent huge pages (`MADV_NOHUGEPAGE`).
    pub(crate) fn want_small(&self) -> Result<(), Errno> {
        self.advise(0, self.len, Advice::LinuxNoHugepage)
    }

    /// Collapses a part of the window into huge pages now (`MADV_COLLAPSE`).
    pub(crate) fn collapse(&self, offset: usize, len: usize) -> Result<(), Errno> {
        let start = self.part(offset, len)?;
        // SAFETY: `part` has checked that the range is inside the window and not lost. Collapsing
        // its pages moves their contents and never changes them. (rustix has no name for this
        // advice yet.)
        match unsafe { libc::madvise(start.cast(), len, libc::MADV_COLLAPSE) } {
            0 => Ok(()),
            _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }

    fn advise(&self, offset: usize, len: usize, advice: Advice) -> Result<(), Errno> {
        let start = self.part(offset, len)?;
        // SAFETY: `part` has checked that the range is inside the window and not lost. Populating,
        // and enabling or disabling huge pages, never change the contents of memory. Discarding
        // does: only `discard` asks for it, with `&mut`, so that only the exclusive user of a
        // window can.
        unsafe { mm::madvise(start.cast(), len, advice) }
    }

    /// The address of the part of `len` bytes from `offset`.
    ///
    /// # Errors
    /// `EINVAL` if it is not inside the window, or a part of the window is lost.
    fn part(&self, offset: usize, len: usize) -> Result<*mut u8, Errno> {
        if self.lost.is_some() || offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Errno::INVAL);
        }
        // SAFETY: `offset + len <= self.len` was checked above, so the sum is inside the window or
        // just past its end; a window is one range of addresses, no longer than `isize::MAX`.
        Ok(unsafe { self.base.as_ptr().add(offset) })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        let (offset, len) = self.lost.unwrap_or((self.len, 0));
        let start = self.base.as_ptr();
        // SAFETY: a lost part is inside the window (`map_part` has checked it), so its end is at
        // most the window's end, and so is that of the empty part at the window's end.
        let tail = unsafe { start.add(offset + len) };
        unmap(start.cast(), offset);
        unmap(tail.cast(), self.len - offset - len);
    }
}

/// Reserves a part of a reservation again, after a mmap over it has failed.
///
/// The kernel may have removed the reservation before it found that it cannot map (it does so if a
/// pool has too few huge pages), and another thread may have mapped memory there since. So this
/// replaces nothing that is mapped. It returns `false` if something is: another thread's mapping,
/// or the reservation as it was; nobody can tell which.
fn reserve_again(target: *mut c_void, len: usize) -> bool {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
    // SAFETY: a new mapping that replaces none: it is refused if the range is not free, or made
    // elsewhere by a kernel that does not know the flag.
    match unsafe { mm::mmap_anonymous(target, len, ProtFlags::empty(), flags) } {
        Ok(start) if start == target => true,
        Ok(elsewhere) => {
            // A kernel that does not know the flag takes the address as a hint.
            unmap(elsewhere, len);
            false
        }
        Err(_) => false,
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
    // SAFETY: nobody may use the range any more, and it must be this module's to unmap. All callers
    // are in this module: each passes a range of a mapping that it created, once, and never one
    // that another mapping may have taken since a mmap over it has failed. Either nobody has seen
    // the range yet, or the window that it belongs to is dropped, and with it the right to use its
    // pointers.
    if let Err(error) = unsafe { mm::munmap(start, len) } {
        tracing::error!(?start, len, %error, "cannot unmap memory; it stays mapped");
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn is_mapped(addr: *mut u8, len: usize) -> bool {
        let mut seen = vec![0_u8; len / rustix::param::page_size()];
        // SAFETY: mincore(2) only asks about the addresses, whatever they are, and writes a byte
        // for each of the `len / page_size` pages: `seen` has as many.
        unsafe { libc::mincore(addr.cast(), len, seen.as_mut_ptr()) == 0 }
    }

    #[test]
    fn a_part_that_cannot_be_mapped_leaves_no_hole_and_is_not_touched_again() {
        let page = rustix::param::page_size();
        let mut window = Window::reserve(3 * page, page).unwrap();
        let base = window.base();
        // A directory cannot be mapped.
        let nothing = std::fs::File::open("/").unwrap();
        window.map_part(page, nothing.as_fd(), 0, page, Access::RW).unwrap_err();
        assert!(is_mapped(base, 3 * page));
        let is_lost = window.lost.is_some();
        if is_lost {
            let more = window.map_part(0, nothing.as_fd(), 0, page, Access::RW);
            more.unwrap_err();
            assert_eq!(window.populate(0, page, Access::RW), Err(Errno::INVAL));
        }
        drop(window);
        let middle = base.wrapping_add(page);
        assert_eq!(is_mapped(middle, page), is_lost, "what another may have mapped stays");
        if is_lost {
            unmap(middle.cast(), page);
        }
    }

    #[test]
    fn reserving_again_fills_a_hole_and_replaces_nothing() {
        let page = rustix::param::page_size();
        let window = Window::anonymous(2 * page, page).unwrap();
        let base = window.base();
        assert!(!reserve_again(base.cast(), 2 * page), "something is mapped there");
        window.populate(0, 2 * page, Access::RW).unwrap();
        drop(window);
        // Another thread may map memory there in between, and then this is refused.
        if reserve_again(base.cast(), 2 * page) {
            assert!(is_mapped(base, 2 * page));
            unmap(base.cast(), 2 * page);
        }
    }
}
