//! The slots of all lanes by number: how a [token](crate::Token) finds its slot.
#![allow(unsafe_code, reason = "one array of pointers that only ever point to leaked slots")]

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::slot::Slot;

/// Slots come in groups of this many; it divides the length of every block.
const GROUP: usize = 64;
/// How many groups there can be: 67 million slots, which take 4 GiB.
const GROUPS: usize = 1 << 20;
/// A slot's number has that of its lane from this bit on.
const LANE_SHIFT: u32 = 32;

/// The first slot of each group. It takes memory only as it is used.
static FIRST: [AtomicPtr<Slot>; GROUPS] = [const { AtomicPtr::new(ptr::null_mut()) }; GROUPS];
static USED: AtomicUsize = AtomicUsize::new(0);

/// Makes `count` slots for a lane, a multiple of [`GROUP`], which stay for ever. `None`
/// where there are too many.
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

/// The slot of a number; any may be asked.
#[inline]
pub(crate) fn slot(id: u64) -> Option<&'static Slot> {
    let place = id as u32 as usize;
    let first = FIRST.get(place / GROUP)?.load(Ordering::Acquire);
    if first.is_null() {
        return None;
    }
    // SAFETY: what is stored is the first of `GROUP` slots in a row.
    let slot = unsafe { first.add(place % GROUP) };
    // SAFETY: they are leaked, and nobody has a mutable reference to one.
    let slot = unsafe { &*slot };
    (slot.id() == id).then_some(slot)
}
