//! All lanes' slots by number: how a [token](crate::Token) finds its slot.
#![allow(unsafe_code, reason = "one array of pointers that only ever point to leaked slots")]

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::slot::Slot;

/// Slots are created in groups of this many, which divides the length of every block.
const GROUP: usize = 64;
/// The most groups: 67 million slots, which take 4 GiB.
const GROUPS: usize = 1 << 20;
/// The bit of a slot's number from which it holds the number of the lane.
const LANE_SHIFT: u32 = 32;

/// The first slot of each group. The array takes physical memory only as it is used.
static FIRST: [AtomicPtr<Slot>; GROUPS] = [const { AtomicPtr::new(ptr::null_mut()) }; GROUPS];
static USED: AtomicUsize = AtomicUsize::new(0);

/// Creates `count` slots for a lane, a multiple of [`GROUP`], which are never freed. `None` if
/// there would be more than [`GROUPS`] groups.
pub(crate) fn enlist(lane: u32, count: usize) -> Option<&'static [Slot]> {
    let groups = count / GROUP;
    let first = USED
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(groups).filter(|&end| end <= GROUPS)
        })
        .ok()?;
    let base = u64::from(lane) << LANE_SHIFT | (first * GROUP) as u64;
    let slots: Box<[Slot]> = (0..count as u64).map(|index| Slot::new(base + index)).collect();
    let slots: &'static [Slot] = Box::leak(slots);
    for (place, group) in FIRST.iter().skip(first).zip(slots.chunks_exact(GROUP)) {
        place.store(group.as_ptr().cast_mut(), Ordering::Release);
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
    let place = id as u32 as usize;
    let first = FIRST.get(place / GROUP)?.load(Ordering::Acquire);
    if first.is_null() {
        return None;
    }
    // SAFETY: `add` asks that the result stays in the allocation that `first` points into. Only
    // `enlist` stores in `FIRST`, a pointer to the first of `GROUP` consecutive slots of one
    // boxed slice, and the offset is less than `GROUP`.
    let slot = unsafe { first.add(place % GROUP) };
    // SAFETY: a shared reference asks for an initialised slot that lives for `'static` and is
    // never mutably borrowed. The slots were initialised before the release store in `enlist`,
    // which the load above acquires, and are leaked as `&'static [Slot]`.
    let slot = unsafe { &*slot };
    (slot.id() == id).then_some(slot)
}
