//! Blocks of a lane's slots, and which of them a scan may skip.
//!
//! A scan must read every slot that is in use, and should not read the million that were in use
//! once. A lane's owner publishes in the slot that its *hint* points to, and moves the hint only
//! if that slot is in use, so a slot takes a mapping only while the hint points to it, and a scan
//! always reads the hinted slot. For each group of slots there are two counts:
//!
//! | owner, moving the hint away from a group | scan |
//! |---|---|
//! | increment the group's departures | load the hint, and read its slot |
//! | move the hint | load the group's departures |
//! | publish in the hinted slot | if they equal the departures noted when all its slots were last seen free, skip the group |
//! | | else read the slots; if all are free, note the departures as they were loaded |
//!
//! A mapping that a scan has to find was published before the scan's heavy barrier, so the hint
//! at its slot and the departures before that are visible. Either the hint still points there; or
//! it has moved, which is a departure after the publish, and a scan that loads that departure
//! sees the mapping, and does not note the group as free. A scan that skips a group has, through
//! the note, synchronised with the end of all mappings that were in it.

use super::slot::Slot;
use crate::sync::{AtomicU64, Ordering};

/// How many slots are skipped, or read, together.
const GROUP: usize = if cfg!(loom) { 1 } else { 64 };

/// An array of slots, in groups.
pub(super) struct Block {
    pub(super) slots: &'static [Slot],
    groups: Groups,
}

impl Block {
    pub(super) fn new(slots: &'static [Slot]) -> Self {
        Self { slots, groups: Groups::new(slots.len()) }
    }

    /// Counts that the hint moves away from the slot `within`. The owner calls this before it
    /// moves the hint.
    #[inline]
    pub(super) fn depart(&self, within: usize) {
        self.groups.depart(within);
    }

    /// The number of groups that the next scan reads.
    #[cfg(test)]
    pub(super) fn groups_to_read(&self) -> usize {
        let groups = || self.groups.each.iter().filter(|group| group.unless_free().is_some());
        self.groups.whole.unless_free().map_or(0, |_| groups().count())
    }

    /// Calls `each` with every slot in use except `hinted`, which the caller reads.
    pub(super) fn each_in_use(&self, hinted: Option<&Slot>, each: impl FnMut(&'static Slot)) {
        self.groups.each_in_use(self.slots, hinted, each);
    }
}

struct Groups {
    /// The departures of the whole block, so that an unused block costs a scan two loads.
    whole: Departures,
    each: Box<[Departures]>,
}

impl Groups {
    fn new(slots: usize) -> Self {
        let each = (0..slots.div_ceil(GROUP)).map(|_| Departures::new()).collect();
        Self { whole: Departures::new(), each }
    }

    #[inline]
    fn depart(&self, within: usize) {
        // The block's count last: a scan that loads it sees the group's.
        if let Some(group) = self.each.get(within / GROUP) {
            group.increment();
        }
        self.whole.increment();
    }

    fn each_in_use<'slots>(
        &self,
        slots: &'slots [Slot],
        hinted: Option<&Slot>,
        mut each: impl FnMut(&'slots Slot),
    ) {
        let Some(whole) = self.whole.unless_free() else { return };
        let mut all_free = true;
        for (group, slots) in self.each.iter().zip(slots.chunks(GROUP)) {
            let Some(departures) = group.unless_free() else { continue };
            let mut free = true;
            for slot in slots.iter().filter(|slot| !slot.is_free()) {
                free = false;
                if !hinted.is_some_and(|hinted| core::ptr::eq(hinted, slot)) {
                    each(slot);
                }
            }
            if free {
                group.note_free(departures);
            }
            all_free &= free;
        }
        if all_free {
            self.whole.note_free(whole);
        }
    }
}

/// How often the hint has moved away from some slots, and that count as it was when all of them
/// were last seen free.
struct Departures {
    count: AtomicU64,
    seen_free: AtomicU64,
}

impl Departures {
    fn new() -> Self {
        Self { count: AtomicU64::new(0), seen_free: AtomicU64::new(0) }
    }

    /// Counts one departure. Only the lane's owner calls this.
    #[inline]
    fn increment(&self) {
        self.count.store(self.count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// The count; `None` if all slots but the hinted one are free.
    fn unless_free(&self) -> Option<u64> {
        let count = self.count.load(Ordering::Acquire);
        (self.seen_free.load(Ordering::Acquire) != count).then_some(count)
    }

    /// Notes that all the slots were seen free after `count` was loaded.
    fn note_free(&self, count: u64) {
        // Of two scans, the note of the one that loaded the later count stays, in whichever order
        // they finish.
        self.seen_free.fetch_max(count, Ordering::AcqRel);
    }
}

#[cfg(all(test, loom))]
mod proof {
    //! The interleavings of an owner that moves its hint and of scans, by loom, as in the proof
    //! of the slots: a lane of two slots, in groups of one.
    #![allow(unsafe_code, reason = "shares a cell between threads, which is what loom watches")]

    use super::super::barrier;
    use super::super::slot::NEXT_STAMP;
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    struct World {
        slots: [Slot; 2],
        groups: Groups,
        hint: AtomicU64,
        granted: AtomicU64,
        memory: UnsafeCell<()>,
    }

    // SAFETY: `Sync` asks that accesses from several threads through `&World` are no data race.
    // The other fields are atomics; the cell has no contents, and loom reports accesses of it
    // that are not ordered.
    unsafe impl Sync for World {}

    impl World {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                slots: [Slot::new(0), Slot::new(1)],
                groups: Groups::new(2),
                hint: AtomicU64::new(0),
                granted: AtomicU64::new(1),
                memory: UnsafeCell::new(()),
            })
        }

        /// Moves the hint, as `Lane::search` does.
        fn move_hint(&self, to: u64) {
            self.groups.depart(self.hint.load(Ordering::Relaxed) as usize);
            self.hint.store(to, Ordering::Release);
        }

        /// The held mappings that begin at 0, found as `Lane::each_in_use` finds slots.
        fn scan(&self) -> Vec<(&Slot, u64)> {
            barrier::heavy();
            let mut found = Vec::new();
            let hinted = &self.slots[self.hint.load(Ordering::Acquire) as usize];
            let mut each = |slot| {
                let held = Slot::held(slot).filter(|held| held.first == 0);
                found.extend(held.map(|held| (slot, held.stamp)));
            };
            each(hinted);
            self.groups.each_in_use(&self.slots, Some(hinted), each);
            found
        }

        fn revoke(&self) {
            self.granted.store(0, Ordering::Release);
            for (slot, stamp) in self.scan() {
                while slot.holds(stamp) {
                    thread::yield_now();
                }
            }
            self.memory.with_mut(|_| ());
        }
    }

    #[test]
    fn a_mapping_is_found_wherever_the_hint_has_gone_meanwhile() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let world = World::new();
            // Nothing is noted as free yet.
            world.move_hint(1);
            world.move_hint(0);
            let owner = {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    let mapping = &world.slots[0];
                    mapping.publish(NEXT_STAMP, 0, 4095);
                    if world.granted.load(Ordering::Acquire) == 1 {
                        mapping.establish(NEXT_STAMP, 1, 1);
                        world.move_hint(1);
                        world.slots[1].publish(2 * NEXT_STAMP, 8192, 12287);
                        world.slots[1].establish(2 * NEXT_STAMP, 1, 1);
                        world.memory.with_mut(|_| ());
                    }
                    mapping.release();
                })
            };
            // One scan that may note the slots as free, and one that relies on the note.
            world.scan();
            world.revoke();
            owner.join().unwrap();
        });
    }

    #[test]
    fn whoever_passes_over_a_group_comes_after_the_mappings_that_were_in_it() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let world = World::new();
            world.slots[0].publish(NEXT_STAMP, 0, 4095);
            world.slots[0].establish(NEXT_STAMP, 1, 1);
            world.move_hint(1);
            let device = {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    world.memory.with_mut(|_| ());
                    world.slots[0].release();
                })
            };
            let other = {
                let world = Arc::clone(&world);
                thread::spawn(move || drop(world.scan()))
            };
            world.revoke();
            device.join().unwrap();
            other.join().unwrap();
        });
    }
}
