//! The walk over a range: one consecutive extent of memory, or the reason why not.
//!
//! [`page`] is the data path where the range lies in one page of the table; [`extents`]
//! joins pages, with one look-up for each. [`diagnose`] is what it falls back to: it
//! looks at the whole range in the order of decision 1 and finds the first reason.
#![allow(unsafe_code, reason = "follows segments under the caller's busy slot")]

use core::ptr::NonNull;

use super::entry::{Behind, Leaf, Want};
use super::segment::{Segment, Segments};
use super::{Absent, View};
use crate::access::{Access, MapFlags};
use crate::addr::{DeviceAddr, GRANULE};
use crate::error::{Reason, Refusal};
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
        // SAFETY: by the caller's promise the segment lives.
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
        // SAFETY: the caller's promise: it lives.
        let this = unsafe { self.segment.as_ref() };
        // SAFETY: as above.
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
    if !want.met_by(found.word) || span.len() > found.rest(addr) {
        return None;
    }
    let leaf = Leaf::from_word(found.word)?;
    // SAFETY: the caller's promise.
    let segment = unsafe { segments.get(leaf.segment()) };
    Some(Extent { segment, offset: found.offset_of(leaf, addr), len: span.len() })
}

/// The longest extent from the start of `span`, at most all of it, that meets `want`;
/// `None` where the first granule does not.
///
/// # Safety
/// As [`Segments::get`].
pub(crate) unsafe fn extent(
    view: &View,
    segments: &Segments,
    span: Span<DeviceAddr>,
    want: Want,
) -> Option<Extent> {
    let mut first = None;
    let stop = |extent| {
        first = Some(extent);
        false
    };
    // SAFETY: the caller's promise.
    unsafe { extents(view, segments, span, want, stop) };
    first
}

/// Calls `each` with the extents of `span`, in order, until it says `false`; says whether
/// all of `span` meets `want`, as far as it came.
///
/// # Safety
/// As [`Segments::get`].
pub(crate) unsafe fn extents(
    view: &View,
    segments: &Segments,
    span: Span<DeviceAddr>,
    want: Want,
    mut each: impl FnMut(Extent) -> bool,
) -> bool {
    let mut open: Option<Extent> = None;
    let mut done = 0;
    while done < span.len() {
        // No overflow: the sum is an address inside the span.
        let addr = span.start().0 + done;
        let found = view.table.find(addr);
        let leaf = Leaf::from_word(found.word).filter(|_| want.met_by(found.word));
        let Some(leaf) = leaf else {
            open.map(each);
            return false;
        };
        // SAFETY: the caller's promise.
        let segment = unsafe { segments.get(leaf.segment()) };
        let (offset, len) = (found.offset_of(leaf, addr), found.rest(addr).min(span.len() - done));
        done += len;
        let next = Extent { segment, offset, len };
        match &mut open {
            // SAFETY: the caller's promise is this function's.
            Some(extent) if unsafe { extent.goes_on(&next) } => extent.len += len,
            Some(extent) => {
                if !each(core::mem::replace(extent, next)) {
                    return true;
                }
            }
            None => open = Some(next),
        }
    }
    open.map(each);
    true
}

/// Why a map of all of `span` fails, in the order of decision 1: the IOMMU first, over
/// the whole range, then memory. `None` if it does not, or not any more.
///
/// # Safety
/// As [`Segments::get`].
pub(crate) unsafe fn diagnose(
    view: &View,
    segments: &Segments,
    span: Span<DeviceAddr>,
    flags: MapFlags,
) -> Option<Reason> {
    if let Absent::Refused(refusal @ (Refusal::Unattached | Refusal::DenyDomain)) = view.absent {
        return Some(Reason::Refused { at: span.start(), refusal });
    }
    let mut search =
        Search { wanted: flags.access(), any: flags.accepts_any(), ..Search::default() };
    let mut done = 0;
    while done < span.len() {
        // No overflow: the sum is an address inside the span.
        let addr = DeviceAddr(span.start().0 + done);
        let found = view.table.find(addr.0);
        let Some(leaf) = found.leaf_at(addr.0) else { return Some(absent(view, addr)) };
        // SAFETY: the caller's promise.
        let guest = unsafe { guest_of(segments, leaf, addr.0 % GRANULE) };
        if let Some(refused) = search.look_at(addr, guest, leaf) {
            return Some(refused);
        }
        done += found.rest(addr.0).min(span.len() - done);
    }
    search.no_memory.or(search.not_ram).or(search.forbidden)
}

/// What memory has against the map, as far as the walk has come; the first of each kind.
#[derive(Default)]
struct Search {
    wanted: Access,
    any: bool,
    no_memory: Option<Reason>,
    not_ram: Option<Reason>,
    forbidden: Option<Reason>,
}

impl Search {
    /// Notes what speaks against one leaf; gives back the reason if the IOMMU refuses.
    fn look_at(&mut self, at: DeviceAddr, guest: u64, leaf: Leaf) -> Option<Reason> {
        let (allowed, wanted) = (leaf.allowed(), self.wanted);
        if !allowed.contains(wanted) {
            let refusal = Refusal::Access { allowed, wanted };
            return Some(Reason::Refused { at, refusal });
        }
        match leaf.behind() {
            Behind::Hole { .. } => {
                self.no_memory.get_or_insert(Reason::NoMemory { at: guest });
            }
            Behind::Memory { ram: false, .. } if !self.any => {
                self.not_ram.get_or_insert(Reason::NotRam { at: guest });
            }
            Behind::Memory { offered, .. } if !offered.contains(wanted) => {
                let reason = Reason::Forbidden { at: guest, offered, wanted };
                self.forbidden.get_or_insert(reason);
            }
            Behind::Memory { .. } => {}
        }
        None
    }
}

fn absent(view: &View, at: DeviceAddr) -> Reason {
    match view.absent {
        Absent::NoMemory => Reason::NoMemory { at: at.0 },
        Absent::Refused(refusal) => Reason::Refused { at, refusal },
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
            // SAFETY: the caller's promise.
            let segment = unsafe { segments.get(segment) };
            // SAFETY: as above: it lives.
            unsafe { segment.as_ref() }.guest(page * GRANULE + within).0
        }
    }
}
