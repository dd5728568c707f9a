//! Lanes: each thread's slots.
//!
//! A thread that maps has a *lane* of [slots](super::slot), one for each mapping that it
//! holds. Only the owning thread takes a slot; the thread that drops the mapping, which may be
//! any, releases it with one store. Each slot is a cache line of its own, so stores to other
//! slots do not contend with it.
//!
//! Lanes are never freed: a thread that ends leaves its lane, with the mappings still
//! held in it, to the next new thread. Calls that the thread makes after that, in destructors
//! of thread-local variables, use a lane that is taken for the one call and given up at once,
//! so that no lane is lost. A section that is still open then keeps its lane: see
//! [`Sections`].
//!
//! A lane is in the list of lanes before anything is published in it, so for a revoking thread
//! that does not find it there the same holds as for one that does not see the slot's stamp:
//! the look-up sees the removal.

use core::cell::Cell;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::OnceLock;

use parking_lot::Mutex;

use super::block::Block;
use super::directory;
use super::holder::Holder;
use super::sections::Sections;
use super::slot::{NEXT_STAMP, Slot};
use crate::addr::DeviceAddr;
use crate::span::Span;

/// Slots in a lane's first block; each further block is twice as long.
const FIRST_BLOCK: usize = 64;
const BLOCKS: usize = 16;
/// How many slots are examined before a new one is used.
const STRIDE: u32 = 64;
/// The most slots of a lane, and so the most mappings that can be held in it at once.
pub(crate) const SLOTS_MAX: u64 = (FIRST_BLOCK as u64) * ((1 << BLOCKS) - 1);

/// One thread's slots.
pub(crate) struct Lane {
    blocks: [OnceLock<Block>; BLOCKS],
    /// The slot to try first: the one taken last, which most often is free again. Only
    /// the owner moves it, and scans read it: see [`block`](super::block).
    hint: AtomicPtr<Slot>,
    /// The index of the hinted slot, and of the slot of the outermost of the owner's nested
    /// look-ups. Only the owner uses them.
    hinted_index: AtomicU32,
    outermost_index: AtomicU32,
    /// The first stamp of the present owner; earlier stamps are those of threads that have
    /// ended.
    since: AtomicU64,
    /// The number of slots that have ever been used. Only the owner uses it.
    used: AtomicU32,
    /// The stamp for the next publish. Only the owner uses it.
    next_stamp: AtomicU64,
    /// The index from which to look for a free slot. Only the owner uses it.
    cursor: AtomicU32,
    /// The lane's index in the list of lanes.
    index: u32,
    /// The [sections](super::sections) that the owner is in, and whether there is an owner.
    pub(super) sections: Sections,
}

/// All lanes, in blocks of the same lengths as those of a lane's slots. The list only grows, and
/// is read without a lock.
static LANES: [OnceLock<Box<[OnceLock<Lane>]>>; BLOCKS] = [const { OnceLock::new() }; BLOCKS];
static COUNT: AtomicU32 = AtomicU32::new(0);
static GROW: Mutex<()> = Mutex::new(());

/// All lanes.
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
    static GIVE_UP: GiveUp = const { GiveUp };
}

/// Gives the lane up when its thread ends.
struct GiveUp;

impl Drop for GiveUp {
    fn drop(&mut self) {
        if let Some(lane) = CURRENT.take() {
            lane.sections.give_up();
        }
    }
}

impl Lane {
    /// Calls `body` with the lane of this thread, to publish in a slot or to enter a section.
    #[inline(always)]
    pub(crate) fn with<T>(body: impl FnOnce(&'static Self) -> T) -> T {
        match CURRENT.get() {
            Some(lane) => body(lane),
            None => Self::obtain(body),
        }
    }

    /// The lane's index in the list of lanes: a small number that no other thread has.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Whether this thread owns the lane.
    pub(super) fn is_current(&self) -> bool {
        Self::is_current_index(self.index)
    }

    /// Whether this thread owns the lane with this index.
    #[inline]
    pub(crate) fn is_current_index(index: u32) -> bool {
        CURRENT.get().is_some_and(|lane| lane.index == index)
    }

    /// [`with`](Self::with) for a thread that has no lane: one that was given up, or a new one.
    #[cold]
    fn obtain<T>(body: impl FnOnce(&'static Self) -> T) -> T {
        let given_up = all().find(|lane| lane.sections.take_over());
        let lane = given_up.unwrap_or_else(Self::enlist);
        lane.since.store(lane.next_stamp.load(Ordering::Relaxed), Ordering::Relaxed);
        if GIVE_UP.try_with(|_| ()).is_ok() {
            CURRENT.set(Some(lane));
            return body(lane);
        }
        // The thread is ending and `GIVE_UP` is destroyed: nothing would give the lane up later.
        let done = body(lane);
        lane.sections.give_up();
        done
    }

    #[allow(clippy::expect_used, reason = "a process cannot have so many threads")]
    fn enlist() -> &'static Self {
        let _grow = GROW.lock();
        let index = COUNT.load(Ordering::Relaxed);
        let (block, within) = position(index);
        let block = LANES.get(block).map(|lanes| {
            lanes.get_or_init(|| (0..FIRST_BLOCK << block).map(|_| OnceLock::new()).collect())
        });
        let cell = block.and_then(|block| block.get(within));
        let lane = cell.expect("at most four million threads").get_or_init(|| Self::new(index));
        COUNT.store(index + 1, Ordering::Release);
        lane
    }

    fn new(index: u32) -> Self {
        Self {
            blocks: [const { OnceLock::new() }; BLOCKS],
            hint: AtomicPtr::new(core::ptr::null_mut()),
            hinted_index: AtomicU32::new(0),
            outermost_index: AtomicU32::new(0),
            since: AtomicU64::new(NEXT_STAMP),
            used: AtomicU32::new(0),
            next_stamp: AtomicU64::new(NEXT_STAMP),
            cursor: AtomicU32::new(0),
            index,
            sections: Sections::new(),
        }
    }

    /// Takes a slot and publishes that `span` is about to be looked up; see
    /// [`Slot::publish`]. Returns the slot, which the caller has to release, and the stamp;
    /// `None` if all [`SLOTS_MAX`] slots are in use, or the process has no slots left.
    #[inline]
    pub(crate) fn publish(&'static self, span: Span<DeviceAddr>) -> Option<(&'static Slot, u64)> {
        let slot = self.take()?;
        Some((slot, self.publish_in(slot, span)))
    }

    /// The same if this thread has a lane and its hinted slot is free, as is most often the
    /// case; `None` otherwise.
    #[inline(always)]
    pub(crate) fn publish_hinted(span: Span<DeviceAddr>) -> Option<(&'static Slot, u64)> {
        let lane = CURRENT.get()?;
        let slot = lane.hinted().filter(|slot| slot.is_free())?;
        Some((slot, lane.publish_in(slot, span)))
    }

    #[inline(always)]
    fn publish_in(&self, slot: &Slot, span: Span<DeviceAddr>) -> u64 {
        let stamp = self.next_stamp.load(Ordering::Relaxed);
        self.next_stamp.store(stamp + NEXT_STAMP, Ordering::Relaxed);
        slot.publish(stamp, span.start().0, span.last().0);
        stamp
    }

    #[inline]
    fn take(&'static self) -> Option<&'static Slot> {
        match self.hinted() {
            Some(slot) if slot.is_free() => Some(slot),
            _ => self.search(),
        }
    }

    /// A free slot near the cursor, or a new one; moves the hint to it. The cursor goes round,
    /// so each released slot is found eventually, and a thread that holds very many mappings
    /// does not examine all their slots for each new one.
    ///
    /// A thread that holds its mappings while it creates others comes here for each of them, and
    /// finds the slot at the cursor free: that is a few instructions.
    #[inline]
    fn search(&'static self) -> Option<&'static Slot> {
        let (hinted, hint) = (self.hinted_index.load(Ordering::Relaxed), self.hinted());
        let since = self.since.load(Ordering::Relaxed);
        if hint.is_some_and(|slot| slot.is_busy_since(since)) {
            self.note_outermost(hinted);
        }
        let (used, cursor) =
            (self.used.load(Ordering::Relaxed), self.cursor.load(Ordering::Relaxed));
        let next = if cursor < used { cursor } else { 0 };
        let (index, slot) = match self.slot(next) {
            Some(slot) if slot.is_free() => (next, slot),
            _ => self.search_on(used)?,
        };
        self.cursor.store(index + 1, Ordering::Relaxed);
        if hint.is_some() {
            let (block, within) = position(hinted);
            if let Some(block) = self.blocks.get(block).and_then(OnceLock::get) {
                block.depart(within);
            }
        }
        self.hinted_index.store(index, Ordering::Relaxed);
        self.hint.store(core::ptr::from_ref(slot).cast_mut(), Ordering::Release);
        Some(slot)
    }

    /// Notes the slot `hinted`, which is busy, as that of the outermost look-up, if it is.
    #[cold]
    fn note_outermost(&'static self, hinted: u32) {
        if !self.is_busy(self.outermost_index.load(Ordering::Relaxed)) {
            self.outermost_index.store(hinted, Ordering::Relaxed);
        }
    }

    /// A free slot among some after the cursor, or a new one, or any.
    #[cold]
    #[inline(never)]
    fn search_on(&'static self, used: u32) -> Option<(u32, &'static Slot)> {
        match self.free_among(STRIDE.min(used), used) {
            Some(found) => Some(found),
            None => match self.grow(used) {
                Some(slot) => Some((used, slot)),
                None => self.free_among(used, used),
            },
        }
    }

    /// A free slot among the `count` after the cursor, of the `used`; if there is none, the
    /// cursor moves past them.
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

    fn grow(&'static self, index: u32) -> Option<&'static Slot> {
        let (block, within) = position(index);
        let cell = self.blocks.get(block)?;
        let block = match cell.get() {
            Some(block) => block,
            // Only the owner gets here, so no other thread fills the cell meanwhile.
            None => {
                let slots = directory::create_slots(self.index, FIRST_BLOCK << block)?;
                cell.get_or_init(|| Block::new(slots))
            }
        };
        self.used.store(index + 1, Ordering::Relaxed);
        block.slots.get(within)
    }

    /// Calls `each` with every slot that is in use; callable on any thread. On a thread other
    /// than the owner, every slot published before the caller's heavy barrier is among them.
    pub(super) fn each_in_use(&'static self, mut each: impl FnMut(&'static Slot)) {
        let hinted = self.hinted_for_scan();
        hinted.into_iter().filter(|slot| !slot.is_free()).for_each(&mut each);
        for block in self.blocks.iter().map_while(OnceLock::get) {
            block.each_in_use(hinted, &mut each);
        }
    }

    /// Whether the owner is in a look-up. (A look-up's slot is the hinted one until another
    /// look-up begins inside it, and the outermost look-up's slot is noted then.)
    fn is_looking_up(&'static self) -> bool {
        self.is_busy(self.hinted_index.load(Ordering::Relaxed))
            || self.is_busy(self.outermost_index.load(Ordering::Relaxed))
    }

    /// Whether the slot `index` is busy with a look-up of the present owner.
    fn is_busy(&'static self, index: u32) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        self.slot(index).is_some_and(|slot| slot.is_busy_since(since))
    }

    #[inline]
    fn slot(&'static self, index: u32) -> Option<&'static Slot> {
        let (block, within) = position(index);
        self.blocks.get(block)?.get()?.slots.get(within)
    }
}

/// The block of the slot or lane with this index, and its index in the block.
#[inline]
fn position(index: u32) -> (usize, usize) {
    let shifted = index as usize + FIRST_BLOCK;
    let block = shifted.ilog2() - FIRST_BLOCK.ilog2();
    (block as usize, shifted - (FIRST_BLOCK << block))
}

mod hint_pointer {
    #![allow(unsafe_code, reason = "one pointer that only ever points to leaked slots")]
    use core::sync::atomic::Ordering;

    use crate::protocol::lane::Lane;
    use crate::protocol::slot::Slot;

    impl Lane {
        /// The slot that was taken last.
        #[inline]
        pub(super) fn hinted(&'static self) -> Option<&'static Slot> {
            // SAFETY: `as_ref` asks for null or a pointer to a slot that is valid for `'static`
            // and never mutably borrowed. Only `search` stores here, after null, references to
            // slots of this lane, which are leaked and only shared; it ran on this thread, or on
            // an earlier owner's before this one took the lane over.
            unsafe { self.hint.load(Ordering::Relaxed).as_ref() }
        }

        /// The same for a scan on any thread, before it reads the blocks.
        pub(super) fn hinted_for_scan(&'static self) -> Option<&'static Slot> {
            // SAFETY: `as_ref` asks for null or a pointer to an initialised slot that is valid for
            // `'static` and never mutably borrowed. Only `search` stores here, after null,
            // references to slots of this lane, which are leaked and only shared; its release
            // store and this acquire load order their initialisation before this use.
            unsafe { self.hint.load(Ordering::Acquire).as_ref() }
        }
    }
}

/// Whether this thread is in a look-up, which scans on other threads wait for.
pub(crate) fn is_looking_up() -> bool {
    CURRENT.get().is_some_and(Lane::is_looking_up)
}

/// Whether this thread created the mapping, and it is still held.
pub(crate) fn is_own(holder: &Holder) -> bool {
    let (slot, stamp) = holder.key();
    let since = |lane: &Lane| lane.since.load(Ordering::Relaxed);
    let created = |lane: &Lane| lane.index == directory::lane(slot) && stamp >= since(lane);
    CURRENT.get().is_some_and(created) && holder.is_held()
}

/// The mappings that this thread created and that are still held, including those that other
/// threads are to unmap; not those that earlier threads have left in its lane.
pub(crate) fn own() -> Vec<Holder> {
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

#[cfg(test)]
mod tests;
