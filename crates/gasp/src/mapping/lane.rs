//! Lanes: each thread's slots.
//!
//! A thread that maps has a *lane* of [slots](super::slot), one for each mapping it
//! holds. Only the owning thread takes a slot; whoever drops the mapping gives it back,
//! on any thread, with one store. A slot is a cache line of its own, so nobody else's
//! store is in the way.
//!
//! Lanes are never freed: a thread that ends leaves its lane, with the mappings still
//! held in it, to the next new thread. What it does after that, in destructors of
//! thread-local variables, it does in a lane that it takes for the one call and gives up at
//! once, so that no lane is lost. Sections that are still open then keep theirs: see
//! [`Sections`].
//!
//! A lane is entered in the list of lanes before it publishes anything, so a revoking
//! thread that does not find it there is in the position of one that does not see the
//! slot's stamp: the look-up sees the removal.

use core::cell::Cell;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, compiler_fence};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::barrier;
use super::block::Block;
use super::directory;
use super::grave;
use super::holder::Holder;
use super::section::Sections;
use super::slot::{NEXT_STAMP, Slot, Use};
use crate::addr::DeviceAddr;
use crate::error::Reason;
use crate::span::Span;

/// Slots in a lane's first block; each further block is twice as long.
const FIRST_BLOCK: usize = 64;
const BLOCKS: usize = 16;
/// How many slots are looked at before a new one is taken.
const STRIDE: u32 = 64;
/// The most mappings that one thread can have made and nobody dropped.
const SLOTS_MAX: u64 = (FIRST_BLOCK as u64) * ((1 << BLOCKS) - 1);

/// One thread's slots.
pub(super) struct Lane {
    blocks: [OnceLock<Block>; BLOCKS],
    /// The slot to try first: the one taken last, which most often is free again. Only
    /// the owner moves it; scans read it: see [`block`](super::block).
    hint: AtomicPtr<Slot>,
    /// The number of the hinted slot, and of the slot of the outermost look-up of those that
    /// the owner has begun inside one another. Only the owner uses them.
    hinted: AtomicU32,
    outermost: AtomicU32,
    /// The first stamp of the present owner; earlier ones are of threads that have ended.
    since: AtomicU64,
    /// How many slots have ever been used; only the owner uses it.
    used: AtomicU32,
    /// The stamp for the next publish; only the owner uses it.
    next_stamp: AtomicU64,
    /// Where to look for a free slot next; only the owner uses it.
    cursor: AtomicU32,
    /// Where it is in the list of lanes.
    index: u32,
    /// The [sections](super::section) that the owner is in, and whether there is an owner.
    pub(super) sections: Sections,
}

/// A slot that is busy or held; dropping it gives the slot back.
pub(super) struct Hold {
    slot: &'static Slot,
    stamp: u64,
}

/// All lanes, in blocks as a lane's slots: the list only grows, and is read without a lock.
static LANES: [OnceLock<Box<[OnceLock<Lane>]>>; BLOCKS] = [const { OnceLock::new() }; BLOCKS];
static COUNT: AtomicU32 = AtomicU32::new(0);
static GROW: Mutex<()> = Mutex::new(());

/// All lanes there are.
pub(super) fn all() -> impl Iterator<Item = &'static Lane> {
    (0..COUNT.load(Ordering::Acquire)).filter_map(by_index)
}

#[inline]
fn by_index(index: u32) -> Option<&'static Lane> {
    let (block, within) = position(index);
    LANES.get(block)?.get()?.get(within)?.get()
}

thread_local! {
    static CURRENT: Cell<Option<&'static Lane>> = const { Cell::new(None) };
    static LEAVE: Leave = const { Leave };
}

/// Gives the lane up when its thread ends.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(lane) = CURRENT.take() {
            lane.sections.give_up();
        }
    }
}

impl Lane {
    /// Does something in the lane of this thread: publishes a slot, or enters a section.
    #[inline(always)]
    pub(super) fn with<T>(body: impl FnOnce(&'static Self) -> T) -> T {
        match CURRENT.get() {
            Some(lane) => body(lane),
            None => Self::enter(body),
        }
    }

    /// Whether this thread owns the lane.
    pub(super) fn is_current(&self) -> bool {
        Self::is_current_index(self.index)
    }

    /// Whether this thread owns the lane of this number.
    #[inline]
    pub(super) fn is_current_index(index: u32) -> bool {
        CURRENT.get().is_some_and(|lane| lane.index == index)
    }

    #[cold]
    fn enter<T>(body: impl FnOnce(&'static Self) -> T) -> T {
        let left = all().find(|lane| lane.sections.take_over());
        let lane = left.unwrap_or_else(Self::enlist);
        lane.since.store(lane.next_stamp.load(Ordering::Relaxed), Ordering::Relaxed);
        if LEAVE.try_with(|_| ()).is_ok() {
            CURRENT.set(Some(lane));
            return body(lane);
        }
        // A thread that is ending, past `LEAVE`: nobody would tell when it is done.
        let done = body(lane);
        lane.sections.give_up();
        done
    }

    #[allow(clippy::expect_used, reason = "a process cannot have so many threads")]
    fn enlist() -> &'static Self {
        let _grow = GROW.lock().unwrap_or_else(PoisonError::into_inner);
        let index = COUNT.load(Ordering::Relaxed);
        let (block, within) = position(index);
        let block = LANES.get(block).map(|lanes| {
            lanes.get_or_init(|| (0..FIRST_BLOCK << block).map(|_| OnceLock::new()).collect())
        });
        let place = block.and_then(|block| block.get(within));
        let lane = place.expect("at most four million threads").get_or_init(|| Self::new(index));
        COUNT.store(index + 1, Ordering::Release);
        lane
    }

    fn new(index: u32) -> Self {
        Self {
            blocks: [const { OnceLock::new() }; BLOCKS],
            hint: AtomicPtr::new(core::ptr::null_mut()),
            hinted: AtomicU32::new(0),
            outermost: AtomicU32::new(0),
            since: AtomicU64::new(NEXT_STAMP),
            used: AtomicU32::new(0),
            next_stamp: AtomicU64::new(NEXT_STAMP),
            cursor: AtomicU32::new(0),
            index,
            sections: Sections::new(),
        }
    }

    /// Takes a slot and publishes that `span` is about to be looked up; see
    /// [`Slot::publish`].
    #[inline(always)]
    pub(super) fn publish(&'static self, span: Span<DeviceAddr>) -> Result<Hold, Reason> {
        let slot = self.take()?;
        let stamp = self.next_stamp.load(Ordering::Relaxed);
        self.next_stamp.store(stamp + NEXT_STAMP, Ordering::Relaxed);
        slot.publish(stamp, span.start().0, span.last().0);
        Ok(Hold { slot, stamp })
    }

    #[inline]
    fn take(&'static self) -> Result<&'static Slot, Reason> {
        match self.hinted() {
            Some(slot) if slot.is_free() => Ok(slot),
            _ => self.search(),
        }
    }

    /// A free slot near the cursor, or a new one. The cursor goes round, so each slot
    /// that is given back is found in the end, and a thread that holds very many
    /// mappings does not look at all of them for each new one.
    #[cold]
    fn search(&'static self) -> Result<&'static Slot, Reason> {
        let hinted = self.hinted.load(Ordering::Relaxed);
        if self.is_looked_up(hinted) && !self.is_looked_up(self.outermost.load(Ordering::Relaxed)) {
            self.outermost.store(hinted, Ordering::Relaxed);
        }
        let used = self.used.load(Ordering::Relaxed);
        let (index, slot) = match self.free_among(STRIDE.min(used), used) {
            Some(found) => found,
            None => match self.grow(used) {
                Ok(slot) => (used, slot),
                Err(limit) => self.free_among(used, used).ok_or(limit)?,
            },
        };
        self.cursor.store(index + 1, Ordering::Relaxed);
        if self.hinted().is_some() {
            let (block, within) = position(hinted);
            if let Some(block) = self.blocks.get(block).and_then(OnceLock::get) {
                block.depart(within);
            }
        }
        self.hinted.store(index, Ordering::Relaxed);
        self.hint.store(core::ptr::from_ref(slot).cast_mut(), Ordering::Release);
        Ok(slot)
    }

    /// A free slot among the next `count` of `used`; the cursor moves past them.
    fn free_among(&'static self, count: u32, used: u32) -> Option<(u32, &'static Slot)> {
        let mut index = self.cursor.load(Ordering::Relaxed);
        for _ in 0..count {
            index = if index < used { index } else { 0 };
            let slot = self.slot(index)?;
            if slot.is_free() {
                return Some((index, slot));
            }
            index += 1;
        }
        self.cursor.store(index, Ordering::Relaxed);
        None
    }

    fn grow(&'static self, index: u32) -> Result<&'static Slot, Reason> {
        let limit = Reason::Limit { what: "mappings a thread", limit: SLOTS_MAX };
        let (block, within) = position(index);
        let cell = self.blocks.get(block).ok_or(limit)?;
        let block = match cell.get() {
            Some(block) => block,
            // Only the owner gets here, so nobody fills the cell meanwhile.
            None => {
                let made = directory::enlist(self.index, FIRST_BLOCK << block).ok_or(limit)?;
                cell.get_or_init(|| Block::new(made))
            }
        };
        self.used.store(index + 1, Ordering::Relaxed);
        block.slots.get(within).ok_or(limit)
    }

    /// Calls `each` with every slot that is in use, on any thread. On others than the owner's,
    /// one that was published before the heavy barrier of the caller is among them.
    fn each_in_use(&'static self, mut each: impl FnMut(&'static Slot)) {
        let hinted = self.hinted_for_scan();
        hinted.into_iter().filter(|slot| !slot.is_free()).for_each(&mut each);
        for block in self.blocks.iter().map_while(OnceLock::get) {
            block.each_in_use(hinted, &mut each);
        }
    }

    /// Whether the owner is in a look-up. (Each one's slot is the hinted one until another
    /// is begun inside it, and the outermost one's is noted then.)
    fn is_looking_up(&'static self) -> bool {
        self.is_looked_up(self.hinted.load(Ordering::Relaxed))
            || self.is_looked_up(self.outermost.load(Ordering::Relaxed))
    }

    fn is_looked_up(&'static self, index: u32) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        self.slot(index).is_some_and(|slot| slot.is_busy_since(since))
    }

    fn slot(&'static self, index: u32) -> Option<&'static Slot> {
        let (block, within) = position(index);
        self.blocks.get(block)?.get()?.slots.get(within)
    }
}

/// Block, and position in it, of a lane's slot.
fn position(index: u32) -> (usize, usize) {
    let shifted = index as usize + FIRST_BLOCK;
    let block = shifted.ilog2() - FIRST_BLOCK.ilog2();
    (block as usize, shifted - (FIRST_BLOCK << block))
}

mod hint_pointer {
    #![allow(unsafe_code, reason = "one pointer that only ever points to leaked slots")]
    use super::{Lane, Ordering, Slot};

    impl Lane {
        /// The slot that was taken last.
        #[inline]
        pub(super) fn hinted(&'static self) -> Option<&'static Slot> {
            // SAFETY: only `search` stores here, and only slots of this lane, which live
            // as long as the lane: for ever.
            unsafe { self.hint.load(Ordering::Relaxed).as_ref() }
        }

        /// The same for a scan on any thread, before it looks at the blocks.
        pub(super) fn hinted_for_scan(&'static self) -> Option<&'static Slot> {
            // SAFETY: as above: what is stored is null or a leaked slot.
            unsafe { self.hint.load(Ordering::Acquire).as_ref() }
        }
    }
}

impl Hold {
    /// Turns a look-up into a mapping that `vdev` has made through `view`.
    #[inline(always)]
    pub(super) fn establish(&self, view: u32, vdev: u32) {
        self.slot.establish(self.stamp, view, vdev);
    }

    /// Says that the mapping ends at `last`, sooner than was published.
    #[inline]
    pub(super) fn shorten(&self, last: DeviceAddr) {
        self.slot.shorten(last.0);
    }

    /// Whether the mapping's drain has ended without it.
    #[inline]
    pub(super) fn is_revoked(&self) -> bool {
        self.slot.is_revoked(self.stamp)
    }

    /// Makes the mapping at `pointer` a token; gives back its slot's id and its stamp.
    #[inline]
    pub(super) fn into_token(self, pointer: u64) -> (u64, u64) {
        let hold = core::mem::ManuallyDrop::new(self);
        hold.slot.make_token(hold.stamp, pointer);
        (hold.slot.id(), hold.stamp)
    }
}

impl Drop for Hold {
    #[inline]
    fn drop(&mut self) {
        self.slot.release();
        after_release(self.slot, self.stamp);
    }
}

/// What follows a release: the end of a mapping that a drain has given up frees memory.
#[inline]
pub(super) fn after_release(slot: &Slot, stamp: u64) {
    // A drain that gives up marks the mapping, passes a heavy barrier, and looks whether it
    // is still held: either it sees the release, or the mark is seen here. (Where there is
    // no membarrier both may be missed: then the memory waits for `grave::settle`. A fence
    // here would cost more than that is worth.)
    compiler_fence(Ordering::SeqCst);
    if slot.is_revoked(stamp) {
        // Memory was kept for this mapping.
        grave::free((slot.id(), stamp));
    }
}

/// Whether this thread is in a look-up, which scans on other threads wait for.
pub(super) fn is_looking_up() -> bool {
    CURRENT.get().is_some_and(Lane::is_looking_up)
}

/// Whether this thread has made the mapping, and it is still held.
pub(super) fn is_own(holder: &Holder) -> bool {
    let (slot, stamp) = holder.key();
    let since = |lane: &Lane| lane.since.load(Ordering::Relaxed);
    let made = |lane: &Lane| lane.index == directory::lane(slot) && stamp >= since(lane);
    CURRENT.get().is_some_and(made) && holder.is_held()
}

/// What this thread has mapped, also if others are to unmap it; not what the threads before it
/// have left in its lane.
pub(super) fn own() -> Vec<Holder> {
    let mut holders = Vec::new();
    if let Some(lane) = CURRENT.get() {
        let since = lane.since.load(Ordering::Relaxed);
        lane.each_in_use(|slot| {
            let stamp = slot.held_since(since);
            holders.extend(stamp.map(|stamp| Holder::new(slot, stamp)));
        });
    }
    holders
}

/// Waits for every look-up that may have seen what was just removed, and collects the
/// mappings for which `wanted` holds.
///
/// When it returns, no reader is inside anything that was taken out before the call.
pub(super) fn scan(mut wanted: impl FnMut(Use) -> bool) -> Vec<Holder> {
    barrier::heavy();
    let mut holders = Vec::new();
    each_held(|slot, held| {
        if wanted(held) {
            holders.push(Holder::new(slot, held.stamp));
        }
    });
    holders
}

/// Waits for every look-up in progress. Called after the heavy barrier.
pub(super) fn wait_for_lookups() {
    each_held(|_, _| ());
}

fn each_held(mut each: impl FnMut(&'static Slot, Use)) {
    for lane in all() {
        lane.each_in_use(|slot| {
            if let Some(held) = slot.held() {
                each(slot, held);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64) -> Span<DeviceAddr> {
        Span::new(DeviceAddr(start), 0x1000).unwrap()
    }

    #[test]
    fn slots_of_all_blocks_have_one_place_each() {
        let mut seen = std::collections::HashSet::new();
        for index in 0..FIRST_BLOCK as u32 * 7 {
            let (block, within) = position(index);
            assert!(within < FIRST_BLOCK << block);
            assert!(seen.insert((block, within)));
        }
        assert_eq!(position(0), (0, 0));
        assert_eq!(position(64), (1, 0));
        assert_eq!(position(192), (2, 0));
    }

    #[test]
    fn more_holds_than_a_block_has_slots_and_each_is_found() {
        const VDEV: u32 = 0xabc1;
        let holds: Vec<Hold> = (0..1000_u64)
            .map(|index| {
                let hold = Lane::with(|lane| lane.publish(span(index * 0x1000))).unwrap();
                hold.establish(7, VDEV);
                hold
            })
            .collect();
        let mine = |found: Use| found.vdev == VDEV;
        let found = scan(mine);
        assert_eq!(found.len(), 1000);
        assert!(found.iter().all(Holder::is_held));
        drop(holds);
        assert!(!found.iter().any(Holder::is_held));
        assert!(scan(mine).is_empty());
    }

    #[test]
    fn very_many_holds_take_time_in_proportion_and_their_slots_are_used_again() {
        const COUNT: usize = 200_000;
        const VDEV: u32 = 0xabc4;
        let hold = || {
            let hold = Lane::with(|lane| lane.publish(span(0))).unwrap();
            hold.establish(1, VDEV);
            hold
        };
        let used = || Lane::with(|lane| lane.used.load(Ordering::Relaxed)) as usize;
        let body = move || {
            let fill = || -> Vec<Hold> { (0..COUNT).map(|_| hold()).collect() };
            drop(fill());
            let mut holds = fill();
            assert!(used() <= COUNT + COUNT / 32, "{} slots for {COUNT} mappings", used());
            // One in and one out, at random places.
            for step in 0..COUNT {
                holds.swap_remove(step * 7919 % COUNT);
                holds.push(hold());
            }
            assert!(used() <= COUNT + COUNT / 16, "{} slots for {COUNT} mappings", used());
        };
        std::thread::spawn(body).join().unwrap();
    }

    #[test]
    fn a_scan_reads_what_is_held_and_not_what_was_once() {
        const COUNT: usize = 100_000;
        const VDEV: u32 = 0xabc6;
        let body = || {
            let to_read = || {
                let blocks = Lane::with(|lane| lane.blocks.iter().map_while(OnceLock::get));
                blocks.map(Block::groups_to_read).sum::<usize>()
            };
            let mine = || scan(|found| found.vdev == VDEV).len();
            let hold = || {
                let hold = Lane::with(|lane| lane.publish(span(0))).unwrap();
                hold.establish(1, VDEV);
                hold
            };
            let mut holds: Vec<Hold> = (0..COUNT).map(|_| hold()).collect();
            assert_eq!(mine(), COUNT);
            assert!(to_read() >= COUNT / 64, "all of these are read");
            // Two stay, far from one another.
            let kept = [holds.swap_remove(COUNT / 3), holds.swap_remove(COUNT / 2)];
            drop(holds);
            assert_eq!(mine(), 2, "the scan that finds them free");
            assert!(to_read() <= 2, "{} groups are read for two mappings", to_read());
            assert_eq!(mine(), 2);
            // The owner goes on, where the hint is and elsewhere.
            let more: Vec<Hold> = (0..1000).map(|_| hold()).collect();
            assert_eq!(mine(), 1002);
            drop((kept, more));
            assert_eq!(mine(), 0);
            assert_eq!(to_read(), 0);
            let last = hold();
            assert_eq!(mine(), 1, "the hinted slot is always read");
            drop(last);
        };
        std::thread::spawn(body).join().unwrap();
    }

    #[test]
    fn a_hold_outlives_its_thread_and_is_released_on_another() {
        const VDEV: u32 = 0xabc2;
        let hold = std::thread::spawn(|| {
            let hold = Lane::with(|lane| lane.publish(span(0))).unwrap();
            hold.establish(9, VDEV);
            hold
        })
        .join()
        .unwrap();
        let found = scan(|found| found.vdev == VDEV && found.view == 9);
        assert_eq!(found.len(), 1);
        drop(hold);
        assert!(!found[0].is_held());
    }

    #[test]
    fn a_reused_slot_is_another_holder() {
        const VDEV: u32 = 0xabc3;
        let make = || {
            let hold = Lane::with(|lane| lane.publish(span(0))).unwrap();
            hold.establish(1, VDEV);
            hold
        };
        let first = make();
        let found = scan(|found| found.vdev == VDEV);
        drop(first);
        let second = make();
        assert!(!found[0].is_held(), "the first mapping is gone, though its slot is in use");
        found[0].mark_revoked();
        assert!(!second.is_revoked(), "a late mark does not reach the next mapping");
    }

    /// Runs `late` in a thread-local variable's destructor, after the thread has given its lane
    /// up: the variable is touched before the thread's first map, so it is dropped after.
    fn in_an_ending_thread<T: 'static + Send, L: 'static>(
        before: impl FnOnce() -> L + Send + 'static,
        late: impl FnOnce(L) -> T + Send + 'static,
    ) -> T {
        struct Late(Option<Box<dyn FnOnce()>>);
        impl Drop for Late {
            fn drop(&mut self) {
                assert!(LEAVE.try_with(|_| ()).is_err(), "the lane was left before");
                if let Some(late) = self.0.take() {
                    late();
                }
            }
        }
        thread_local! {
            static LATE: core::cell::RefCell<Late> = const { core::cell::RefCell::new(Late(None)) };
        }
        let (done, result) = std::sync::mpsc::channel();
        let body = move || {
            LATE.with_borrow_mut(|_| ());
            let before = before();
            let late = move || drop(done.send(late(before)));
            LATE.with_borrow_mut(|slot| slot.0 = Some(Box::new(late)));
        };
        std::thread::spawn(body).join().unwrap();
        result.recv().unwrap()
    }

    /// More lanes than the threads of other tests can take meanwhile.
    const MANY: usize = 400;

    #[test]
    fn a_section_that_outlives_its_lane_keeps_others_out_of_it_until_it_ends() {
        use super::super::section::Section;
        let before = all().count();
        for _ in 0..MANY {
            in_an_ending_thread(
                || {
                    [Section::enter(), Section::enter()]
                        .map(|section| (index_of_section(), section))
                },
                |sections| {
                    let [(left, first), (_, second)] = sections;
                    let taken = || std::thread::spawn(index_of_section).join().unwrap();
                    assert_ne!(taken(), left, "its lane is not free");
                    drop(first);
                    assert_ne!(taken(), left, "its lane is not free yet");
                    drop(second);
                },
            );
        }
        let more = all().count() - before;
        assert!(more < MANY / 4, "{more} lanes are lost in {MANY} threads");
    }

    fn index_of_section() -> u32 {
        drop(super::super::section::Section::enter());
        CURRENT.get().unwrap().index
    }

    #[test]
    fn what_is_mapped_in_an_ending_thread_is_found_and_costs_no_lane() {
        const VDEV: u32 = 0xabc5;
        let hold = || {
            let hold = Lane::with(|lane| lane.publish(span(0))).unwrap();
            hold.establish(1, VDEV);
            hold
        };
        let before = all().count();
        for _ in 0..MANY {
            let holds = in_an_ending_thread(hold, move |first| {
                drop(super::super::section::Section::enter());
                let second = hold();
                assert!(CURRENT.get().is_none());
                [first, second]
            });
            assert_eq!(scan(|found| found.vdev == VDEV).len(), 2);
            drop(holds);
            assert!(scan(|found| found.vdev == VDEV).is_empty());
        }
        let more = all().count() - before;
        assert!(more < MANY / 4, "{more} lanes are lost in {MANY} threads");
    }
}
