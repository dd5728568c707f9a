//! The slots of all lanes by number: how a [token](super::token) finds its slot.
#![allow(unsafe_code, reason = "one array of pointers that only ever point to leaked slots")]

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::slot::Slot;

/// Slots come in groups of this many; it divides the length of every block.
const GROUP: usize = 64;
/// How many groups there can be: 67 million slots, which take 4 GiB.
const GROUPS: usize = 1 << 20;

/// The first slot of each group. It takes memory only as it is used.
static FIRST: [AtomicPtr<Slot>; GROUPS] = [const { AtomicPtr::new(ptr::null_mut()) }; GROUPS];
static USED: AtomicUsize = AtomicUsize::new(0);

/// Makes `count` slots, a multiple of [`GROUP`], which stay for ever. `None` where there
/// are too many.
pub(super) fn enlist(count: usize) -> Option<&'static [Slot]> {
    let groups = count / GROUP;
    let first = USED
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(groups).filter(|&end| end <= GROUPS)
        })
        .ok()?;
    let base = (first * GROUP) as u64;
    let slots: Box<[Slot]> = (0..count as u64).map(|index| Slot::new(base + index)).collect();
    let slots: &'static [Slot] = Box::leak(slots);
    for (place, group) in FIRST.iter().skip(first).zip(slots.chunks_exact(GROUP)) {
        place.store(group.as_ptr().cast_mut(), Ordering::Release);
    }
    Some(slots)
}

/// The slot of a number; any may be asked.
#[inline]
pub(super) fn slot(id: u64) -> Option<&'static Slot> {
    let first = FIRST.get(usize::try_from(id / GROUP as u64).ok()?)?.load(Ordering::Acquire);
    if first.is_null() {
        return None;
    }
    // SAFETY: what is stored is the first of `GROUP` slots in a row.
    let slot = unsafe { first.add(id as usize % GROUP) };
    // SAFETY: they are leaked, and nobody has a mutable reference to one.
    Some(unsafe { &*slot })
}
