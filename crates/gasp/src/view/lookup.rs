//! The walk over a range: one consecutive extent of memory, or the reason why not.
//!
//! [`page`] is the data path where the range lies in one page of the table; [`Walk`]
//! joins pages, with one look-up for each. [`Diagnosis`] is what it falls back to: it
//! looks at the whole range in the order of decision 1 and finds the first reason. Both go in
//! steps, as everybody who revokes waits for a busy slot.
#![allow(unsafe_code, reason = "follows segments under the caller's busy slot")]

use core::ptr::NonNull;

use super::entry::{Behind, Leaf, Want};
use super::{Absent, View};
use crate::access::Access;
use crate::addr::{DeviceAddr, GRANULE, GuestPhys};
use crate::error::{Reason, Refusal};
use crate::map_flags::MapFlags;
use crate::space::segment::{Segment, Segments};
use crate::span::Span;

/// Memory that is consecutive in its object, and so in host-virtual addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// The segment; valid while the caller's slot is busy or established.
    pub(crate) segment: NonNull<Segment>,
    /// Where the extent begins in the object.
    pub(crate) offset: u64,
    /// How many bytes.
    pub(crate) len: u64,
}

impl Extent {
    /// Where the extent begins in the process.
    ///
    /// # Safety
    /// The caller's slot is busy or established since before the extent was found.
    #[inline]
    pub(crate) unsafe fn pointer(&self) -> NonNull<u8> {
        // SAFETY: the segment lives: the caller has the slot under which the extent was found.
        let base = unsafe { self.segment.as_ref() }.base();
        // SAFETY: a leaf's page lies inside its object, so the sum is inside the window.
        unsafe { base.add(self.offset as usize) }
    }

    /// Whether `next` is what lies behind this extent in the same object. Two places in
    /// the guest's memory map can be one object in a row.
    ///
    /// # Safety
    /// As [`Segments::get`], for both.
    unsafe fn goes_on(&self, next: &Self) -> bool {
        if self.offset + self.len != next.offset {
            return false;
        }
        if self.segment == next.segment {
            return true;
        }
        // SAFETY: the segment lives: the caller has a slot that is busy since before it was found.
        let this = unsafe { self.segment.as_ref() };
        // SAFETY: as `self`'s segment, `next`'s was found under the caller's slot.
        let next = unsafe { next.segment.as_ref() };
        this.object().same(next.object())
    }
}

/// All of `span`, if it lies in one page of the table and meets `want`.
///
/// # Safety
/// As [`Segments::get`].
#[inline(always)]
pub(crate) unsafe fn page(
    view: &View,
    segments: &Segments,
    span: Span<DeviceAddr>,
    want: Want,
) -> Option<Extent> {
    let addr = span.start().0;
    let found = view.table.find(addr);
    if !want.met_by(found.word) || !found.covers(addr, span.last().0) {
        return None;
    }
    let leaf = Leaf::from_word(found.word)?;
    // SAFETY: the caller's slot is busy since before the word was read, so the segment that the
    // word names is still in the list.
    let segment = unsafe { segments.get(leaf.segment()) };
    Some(Extent { segment, offset: found.offset_of(leaf, addr), len: span.len() })
}

/// How many words of a table are read under one busy slot, which others wait for: some ten
/// microseconds.
const STEP: usize = 2048;

/// A walk over the extents of a range, in steps that each need a busy slot.
pub(crate) struct Walk {
    span: Span<DeviceAddr>,
    want: Want,
    done: u64,
    open: Option<Extent>,
}

/// How far a walk has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// There is more to look up.
    More,
    /// All that was asked for is allowed and memory.
    Whole,
    /// The next granule is not.
    Refused,
}

impl Walk {
    pub(crate) fn new(span: Span<DeviceAddr>, want: Want) -> Self {
        Self { span, want, done: 0, open: None }
    }

    /// Goes on, and calls `each` with the extents, in order, until it says `false`.
    ///
    /// # Safety
    /// As [`Segments::get`], for this step; and since the first step, the slot of that one is
    /// busy or holds an established mapping of all of the span.
    #[inline]
    pub(crate) unsafe fn step(
        &mut self,
        view: &View,
        segments: &Segments,
        mut each: impl FnMut(Extent) -> bool,
    ) -> Progress {
        for _ in 0..STEP {
            if self.done == self.span.len() {
                self.open.take().map(each);
                return Progress::Whole;
            }
            // No overflow: the sum is an address inside the span.
            let addr = self.span.start().0 + self.done;
            let found = view.table.find(addr);
            let leaf = Leaf::from_word(found.word).filter(|_| self.want.met_by(found.word));
            let Some(leaf) = leaf else {
                self.open.take().map(each);
                return Progress::Refused;
            };
            // SAFETY: the caller's slot is busy since before the word was read, so the segment that
            // the word names is still in the list.
            let segment = unsafe { segments.get(leaf.segment()) };
            let len = found.rest(addr).min(self.span.len() - self.done);
            self.done += len;
            let next = Extent { segment, offset: found.offset_of(leaf, addr), len };
            match &mut self.open {
                // SAFETY: both extents were found under slots that the caller has: this step's,
                // or that of the first, which holds all of the span.
                Some(extent) if unsafe { extent.goes_on(&next) } => extent.len += len,
                Some(extent) => {
                    if !each(core::mem::replace(extent, next)) {
                        return Progress::Whole;
                    }
                }
                None => self.open = Some(next),
            }
        }
        Progress::More
    }
}

/// The search for the reason why a map of a range fails, in the order of decision 1: the IOMMU
/// first, over the whole range, then memory over the whole range.
pub(crate) struct Diagnosis {
    span: Span<DeviceAddr>,
    done: u64,
    findings: Findings,
}

impl Diagnosis {
    pub(crate) fn new(span: Span<DeviceAddr>, flags: MapFlags) -> Self {
        let (wanted, any) = (flags.access(), flags.accepts_any());
        Self { span, done: 0, findings: Findings { wanted, any, ..Findings::default() } }
    }

    /// Goes on for a bounded number of words. The reason, once it is known; `Some(None)` if
    /// there is none, or none any more.
    ///
    /// # Safety
    /// As [`Segments::get`].
    #[inline]
    pub(crate) unsafe fn step(
        &mut self,
        view: &View,
        segments: &Segments,
    ) -> Option<Option<Reason>> {
        let start = self.span.start();
        if let Absent::Refused(refusal @ (Refusal::Unattached | Refusal::DenyDomain)) = view.absent
        {
            return Some(Some(Reason::Refused { at: start, refusal }));
        }
        for _ in 0..STEP {
            if self.done == self.span.len() {
                let Findings { no_memory, not_ram, forbidden, .. } = self.findings;
                return Some(no_memory.or(not_ram).or(forbidden));
            }
            // No overflow: the sum is an address inside the span.
            let addr = DeviceAddr(start.0 + self.done);
            let found = view.table.find(addr.0);
            let Some(leaf) = found.leaf_at(addr.0) else { return Some(Some(absent(view, addr))) };
            // SAFETY: the caller's slot is busy since before the word was read, so the segment that
            // the word names is still in the list.
            let guest = unsafe { guest_of(segments, leaf, addr.0 % GRANULE) };
            if let Some(refused) = self.findings.inspect(addr, guest, leaf) {
                return Some(Some(refused));
            }
            self.done += found.rest(addr.0).min(self.span.len() - self.done);
        }
        None
    }
}

/// What memory has against the map, as far as the walk has come; the first of each kind.
#[derive(Default)]
struct Findings {
    wanted: Access,
    any: bool,
    no_memory: Option<Reason>,
    not_ram: Option<Reason>,
    forbidden: Option<Reason>,
}

impl Findings {
    /// Notes what speaks against one leaf; gives back the reason if the IOMMU refuses.
    fn inspect(&mut self, addr: DeviceAddr, guest: u64, leaf: Leaf) -> Option<Reason> {
        let (allowed, wanted) = (leaf.allowed(), self.wanted);
        if !allowed.contains(wanted) {
            let refusal = Refusal::Access { allowed, wanted };
            return Some(Reason::Refused { at: addr, refusal });
        }
        match leaf.behind() {
            Behind::Hole { .. } => {
                self.no_memory.get_or_insert(Reason::NoMemory { at: GuestPhys(guest) });
            }
            Behind::Memory { ram: false, .. } if !self.any => {
                self.not_ram.get_or_insert(Reason::NotRam { at: GuestPhys(guest) });
            }
            Behind::Memory { offered, .. } if !offered.contains(wanted) => {
                let reason = Reason::Forbidden { at: GuestPhys(guest), offered, wanted };
                self.forbidden.get_or_insert(reason);
            }
            Behind::Memory { .. } => {}
        }
        None
    }
}

fn absent(view: &View, addr: DeviceAddr) -> Reason {
    match view.absent {
        Absent::NoMemory => Reason::NoMemory { at: GuestPhys(addr.0) },
        Absent::Refused(refusal) => Reason::Refused { at: addr, refusal },
    }
}

/// The guest-physical address `within` bytes into a leaf's first granule.
///
/// # Safety
/// As [`Segments::get`].
pub(crate) unsafe fn guest_of(segments: &Segments, leaf: Leaf, within: u64) -> u64 {
    match leaf.behind() {
        Behind::Hole { guest_page } => guest_page * GRANULE + within,
        Behind::Memory { segment, page, .. } => {
            // SAFETY: the leaf names a segment that is in the list while the caller's slot is busy,
            // or the lock is held under which segments are removed.
            let segment = unsafe { segments.get(segment) };
            // SAFETY: while it is in the list it lives.
            unsafe { segment.as_ref() }.guest(page * GRANULE + within).0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::GuestPhys;
    use crate::memory::{Backing, MemoryObject, Residency};

    /// A view of `pages` pages of memory with a word for each, of which `refused` is not there.
    fn scene(pages: u64, refused: Option<u64>) -> (View, Segments) {
        let segments = Segments::new();
        let ram = MemoryObject::ram(pages * GRANULE).prefer(&[Backing::Base]);
        let ram = ram.residency(Residency::OnDemand).create().unwrap();
        let segment = segments.add(&ram, 0, GuestPhys(0)).unwrap();
        let view = View::new(36, Absent::NoMemory);
        for page in (0..pages).filter(|&page| Some(page) != refused) {
            let access = [Access::READ, Access::RW][page as usize % 2];
            let segment = segment.index();
            let behind = Behind::Memory { segment, page, offered: Access::RWX, ram: true };
            let span = Span::new(DeviceAddr(page * GRANULE), GRANULE).unwrap();
            let paused = view.table.fill(&mut view.writer(), span, Leaf::new(access, behind));
            assert_eq!(paused, None);
        }
        // It is never removed here.
        core::mem::forget(segment);
        (view, segments)
    }

    #[test]
    fn a_step_reads_a_bounded_number_of_words() {
        const PAGES: u64 = 3 * STEP as u64 + 100;
        let span = Span::new(DeviceAddr(0), PAGES * GRANULE).unwrap();
        let steps = |refused| {
            let (view, segments) = scene(PAGES, refused);
            let mut walk = Walk::new(span, Want::new(MapFlags::READ));
            let mut extents = Vec::new();
            let mut steps = Vec::new();
            while steps.last().is_none_or(|&step| step == Progress::More) {
                let each = |extent: Extent| {
                    extents.push(extent.len);
                    true
                };
                // SAFETY: nobody removes anything.
                steps.push(unsafe { walk.step(&view, &segments, each) });
            }
            let mut diagnosis = Diagnosis::new(span, MapFlags::READ);
            let mut further = 0;
            let reason = loop {
                // SAFETY: nobody removes anything.
                match unsafe { diagnosis.step(&view, &segments) } {
                    Some(reason) => break reason,
                    None => further += 1,
                }
            };
            (steps, extents, further, reason)
        };
        use Progress::{More, Refused, Whole};
        let all = PAGES * GRANULE;
        assert_eq!(steps(None), (vec![More, More, More, Whole], vec![all], 3, None));
        let hole = STEP as u64 + 1;
        let reason = Reason::NoMemory { at: GuestPhys(hole * GRANULE) };
        let found = (vec![More, Refused], vec![hole * GRANULE], 1, Some(reason));
        assert_eq!(steps(Some(hole)), found);
    }
}
