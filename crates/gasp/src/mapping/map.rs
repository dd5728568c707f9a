//! The map operations.
//!
//! Each publishes a slot, looks the range up, and establishes the slot. A refusal takes the
//! slow path, which finds the reason and records it in the guest's fault log.
#![allow(unsafe_code, reason = "reads views and segments under its own busy slot")]

use super::failed::{Failed, Outcome};
use super::handle::Mapping;
use super::hold::{Hold, TOO_MANY};
use super::host_mapping::HostMapping;
use super::port::Port;
use super::scatter::{Pieces, Scatter};
use crate::addr::DeviceAddr;
use crate::error::{Operation, Reason, Result};
use crate::map_flags::MapFlags;
use crate::memory::{HostRun, Stability};
use crate::span::Span;
use crate::view::entry::Want;
use crate::view::lookup::{self, Diagnosed, Extent, ExtentWalk, Progress};
use crate::view::{Absent, View};

/// How often a map is tried whose look-up was interrupted, or refused for a reason that is gone
/// when it is diagnosed.
const TRIES: u32 = 4;

/// The result of a look-up, and its slot.
struct LookedUp<'a> {
    hold: Hold,
    /// The number of the view that the range was looked up in.
    view_id: u32,
    /// That view, while the slot is busy; `None` if the slot holds all of the range.
    busy_view: Option<&'a View>,
    /// Whether all that was looked up is allowed and has memory.
    whole: bool,
    /// Whether what is absent in the view is a miss.
    misses: bool,
}

/// The treatment of a range of which only the beginning can be mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partial {
    /// Refuse (decisions 8 and 9).
    Refuse,
    /// Map the beginning (decision 9).
    Truncate,
    /// Map the beginning, which a miss ends as a refusal does: the translator has been asked.
    TruncateAtMiss,
}

impl Port<'_> {
    /// The short path of [`map`](Self::map), for the device that `find` returns. If it returns
    /// `None`, the caller calls `map`.
    #[inline(always)]
    pub(crate) fn map_page<'found>(
        find: impl FnOnce() -> Option<Port<'found>>,
        addr: u64,
        len: u64,
        flags: MapFlags,
    ) -> Option<Mapping> {
        let span = Span::new(DeviceAddr(addr), len).ok()?;
        // SAFETY: `look_up_page` asks that the view is not used after the slot: its number is read
        // before `hold` is established, and that is its last use.
        let (hold, port, view, extent) = unsafe { Self::look_up_page(find, span, flags) }?;
        hold.establish(view.id(), port.vdev);
        // SAFETY: `Mapping::new` asks that the extent was found after `hold` was published, that
        // `hold` is established for it, and that the memory offers the access: `look_up_page`
        // published `hold` first and found the extent with these flags; `hold` is established.
        Some(unsafe { Mapping::new(hold, extent, span.start(), flags.access()) })
    }

    /// The short path of [`map_host_contig`](Self::map_host_contig), for the device that `find`
    /// returns.
    #[inline(always)]
    pub(crate) fn map_host_contig_page<'found>(
        find: impl FnOnce() -> Option<Port<'found>>,
        addr: u64,
        len: u64,
        flags: MapFlags,
    ) -> Option<HostMapping> {
        let span = Span::new(DeviceAddr(addr), len).ok()?;
        // SAFETY: `look_up_page` asks that the view is not used after the slot: its number is read
        // before `hold` is established, and that is its last use.
        let (hold, port, view, mut extent) = unsafe { Self::look_up_page(find, span, flags) }?;
        // SAFETY: `run` asks for a slot under which the extent was found to be busy or
        // established: `look_up_page` found it under `hold`, which is busy.
        let run = unsafe { port.run(&extent) }.ok()?;
        extent.len = run.len;
        hold.shorten(last_of(span.start(), run.len));
        hold.establish(view.id(), port.vdev);
        // SAFETY: `Mapping::new` asks that the extent was found after `hold` was published, that
        // `hold` is established for it, and that the memory offers the access: `look_up_page`
        // published `hold` first and found the extent with these flags; `hold` is established for
        // the run, to which the extent was shortened.
        let mapping = unsafe { Mapping::new(hold, extent, span.start(), flags.access()) };
        Some(HostMapping::new(mapping, run))
    }

    /// The look-up of the short path: succeeds if the whole range lies in one page of the table
    /// and is not refused; `None` otherwise, without the reason. The slot that it returns is busy.
    ///
    /// `find` finds the device under the busy slot, for which threads that remove devices from a
    /// list wait: see [`grace_period`](crate::ffi::grace_period).
    ///
    /// # Safety
    /// The view is not used after the slot has been established or dropped.
    #[inline(always)]
    unsafe fn look_up_page<'found>(
        find: impl FnOnce() -> Option<Port<'found>>,
        span: Span<DeviceAddr>,
        flags: MapFlags,
    ) -> Option<(Hold, Port<'found>, &'found View, Extent)> {
        let hold = Hold::publish(span)?;
        let port = find()?;
        // SAFETY: `Attachment::view` asks that the caller's slot is busy, and that the view is not
        // used after that: `hold` is busy, and this function's contract asks the same of the
        // caller.
        let view = unsafe { port.attachment.view() };
        // SAFETY: `page` asks for a slot that is busy since before the table was read, and that
        // the segment is used only while it is busy or established: `hold` was published first,
        // is neither established nor dropped yet, and is returned with the extent.
        let extent = unsafe { lookup::page(view, &port.guest.segments, span, Want::new(flags)) }?;
        Some((hold, port, view, extent))
    }

    /// The host-physical run that an extent begins with, if the guest accepts its stability.
    ///
    /// # Safety
    /// The slot under which the extent was found is busy or established.
    #[inline(always)]
    unsafe fn run(&self, extent: &Extent) -> core::result::Result<HostRun, Reason> {
        // SAFETY: `as_ref` asks that the segment lives and is not mutably borrowed: the slot under
        // which the extent was found, which this function's contract asks to be busy or
        // established, keeps it alive, and segments are immutable.
        let object = unsafe { extent.segment.as_ref() }.object();
        let run = object.phys_run(extent.offset, extent.len)?;
        match object.stability() > Stability::Unpinned || self.guest.allow_unpinned {
            true => Ok(run),
            false => Err(Reason::Unpinned),
        }
    }

    /// Maps the whole range, consecutive in host-virtual memory.
    #[inline(never)]
    pub(crate) fn map(
        self,
        op: Operation,
        addr: u64,
        len: u64,
        flags: MapFlags,
    ) -> Outcome<Mapping> {
        let span = self.span(op, addr, len)?;
        for _ in 0..TRIES {
            let mut first = None;
            let Some(looked_up) = self.look_up(op, span, flags, keep_first(&mut first))? else {
                continue;
            };
            match first {
                Some(extent) if extent.len == span.len() => {
                    let hold = self.establish(looked_up);
                    // SAFETY: `Mapping::new` asks that the extent was found after `hold` was
                    // published, that `hold` is established for it, and that the memory offers
                    // the access: `look_up` published `hold` first and found the extent with
                    // these flags; `hold` is established for the whole span.
                    return Ok(unsafe { Mapping::new(hold, extent, span.start(), flags.access()) });
                }
                extent => {
                    let prefix = extent.map_or(0, |extent| extent.len);
                    self.refuse(op, looked_up, span, flags, prefix)?;
                }
            }
        }
        Err(self.unsettled(op, span, flags).into())
    }

    /// Maps the beginning of the range that is consecutive in host-physical memory.
    #[inline(never)]
    pub(crate) fn map_host_contig(
        self,
        addr: u64,
        len: u64,
        flags: MapFlags,
        partial: Partial,
    ) -> Outcome<HostMapping> {
        let op = Operation::MapHostContig;
        let span = self.span(op, addr, len)?;
        for _ in 0..TRIES {
            let mut first = None;
            let Some(mut looked_up) = self.look_up(op, span, flags, keep_first(&mut first))? else {
                continue;
            };
            let Some(mut extent) = first else {
                self.refuse(op, looked_up, span, flags, 0)?;
                continue;
            };
            let whole_wanted = partial == Partial::Refuse;
            let may_miss = partial == Partial::Truncate && looked_up.misses && !looked_up.whole;
            if extent.len < span.len() && (whole_wanted || may_miss) {
                // The slot keeps the extent during a long diagnosis: it is established before
                // revoking threads have to wait for it.
                let hold = &looked_up.hold;
                let pause = || hold.establish(looked_up.view_id, self.vdev);
                let busy_view = looked_up.busy_view.take();
                // SAFETY: `diagnose` asks that the slot under which the view was found is busy
                // until `pause` is called: `look_up` returns a view only if `hold` is busy, and
                // `pause` establishes it.
                match unsafe { self.diagnose(busy_view, span, flags, pause) } {
                    Diagnosed::Missed(addr) => return Err(Failed::Missed(addr)),
                    Diagnosed::Refused(reason) if whole_wanted => {
                        drop(looked_up);
                        return Err(self.refused(op, span, flags, reason).into());
                    }
                    Diagnosed::Refused(_) | Diagnosed::Allowed => {}
                }
            }
            // SAFETY: `run` asks for the slot under which the extent was found to be busy or
            // established: `looked_up.hold` is, and was published before the look-up.
            let run = match unsafe { self.run(&extent) } {
                Ok(run) => run,
                Err(reason) => return Err(self.error(op, span, reason).into()),
            };
            extent.len = run.len;
            looked_up.hold.shorten(last_of(span.start(), run.len));
            let hold = self.establish(looked_up);
            // SAFETY: `Mapping::new` asks that the extent was found after `hold` was published,
            // that `hold` is established for it, and that the memory offers the access: `look_up`
            // published `hold` first and found the extent with these flags; `hold` is established
            // for the run, to which the extent was shortened.
            let mapping = unsafe { Mapping::new(hold, extent, span.start(), flags.access()) };
            return Ok(HostMapping::new(mapping, run));
        }
        Err(self.unsettled(op, span, flags).into())
    }

    /// Maps all pieces of the range, in order.
    pub(crate) fn map_scatter(
        &self,
        op: Operation,
        addr: u64,
        len: u64,
        flags: MapFlags,
    ) -> Outcome<Scatter> {
        let span = self.span(op, addr, len)?;
        for _ in 0..TRIES {
            let mut pieces = Pieces::new();
            let collect = |extent| {
                pieces.push(extent);
                true
            };
            let Some(looked_up) = self.look_up(op, span, flags, collect)? else { continue };
            if looked_up.whole {
                let hold = self.establish(looked_up);
                // SAFETY: `Scatter::new` asks that all pieces were found after `hold` was
                // published, that `hold` is established for them, and that their memory offers
                // the access: `look_up` published `hold` first and found them with these flags;
                // `hold` is established for the whole span.
                return Ok(unsafe { Scatter::new(hold, pieces, span, flags.access()) });
            }
            self.refuse(op, looked_up, span, flags, 0)?;
        }
        Err(self.unsettled(op, span, flags).into())
    }

    /// Looks a range up, in steps, and calls `each` with its extents until it returns `false`.
    /// `None` if the device was moved, or the look-up was detached, meanwhile: the caller tries
    /// again.
    ///
    /// A revoking thread waits for busy slots, with locks held, so a long look-up must not be
    /// busy from its beginning to its end. After the first step its slot *holds* all of the
    /// range, as a mapping does: a revoke of any part of it from then on finds a holder. Its
    /// drain waits for that, without locks, until the look-up or the mapping ends, and keeps the
    /// memory that was found. Each further step has a busy slot of its own, so that what it reads
    /// is not freed during the step. A step refuses what was revoked before it; a revoke after it
    /// finds the holder; and if a drain has detached the holder meanwhile, the slot is marked.
    #[inline(always)]
    fn look_up<'port>(
        &'port self,
        op: Operation,
        span: Span<DeviceAddr>,
        flags: MapFlags,
        mut each: impl FnMut(Extent) -> bool,
    ) -> Result<Option<LookedUp<'port>>> {
        let mut walk = ExtentWalk::new(span, Want::new(flags));
        let hold = self.publish(op, span)?;
        // SAFETY: `Attachment::view` asks that the caller's slot is busy, and that the view is not
        // used after that: `hold` is busy until it is established or dropped, and `LookedUp` has
        // the view only until then.
        let view = unsafe { self.attachment.view() };
        // SAFETY: `step` asks for a slot that is busy since before the table is read, and that the
        // first step's slot is still busy or established for the span: `hold` is busy, and this
        // is the first step.
        let progress = unsafe { walk.step(view, &self.guest.segments, &mut each) };
        let (view_id, whole) = (view.id(), progress == Progress::Whole);
        if progress != Progress::More {
            let misses = view.absent == Absent::Missed;
            return Ok(Some(LookedUp { hold, view_id, busy_view: Some(view), whole, misses }));
        }
        self.look_up_further(op, span, walk, each, (hold, view_id))
    }

    /// The steps of a look-up after the first.
    #[cold]
    #[inline(never)]
    fn look_up_further<'port>(
        &'port self,
        op: Operation,
        span: Span<DeviceAddr>,
        mut walk: ExtentWalk,
        mut each: impl FnMut(Extent) -> bool,
        (hold, view_id): (Hold, u32),
    ) -> Result<Option<LookedUp<'port>>> {
        hold.establish(view_id, self.vdev);
        loop {
            let step = self.publish(op, span)?;
            // SAFETY: `Attachment::view` asks that the caller's slot is busy, and that the view is
            // not used after that: the slot of `step` is busy until it is dropped, below or on
            // return, and the view is not used after that.
            let view = unsafe { self.attachment.view() };
            if view.id() != view_id {
                return Ok(None);
            }
            // SAFETY: `ExtentWalk::step` asks for a slot that is busy since before the table is read,
            // and that the first step's slot is still busy or established for the span: the slot
            // of `step` is busy, and `hold`, which was busy in the first step, is established for
            // all of the span since.
            let progress = unsafe { walk.step(view, &self.guest.segments, &mut each) };
            let misses = view.absent == Absent::Missed;
            drop(step);
            if progress != Progress::More {
                let whole = progress == Progress::Whole;
                let detached = hold.is_revoked();
                return Ok((!detached).then_some(LookedUp {
                    hold,
                    view_id,
                    busy_view: None,
                    whole,
                    misses,
                }));
            }
        }
    }

    /// Establishes the slot of a look-up, for a mapping.
    fn establish(&self, looked_up: LookedUp<'_>) -> Hold {
        looked_up.hold.establish(looked_up.view_id, self.vdev);
        looked_up.hold
    }

    #[inline]
    fn publish(&self, op: Operation, span: Span<DeviceAddr>) -> Result<Hold> {
        match Hold::publish(span) {
            Some(hold) => Ok(hold),
            None => Err(self.error(op, span, TOO_MANY)),
        }
    }

    /// Ends a look-up that was refused: why, or `Ok` if there is no reason any more.
    #[cold]
    fn refuse(
        &self,
        op: Operation,
        looked_up: LookedUp<'_>,
        span: Span<DeviceAddr>,
        flags: MapFlags,
        prefix: u64,
    ) -> Outcome<()> {
        let mut hold = Some(looked_up.hold);
        // SAFETY: `diagnose` asks that the slot under which the view was found is busy until
        // `pause` is called: `look_up` returns a view only if `hold` is busy, and `pause` drops it.
        let end = unsafe { self.diagnose(looked_up.busy_view, span, flags, || drop(hold.take())) };
        // The fault log has a lock, and the owner of a busy slot must not wait for any lock.
        drop(hold);
        // If the walk was refused, the first extent ends at the refusal, not where consecutive
        // memory does.
        let scattered = looked_up.whole && 0 < prefix && prefix < span.len();
        match end {
            Diagnosed::Missed(addr) => Err(Failed::Missed(addr)),
            Diagnosed::Refused(reason) => Err(self.refused(op, span, flags, reason).into()),
            Diagnosed::Allowed if scattered => {
                Err(self.error(op, span, Reason::NotConsecutive { prefix }).into())
            }
            Diagnosed::Allowed => Ok(()),
        }
    }
}

/// Stores the first extent of a look-up, and ends it.
fn keep_first(first: &mut Option<Extent>) -> impl FnMut(Extent) -> bool {
    |extent| {
        *first = Some(extent);
        false
    }
}

/// The last address of a run of `len` bytes, at least one, inside a span from `start`.
#[inline]
fn last_of(start: DeviceAddr, len: u64) -> DeviceAddr {
    DeviceAddr(start.0 + (len - 1))
}
