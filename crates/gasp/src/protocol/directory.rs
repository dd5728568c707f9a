//! All lanes' slots by number: how a [token](crate::Token) finds its slot.
#![allow(unsafe_code, reason = "one array of pointers that only ever point to leaked slots")]

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::slot::Slot;

/// Slots are created in batches of this many, which divides the length of every block.
const BATCH: usize = 64;
/// The most batches: 67 million slots, which take 4 GiB.
const BATCHES: usize = 1 << 20;
/// The bit of a slot's number from which it holds the number of the lane.
const LANE_SHIFT: u32 = 32;

/// The first slot of each batch. The array takes physical memory only as it is used.
static FIRST: [AtomicPtr<Slot>; BATCHES] = [const { AtomicPtr::new(ptr::null_mut()) }; BATCHES];
static USED: AtomicUsize = AtomicUsize::new(0);

/// Creates `count` slots for a lane, a multiple of [`BATCH`], which are never freed. `None` if
/// there would be more than [`BATCHES`] batches.
pub(crate) fn create_slots(lane: u32, count: usize) -> Option<&'static [Slot]> {
    let batches = count / BATCH;
    let first = USED
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(batches).filter(|&end| end <= BATCHES)
        })
        .ok()?;
    let base = u64::from(lane) << LANE_SHIFT | (first * BATCH) as u64;
    let slots: Box<[Slot]> = (0..count as u64).map(|index| Slot::new(base + index)).collect();
    let slots: &'static [Slot] = Box::leak(slots);
    for (cell, batch) in FIRST.iter().skip(first).zip(slots.chunks_exact(BATCH)) {
        cell.store(batch.as_ptr().cast_mut(), Ordering::Release);
    }
    Some(slots)
}

/// The number of a slot's lane.
#[inline]
pub(crate) fn lane(id: u64) -> u32 {
    (id >> LANE_SHIFT) as u32
}

/// The slot with this number; `None` for a number that no slot has.
#[inline]
pub(crate) fn slot(id: u64) -> Option<&'static Slot> {
    let index = id as u32 as usize;
    let first = FIRST.get(index / BATCH)?.load(Ordering::Acquire);
    if first.is_null() {
        return None;
    }
    // SAFETY: `add` asks that the result stays in the allocation that `first` points into. Only
    // `create_slots` stores in `FIRST`, a pointer to the first of `BATCH` consecutive slots of one
    // boxed slice, and the offset is less than `BATCH`.
    let slot = unsafe { first.add(index % BATCH) };
    // SAFETY: a shared reference asks for an initialised slot that lives for `'static` and is
    // never mutably borrowed. The slots were initialised before the release store in
    // `create_slots`, which the load above acquires, and are leaked as `&'static [Slot]`.
    let slot = unsafe { &*slot };
    (slot.id() == id).then_some(slot)
}
