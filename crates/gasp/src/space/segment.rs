//! Segments: from the number in a leaf to the memory object behind it.
//!
//! A segment ties an object to the guest-physical address of its first byte, so that a
//! leaf, which holds a segment and a page of the object, tells both the host-virtual and
//! the guest-physical address. All regions that place an object the same way share one
//! segment; it lives until the last of them, and the last mapping made through it, is
//! gone.
#![allow(unsafe_code, reason = "readers follow a pointer that the writer keeps valid")]

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};
use std::sync::Arc;

use crate::addr::{GRANULE, GuestPhys};
use crate::error::Reason;
use crate::memory::MemoryObject;

/// How many segments a guest can have.
pub(crate) const SEGMENTS: usize = 1 << 10;
/// The number of the last page of 4 KiB of the largest object: 16 TiB.
pub(crate) const PAGE_MAX: u64 = (1 << 32) - 1;

/// An object, placed in guest-physical memory.
#[derive(Debug)]
pub(crate) struct Segment {
    index: usize,
    /// Where the object's first byte would be; below 0 (wrapped) where only a later part
    /// of the object is placed.
    origin: u64,
    /// Where the object is mapped: a copy, for the data path.
    base: NonNull<u8>,
    object: MemoryObject,
}

// SAFETY: `base` is an address that the segment itself never follows; the rest is Send.
unsafe impl Send for Segment {}
// SAFETY: no field can be changed, and `base` is an address that the segment itself never
// follows.
unsafe impl Sync for Segment {}

impl Segment {
    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Where the object's first byte is mapped.
    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    #[inline]
    pub(crate) fn object(&self) -> &MemoryObject {
        &self.object
    }

    /// The guest-physical address of a byte of the object.
    pub(crate) fn guest(&self, offset: u64) -> GuestPhys {
        GuestPhys(self.origin.wrapping_add(offset))
    }

    /// The offset in the object of the byte at a guest-physical address.
    pub(crate) fn offset(&self, guest: GuestPhys) -> u64 {
        guest.0.wrapping_sub(self.origin)
    }

    /// Whether this is how `object` is placed when its byte `offset` is at `guest`.
    pub(crate) fn places(&self, object: &MemoryObject, offset: u64, guest: GuestPhys) -> bool {
        self.object.same(object) && self.offset(guest) == offset
    }
}

/// All segments of a guest, by number.
pub(crate) struct Segments {
    by_index: Box<[AtomicPtr<Segment>; SEGMENTS]>,
}

impl Segments {
    pub(crate) fn new() -> Self {
        Self { by_index: Box::new([const { AtomicPtr::new(ptr::null_mut()) }; SEGMENTS]) }
    }

    /// A new segment that places byte `offset` of `object` at `guest`. The caller is the
    /// only one that adds or removes segments, and keeps it until it has been
    /// [`remove`](Self::remove)d and every reader has left.
    pub(crate) fn add(
        &self,
        object: &MemoryObject,
        offset: u64,
        guest: GuestPhys,
    ) -> Result<Arc<Segment>, Reason> {
        if object.len() > (PAGE_MAX + 1) * GRANULE {
            return Err(Reason::Invalid("a memory object of more than 16 TiB"));
        }
        let free = self.by_index.iter().position(|entry| entry.load(Ordering::Relaxed).is_null());
        let limit = Reason::Limit { what: "placed memory objects", limit: SEGMENTS as u64 };
        let index = free.ok_or(limit)?;
        let origin = guest.0.wrapping_sub(offset);
        let base = NonNull::new(object.base()).ok_or(Reason::Invalid("memory at address 0"))?;
        let segment = Arc::new(Segment { index, origin, base, object: object.clone() });
        if let Some(entry) = self.by_index.get(index) {
            entry.store(Arc::as_ptr(&segment).cast_mut(), Ordering::Release);
        }
        Ok(segment)
    }

    /// Makes the number free for another segment. No table has it any more.
    pub(crate) fn remove(&self, segment: &Segment) {
        if let Some(entry) = self.by_index.get(segment.index) {
            entry.store(ptr::null_mut(), Ordering::Release);
        }
    }

    /// The segment of a leaf that the caller found in a table of this guest.
    ///
    /// # Safety
    /// The caller's slot was busy when it read the leaf, or it holds the lock under which
    /// segments are removed. The result is only used while the slot is busy or holds an
    /// established mapping of the leaf, or under that lock.
    #[inline]
    pub(crate) unsafe fn get(&self, index: usize) -> NonNull<Segment> {
        let entry = &self.by_index[index & (SEGMENTS - 1)];
        // SAFETY: a leaf only names a segment that has been added: `add` stores the
        // pointer before any leaf names it, and `remove` follows the removal of the last
        // leaf and a scan that waited for every busy slot, so a reader that found the
        // leaf still finds the pointer.
        unsafe { NonNull::new_unchecked(entry.load(Ordering::Acquire)) }
    }

    /// One more owner of a segment.
    ///
    /// # Safety
    /// The segment has been added, and the caller holds the lock under which segments
    /// are removed.
    pub(crate) unsafe fn share(&self, index: usize) -> Arc<Segment> {
        // SAFETY: `get` asks that the segment has been added and is not removed meanwhile: the
        // caller holds the lock under which segments are removed.
        let segment = unsafe { self.get(index) }.as_ptr();
        // SAFETY: the pointer comes from `Arc::as_ptr`, and the regions own the segment
        // while the caller's lock keeps them from dropping it.
        unsafe { Arc::increment_strong_count(segment) };
        // SAFETY: the pointer comes from `Arc::as_ptr`, and the count just added is the result's.
        unsafe { Arc::from_raw(segment) }
    }
}

impl core::fmt::Debug for Segments {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let used = self.by_index.iter().filter(|entry| !entry.load(Ordering::Relaxed).is_null());
        f.debug_struct("Segments").field("used", &used.count()).finish()
    }
}
