//! The walk over a range: one consecutive extent of memory, or the reason why there is none.
//!
//! [`page`] is the data path for a range in one page of the table; [`ExtentWalk`] joins pages, with
//! one look-up for each. If a map is refused, [`Diagnosis`] inspects the whole range in the
//! order of decision 1 and finds the reason. Walk and diagnosis proceed in bounded steps,
//! because every revoke waits for busy slots.
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
    /// The start of the extent, as an offset in the object, in bytes.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) len: u64,
}

impl Extent {
    /// The host-virtual address of the extent.
    ///
    /// # Safety
    /// The caller's slot has been busy or established since before the extent was found.
    #[inline]
    pub(crate) unsafe fn pointer(&self) -> NonNull<u8> {
        // SAFETY: the pointer is that of an `Arc`, so not null, aligned and initialised; nothing
        // changes a segment. It lives: a removed segment is kept until the slots that were
        // busy when its leaves were removed, and the mappings established in them, are gone.
        // The caller promises that its slot has been one of these since before the extent was
        // found.
        let base = unsafe { self.segment.as_ref() }.base();
        // SAFETY: a leaf's page lies inside its object, so the sum is inside the object's
        // window, which is one mapping and lives as long as the segment.
        unsafe { base.add(self.offset as usize) }
    }

    /// Whether `next` continues this extent in the same object. Two segments can be the same
    /// object, at different guest-physical addresses.
    ///
    /// # Safety
    /// As for [`Segments::get`], for the segments of both.
    unsafe fn goes_on(&self, next: &Self) -> bool {
        if self.offset + self.len != next.offset {
            return false;
        }
        if self.segment == next.segment {
            return true;
        }
        // SAFETY: the pointer is that of an `Arc`, so not null, aligned and initialised; nothing
        // changes a segment. It lives: `Segments::get`, whose promise the caller gives for
        // `self`, keeps it while the slot under which it was found is busy or established.
        let this = unsafe { self.segment.as_ref() };
        // SAFETY: the pointer is that of an `Arc`, so not null, aligned and initialised; nothing
        // changes a segment. It lives: the caller gives the promise of `Segments::get` for
        // `next` as well, which keeps it while the slot under which it was found is busy or
        // established.
        let next = unsafe { next.segment.as_ref() };
        this.object().same(next.object())
    }
}

/// The extent of all of `span`, if that lies in one page of the table and meets `want`.
///
/// # Safety
/// As for [`Segments::get`]: the caller's slot is busy.
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
    // SAFETY: the leaf was found in a table of this guest, while the caller's slot was busy, as
    // it promises; it uses the segment only under that slot.
    let segment = unsafe { segments.get(leaf.segment()) };
    Some(Extent { segment, offset: found.offset_of(leaf, addr), len: span.len() })
}

/// Number of words read in one step, that is under one busy slot: some ten microseconds.
const STEP: usize = 2048;

/// A walk over the extents of a range, in steps, each of which needs a busy slot.
pub(crate) struct ExtentWalk {
    span: Span<DeviceAddr>,
    want: Want,
    done: u64,
    pending: Option<Extent>,
}

/// The state of a walk after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// Not at the end yet.
    More,
    /// At the end: all of the range is memory and allowed, or the callback ended the walk.
    Whole,
    /// The next granule is refused.
    Refused,
}

impl ExtentWalk {
    pub(crate) fn new(span: Span<DeviceAddr>, want: Want) -> Self {
        Self { span, want, done: 0, pending: None }
    }

    /// Continues the walk, and calls `each` with the extents, in order, until it returns
    /// `false`.
    ///
    /// # Safety
    /// As for [`Segments::get`], in this step: the caller's slot is busy. And since the first
    /// step, the slot of that one is busy or holds an established mapping of all of the span.
    #[inline]
    pub(crate) unsafe fn step(
        &mut self,
        view: &View,
        segments: &Segments,
        mut each: impl FnMut(Extent) -> bool,
    ) -> Progress {
        for _ in 0..STEP {
            if self.done == self.span.len() {
                self.pending.take().map(each);
                return Progress::Whole;
            }
            // No overflow: the sum is an address inside the span.
            let addr = self.span.start().0 + self.done;
            let found = view.table.find(addr);
            let leaf = Leaf::from_word(found.word).filter(|_| self.want.met_by(found.word));
            let Some(leaf) = leaf else {
                self.pending.take().map(each);
                return Progress::Refused;
            };
            // SAFETY: the leaf was found in a table of this guest, while the caller's slot was
            // busy, as it promises. The segment is used only under that slot or, in later
            // steps, that of the first step, which has been busy or established since.
            let segment = unsafe { segments.get(leaf.segment()) };
            let len = found.rest(addr).min(self.span.len() - self.done);
            self.done += len;
            let next = Extent { segment, offset: found.offset_of(leaf, addr), len };
            match &mut self.pending {
                // SAFETY: `next` was found in this step, under its busy slot; `extent` in this step
                // or an earlier one, and since the first step, as the caller promises, the slot
                // of that one is busy or holds an established mapping of all of the span. So for
                // both a slot has been busy or established since before it was found.
                Some(extent) if unsafe { extent.goes_on(&next) } => extent.len += len,
                Some(extent) => {
                    if !each(core::mem::replace(extent, next)) {
                        return Progress::Whole;
                    }
                }
                None => self.pending = Some(next),
            }
        }
        Progress::More
    }
}

/// The search for the reason why a map of a range is refused, in the order of decision 1: the
/// IOMMU over the whole range, then memory over the whole range.
pub(crate) struct Diagnosis {
    span: Span<DeviceAddr>,
    done: u64,
    findings: Findings,
}

/// The end of a diagnosis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Diagnosed {
    /// Nothing is refused (any more).
    Allowed,
    /// The range is refused, for this reason.
    Refused(Reason),
    /// The domain's translator is to be asked about this address.
    Missed(DeviceAddr),
}

impl Diagnosis {
    pub(crate) fn new(span: Span<DeviceAddr>, flags: MapFlags) -> Self {
        let (requested, any) = (flags.access(), flags.accepts_any());
        Self { span, done: 0, findings: Findings { requested, any, ..Findings::default() } }
    }

    /// Inspects a bounded number of words. Returns the end as soon as it is known; `None` if it
    /// takes a further step.
    ///
    /// # Safety
    /// As for [`Segments::get`], in this step: the caller's slot is busy.
    #[inline]
    pub(crate) unsafe fn step(&mut self, view: &View, segments: &Segments) -> Option<Diagnosed> {
        let start = self.span.start();
        if let Absent::Refused(refusal @ (Refusal::Unattached | Refusal::DenyDomain)) = view.absent
        {
            return Some(Diagnosed::Refused(Reason::Refused { addr: start, refusal }));
        }
        for _ in 0..STEP {
            if self.done == self.span.len() {
                let Findings { no_memory, not_ram, forbidden, .. } = self.findings;
                let reason = no_memory.or(not_ram).or(forbidden);
                return Some(reason.map_or(Diagnosed::Allowed, Diagnosed::Refused));
            }
            // No overflow: the sum is an address inside the span.
            let addr = DeviceAddr(start.0 + self.done);
            let found = view.table.find(addr.0);
            let Some(leaf) = found.leaf_at(addr.0) else { return Some(absent(view, addr)) };
            if let Some(end) = refused(view, addr, leaf, self.findings.requested) {
                return Some(end);
            }
            // SAFETY: the leaf was found in a table of this guest, while the caller's slot was
            // busy, as it promises, and the slot still is.
            let guest = unsafe { guest_of(segments, leaf, addr.0 % GRANULE) };
            self.findings.inspect(guest, leaf);
            self.done += found.rest(addr.0).min(self.span.len() - self.done);
        }
        None
    }
}

/// The reasons that memory gives to refuse the map, in the words inspected so far: the first
/// of each kind.
#[derive(Default)]
struct Findings {
    requested: Access,
    any: bool,
    no_memory: Option<Reason>,
    not_ram: Option<Reason>,
    forbidden: Option<Reason>,
}

impl Findings {
    /// Records the reasons that the memory behind one leaf gives.
    fn inspect(&mut self, guest: u64, leaf: Leaf) {
        let requested = self.requested;
        match leaf.behind() {
            Behind::Hole { .. } => {
                self.no_memory.get_or_insert(Reason::NoMemory { addr: GuestPhys(guest) });
            }
            Behind::Memory { ram: false, .. } if !self.any => {
                self.not_ram.get_or_insert(Reason::NotRam { addr: GuestPhys(guest) });
            }
            Behind::Memory { offered, .. } if !offered.contains(requested) => {
                let reason = Reason::Forbidden { addr: GuestPhys(guest), offered, requested };
                self.forbidden.get_or_insert(reason);
            }
            Behind::Memory { .. } => {}
        }
    }
}

/// The end of a diagnosis at an address without a leaf.
fn absent(view: &View, addr: DeviceAddr) -> Diagnosed {
    match view.absent {
        Absent::NoMemory => Diagnosed::Refused(Reason::NoMemory { addr: GuestPhys(addr.0) }),
        Absent::Refused(refusal) => Diagnosed::Refused(Reason::Refused { addr, refusal }),
        Absent::Missed => Diagnosed::Missed(addr),
    }
}

/// The end of a diagnosis at a leaf whose domain does not allow the access, as far as is known.
fn refused(view: &View, addr: DeviceAddr, leaf: Leaf, requested: Access) -> Option<Diagnosed> {
    let allowed = leaf.allowed();
    if allowed.contains(requested) {
        return None;
    }
    let refusal = match leaf.refused() {
        Some(reason) => Refusal::Translator { reason },
        // What the leaf allows is a part of what the translator may allow by now.
        None if view.absent == Absent::Missed => return Some(Diagnosed::Missed(addr)),
        None => Refusal::Access { allowed, requested },
    };
    Some(Diagnosed::Refused(Reason::Refused { addr, refusal }))
}

/// The guest-physical address of the byte at offset `within` of a leaf's first granule.
///
/// # Safety
/// As for [`Segments::get`]: the leaf was found in a table of this guest, and the slot under
/// which it was found is still busy, or the caller holds the lock under which segments are
/// removed.
pub(crate) unsafe fn guest_of(segments: &Segments, leaf: Leaf, within: u64) -> u64 {
    match leaf.behind() {
        Behind::Hole { guest_page } => guest_page * GRANULE + within,
        Behind::Memory { segment, page, .. } => {
            // SAFETY: the caller found the leaf in a table of this guest, under a slot that is
            // still busy, or it holds the lock under which segments are removed. The segment is
            // used only here.
            let segment = unsafe { segments.get(segment) };
            // SAFETY: the pointer is that of an `Arc`, so not null, aligned and initialised;
            // nothing changes a segment. It lives while that slot is busy or that lock is held.
            unsafe { segment.as_ref() }.guest(page * GRANULE + within).0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::GuestPhys;
    use crate::memory::{Backing, MemoryObject, Residency};

    /// A view of `pages` pages of memory with one word for each, but none for page `refused`.
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
        // The segment is never removed here.
        core::mem::forget(segment);
        (view, segments)
    }

    #[test]
    fn a_step_reads_a_bounded_number_of_words() {
        const PAGES: u64 = 3 * STEP as u64 + 100;
        let span = Span::new(DeviceAddr(0), PAGES * GRANULE).unwrap();
        let steps = |refused| {
            let (view, segments) = scene(PAGES, refused);
            let mut walk = ExtentWalk::new(span, Want::new(MapFlags::READ));
            let mut extents = Vec::new();
            let mut steps = Vec::new();
            while steps.last().is_none_or(|&step| step == Progress::More) {
                let each = |extent: Extent| {
                    extents.push(extent.len);
                    true
                };
                // SAFETY: stands for a busy slot: nothing removes words or segments in this
                // test, so the segments live until it ends.
                steps.push(unsafe { walk.step(&view, &segments, each) });
            }
            let mut diagnosis = Diagnosis::new(span, MapFlags::READ);
            let mut further = 0;
            let reason = loop {
                // SAFETY: stands for a busy slot: nothing removes words or segments in this
                // test, so the segments live until it ends.
                match unsafe { diagnosis.step(&view, &segments) } {
                    Some(reason) => break reason,
                    None => further += 1,
                }
            };
            (steps, extents, further, reason)
        };
        use Progress::{More, Refused, Whole};
        let all = PAGES * GRANULE;
        let whole = (vec![More, More, More, Whole], vec![all], 3, Diagnosed::Allowed);
        assert_eq!(steps(None), whole);
        let hole = STEP as u64 + 1;
        let reason = Reason::NoMemory { addr: GuestPhys(hole * GRANULE) };
        let refused = Diagnosed::Refused(reason);
        let found = (vec![More, Refused], vec![hole * GRANULE], 1, refused);
        assert_eq!(steps(Some(hole)), found);
    }
}
