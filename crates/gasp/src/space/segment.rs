//! Segments, which translate the number in a leaf to a memory object.
//!
//! A segment ties an object to the guest-physical address of its first byte, so that a
//! leaf, which holds a segment and a page of the object, gives both the host-virtual and
//! the guest-physical address. All regions that place an object in the same way share one
//! segment; it lives until the last of them, and the last mapping through it, is gone.
#![allow(unsafe_code, reason = "readers follow a pointer that the writer keeps valid")]

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};
use std::sync::Arc;

use crate::addr::{GRANULE, GuestPhys};
use crate::error::Reason;
use crate::memory::MemoryObject;

/// Maximum number of segments of a guest.
pub(crate) const SEGMENTS: usize = 1 << 10;
/// Number of the last 4 KiB page of the largest object, which has 16 TiB.
pub(crate) const PAGE_MAX: u64 = (1 << 32) - 1;

/// A memory object, placed in guest-physical memory.
#[derive(Debug)]
pub(crate) struct Segment {
    index: usize,
    /// Guest-physical address of the object's first byte. It wraps below 0 if only a later
    /// part of the object is placed.
    origin: u64,
    /// Host-virtual address of the object's first byte: a copy, for the data path.
    base: NonNull<u8>,
    object: MemoryObject,
}

// SAFETY: the segment never dereferences `base`, so it is no more than an address; the other
// fields are Send.
unsafe impl Send for Segment {}
// SAFETY: no field can be changed through a shared reference; the segment never dereferences
// `base`, so it is no more than an address; the other fields are Sync.
unsafe impl Sync for Segment {}

impl Segment {
    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Host-virtual address of the object's first byte.
    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    #[inline]
    pub(crate) fn object(&self) -> &MemoryObject {
        &self.object
    }

    /// Guest-physical address of the byte at an offset in the object.
    pub(crate) fn guest(&self, offset: u64) -> GuestPhys {
        GuestPhys(self.origin.wrapping_add(offset))
    }

    /// Offset in the object of the byte at a guest-physical address.
    pub(crate) fn offset(&self, guest: GuestPhys) -> u64 {
        guest.0.wrapping_sub(self.origin)
    }

    /// Whether this segment places byte `offset` of `object` at `guest`.
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

    /// Adds a segment that places byte `offset` of `object` at `guest`.
    ///
    /// Only one thread at a time may add or remove segments. The caller must keep the segment
    /// until it has [removed](Self::remove) it and every reader has left.
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

    /// Frees the number for another segment. No table may have leaves of it any more, and
    /// every reader that found one must have left.
    pub(crate) fn remove(&self, segment: &Segment) {
        if let Some(entry) = self.by_index.get(segment.index) {
            entry.store(ptr::null_mut(), Ordering::Release);
        }
    }

    /// The segment of a leaf that the caller found in a table of this guest.
    ///
    /// # Safety
    /// The caller's slot was busy when it read the leaf, and still is; or the caller holds the
    /// lock under which segments are removed. The result is only used while the slot is busy or
    /// holds an established mapping of the leaf, or under that lock.
    #[inline]
    pub(crate) unsafe fn get(&self, index: usize) -> NonNull<Segment> {
        let entry = &self.by_index[index & (SEGMENTS - 1)];
        // SAFETY: not null: a leaf only names a segment that has been added. `add` stores the
        // pointer before any leaf names it. `remove`, which clears it, follows the removal of
        // the last leaf and a scan that waited for every busy slot, of which the caller's is
        // one if it found the leaf; or it needs the lock that the caller holds.
        unsafe { NonNull::new_unchecked(entry.load(Ordering::Acquire)) }
    }

    /// Another owner of a segment.
    ///
    /// # Safety
    /// The segment has been added, and the caller holds the lock under which segments
    /// are removed.
    pub(crate) unsafe fn share(&self, index: usize) -> Arc<Segment> {
        // SAFETY: the caller promises that the segment has been added, and that it holds the
        // lock under which segments are removed; the result is only used here, under that lock.
        let segment = unsafe { self.get(index) }.as_ptr();
        // SAFETY: the pointer comes from `Arc::as_ptr`, and the count is at least one: the
        // regions own the segment, and the caller's lock keeps them from dropping it.
        unsafe { Arc::increment_strong_count(segment) };
        // SAFETY: the pointer comes from `Arc::as_ptr`, of an Arc of the same type, and the count
        // that was just added belongs to the result.
        unsafe { Arc::from_raw(segment) }
    }
}

impl core::fmt::Debug for Segments {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let used = self.by_index.iter().filter(|entry| !entry.load(Ordering::Relaxed).is_null());
        f.debug_struct("Segments").field("used", &used.count()).finish()
    }
}
