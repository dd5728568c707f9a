//! Memory that a disk's contents are stored in: zero until it is written, and released to the host
//! when it is zeroed again.
#![allow(unsafe_code, reason = "maps and unmaps memory, and lends it as a slice")]

use core::ops::{Deref, DerefMut, Range};
use core::ptr::{self, NonNull};
use core::slice;

use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use rustix::param::page_size;

/// Private memory of this process.
#[derive(Debug)]
pub(crate) struct Anonymous {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its memory, as a `Box<[u8]>` does, and nothing in it depends on the thread.
unsafe impl Send for Anonymous {}
// SAFETY: `&Anonymous` lends the memory it owns for reading only, as `&Box<[u8]>` does.
unsafe impl Sync for Anonymous {}

impl Anonymous {
    /// Maps memory of `len` bytes, not 0. Pages are allocated when they are written.
    ///
    /// # References
    /// [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html)
    pub(crate) fn new(len: u64) -> Result<Self, Errno> {
        // A slice has at most this length.
        let len = usize::try_from(len).ok().filter(|&len| isize::try_from(len).is_ok());
        let len = len.ok_or(Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping, at an address of the kernel's choice, so that no existing mapping
        // changes.
        let base = unsafe {
            mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags)
        }?;
        // SAFETY: `base` and `len` are the mapping just created; the advice concerns only the size
        // of its pages, not their contents.
        if let Err(errno) = unsafe { mm::madvise(base, len, Advice::LinuxHugepage) } {
            tracing::debug!(%errno, "a disk's memory has small pages");
        }
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { base, len })
    }

    /// Zeros a range, which must be inside: whole pages are released.
    ///
    /// # References
    /// [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html)
    pub(crate) fn zero(&mut self, range: Range<usize>) {
        let page = page_size();
        let (first, last) = (range.start.next_multiple_of(page), range.end / page * page);
        let mut done = range.start..range.start;
        if first < last && last <= self.len {
            let pages = self.base.as_ptr().wrapping_add(first).cast();
            // SAFETY: `pages` and the length are whole pages inside this mapping, which is private
            // and anonymous, so they read as zeros afterwards; nobody borrows them, because `&mut
            // self` is exclusive.
            if unsafe { mm::madvise(pages, last - first, Advice::LinuxDontNeed) }.is_ok() {
                done = first..last;
            }
        }
        for rest in [range.start..done.start, done.end..range.end] {
            self.get_mut(rest).unwrap_or_default().fill(0);
        }
    }
}

impl Deref for Anonymous {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `base` is not null, and valid for reads of `len` bytes, at most `isize::MAX` (see
        // `new`), which are initialised: they are zero from the beginning. They are written only
        // through `&mut self`, so not while this slice is borrowed from `&self`.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl DerefMut for Anonymous {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: `base` is not null, and valid for reads and writes of `len` bytes, at most
        // `isize::MAX` (see `new`), which are initialised: they are zero from the beginning. They
        // are reached only through `self`, which this slice borrows exclusively.
        unsafe { slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl Drop for Anonymous {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are the mapping that `new` created and only `self` owns; no
        // slice of it is borrowed while `self` is dropped.
        if let Err(errno) = unsafe { mm::munmap(self.base.as_ptr().cast(), self.len) } {
            tracing::error!(%errno, "a disk's memory cannot be unmapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroing_reaches_exactly_the_range_whatever_its_alignment() {
        let len = 4 * page_size();
        let mut memory = Anonymous::new(len as u64).unwrap();
        let page = page_size();
        let ranges = [0..len, 5..7, page - 1..2 * page + 1, page..3 * page, 3..3, len - 1..len];
        for range in ranges {
            memory.fill(0xaa);
            memory.zero(range.clone());
            for (at, byte) in memory.iter().enumerate() {
                assert_eq!(*byte == 0, range.contains(&at), "{at} of {range:?}");
            }
        }
    }
}
