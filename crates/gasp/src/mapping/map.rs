//! The map operations.
//!
//! Each publishes a slot, looks the range up, and establishes the slot; a refusal takes
//! the slow path, which finds out why and tells the guest's fault log.
#![allow(unsafe_code, reason = "reads views and segments under its own busy slot")]

use std::sync::Arc;

use super::handle::Mapping;
use super::hold::{Hold, TOO_MANY};
use super::host_mapping::HostMapping;
use super::scatter::{Pieces, Scatter};
use crate::addr::{Address, DeviceAddr, GuestPhys};
use crate::error::{Error, Operation, Place, Reason, Refusal, Result};
use crate::fault::FaultLog;
use crate::map_flags::MapFlags;
use crate::memory::{HostRun, Stability};
use crate::space::segment::Segments;
use crate::span::Span;
use crate::view::entry::Want;
use crate::view::lookup::{self, Diagnosis, Extent, Progress, Walk};
use crate::view::{Attachment, View};

/// What a map has to know of the guest itself.
pub(crate) struct Physical {
    pub(crate) segments: Segments,
    /// The guest's address width in bits.
    pub(crate) width: u32,
    /// Whether host-physical addresses that can change are told, too (decision 20).
    pub(crate) allow_unpinned: bool,
}

/// Where a device, or the firmware, enters the guest's memory.
#[derive(Clone, Copy)]
pub(crate) struct Port<'a> {
    pub(crate) attachment: &'a Attachment,
    pub(crate) guest: &'a Physical,
    pub(crate) vdev: u32,
    /// The device, for errors and faults; firmware has none.
    pub(crate) device: Option<(&'a Arc<str>, &'a FaultLog)>,
}

/// How often a refusal that is gone when one looks for its reason is tried again.
const TRIES: u32 = 4;

/// The slot under which a range was looked up.
struct Found<'a> {
    hold: Hold,
    /// The number of the view that it was looked up in.
    view: u32,
    /// That view, while the slot is busy; else the slot holds all of the range.
    busy: Option<&'a View>,
    /// Whether all that was asked for is allowed and memory.
    whole: bool,
}

/// What to do where only the beginning of a range can be mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partial {
    /// Refuse (decisions 8 and 9).
    Refuse,
    /// Map what is allowed.
    Truncate,
}

impl Port<'_> {
    /// The short way of [`map`](Self::map), for the device that `find` finds: it is for those
    /// who call `map` if it returns `None`.
    #[inline(always)]
    pub(crate) fn map_page<'found>(
        find: impl FnOnce() -> Option<Port<'found>>,
        addr: u64,
        len: u64,
        flags: MapFlags,
    ) -> Option<Mapping> {
        let span = Span::new(DeviceAddr(addr), len).ok()?;
        let (hold, port, view, extent) = Self::look_up_page(find, span, flags)?;
        hold.establish(view.id(), port.vdev);
        // SAFETY: found under this slot, which is established for it.
        Some(unsafe { Mapping::new(hold, extent, span.start(), flags.access()) })
    }

    /// The short way of [`map_host_contig`](Self::map_host_contig), for the device that `find`
    /// finds.
    #[inline(always)]
    pub(crate) fn map_host_contig_page<'found>(
        find: impl FnOnce() -> Option<Port<'found>>,
        addr: u64,
        len: u64,
        flags: MapFlags,
    ) -> Option<HostMapping> {
        let span = Span::new(DeviceAddr(addr), len).ok()?;
        let (hold, port, view, mut extent) = Self::look_up_page(find, span, flags)?;
        // SAFETY: the slot is busy.
        let run = unsafe { port.run(&extent) }.ok()?;
        extent.len = run.len;
        hold.shorten(last_of(span.start(), run.len));
        hold.establish(view.id(), port.vdev);
        // SAFETY: found under this slot, which is established for it.
        let mapping = unsafe { Mapping::new(hold, extent, span.start(), flags.access()) };
        Some(HostMapping::new(mapping, run))
    }

    /// The short way: the whole range lies in one page of the table and nothing speaks
    /// against it. `None` says nothing about why it does not. The slot that comes back is
    /// busy; the view is not used any more once it no longer is.
    ///
    /// `find` finds the device under the busy slot, for which those who take devices out of a
    /// list wait: see [`grace_period`](crate::ffi::grace_period).
    #[inline(always)]
    fn look_up_page<'found>(
        find: impl FnOnce() -> Option<Port<'found>>,
        span: Span<DeviceAddr>,
        flags: MapFlags,
    ) -> Option<(Hold, Port<'found>, &'found View, Extent)> {
        let hold = Hold::publish(span)?;
        let port = find()?;
        // SAFETY: the slot is busy.
        let view = unsafe { port.attachment.view() };
        // SAFETY: `page` asks for a slot that is busy since before the table was read: `hold`
        // was published first, and is neither established nor dropped yet.
        let extent = unsafe { lookup::page(view, &port.guest.segments, span, Want::new(flags)) }?;
        Some((hold, port, view, extent))
    }

    /// The host-physical run that an extent begins with, if its address may be told.
    ///
    /// # Safety
    /// The slot under which the extent was found is busy or established.
    #[inline(always)]
    unsafe fn run(&self, extent: &Extent) -> core::result::Result<HostRun, Reason> {
        // SAFETY: the segment lives: the caller has a slot that is busy or established for
        // the extent, as this function's contract asks, and that keeps it.
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
    ) -> Result<Mapping> {
        let span = self.span(op, addr, len)?;
        for _ in 0..TRIES {
            let mut first = None;
            let Some(found) = self.look_up(op, span, flags, keep_first(&mut first))? else {
                continue;
            };
            match first {
                Some(extent) if extent.len == span.len() => {
                    let hold = self.establish(found);
                    // SAFETY: found under this slot, which is established for it.
                    return Ok(unsafe { Mapping::new(hold, extent, span.start(), flags.access()) });
                }
                extent => {
                    let prefix = extent.map_or(0, |extent| extent.len);
                    self.refuse(op, found, span, flags, prefix)?;
                }
            }
        }
        Err(self.unsettled(op, span, flags))
    }

    /// Maps as much of the range as is consecutive in host-physical memory.
    #[inline(never)]
    pub(crate) fn map_host_contig(
        self,
        addr: u64,
        len: u64,
        flags: MapFlags,
        partial: Partial,
    ) -> Result<HostMapping> {
        let op = Operation::MapHostContig;
        let span = self.span(op, addr, len)?;
        for _ in 0..TRIES {
            let mut first = None;
            let Some(mut found) = self.look_up(op, span, flags, keep_first(&mut first))? else {
                continue;
            };
            let Some(mut extent) = first else {
                self.refuse(op, found, span, flags, 0)?;
                continue;
            };
            if extent.len < span.len() && partial == Partial::Refuse {
                // The extent stays: what is busy becomes a mapping before others have to wait.
                let hold = &found.hold;
                let pause = || hold.establish(found.view, self.vdev);
                if let Some(reason) = self.diagnose(found.busy.take(), span, flags, pause) {
                    drop(found);
                    return Err(self.refused(op, span, flags, reason));
                }
            }
            // SAFETY: the slot is busy or established since before the extent was found.
            let run = match unsafe { self.run(&extent) } {
                Ok(run) => run,
                Err(reason) => return Err(self.error(op, span, reason)),
            };
            extent.len = run.len;
            found.hold.shorten(last_of(span.start(), run.len));
            let hold = self.establish(found);
            // SAFETY: found under this slot, which is established for it.
            let mapping = unsafe { Mapping::new(hold, extent, span.start(), flags.access()) };
            return Ok(HostMapping::new(mapping, run));
        }
        Err(self.unsettled(op, span, flags))
    }

    /// Maps all pieces of the range, in order.
    pub(crate) fn map_scatter(
        &self,
        op: Operation,
        addr: u64,
        len: u64,
        flags: MapFlags,
    ) -> Result<Scatter> {
        let span = self.span(op, addr, len)?;
        for _ in 0..TRIES {
            let mut pieces = Pieces::new();
            let collect = |extent| {
                pieces.push(extent);
                true
            };
            let Some(found) = self.look_up(op, span, flags, collect)? else { continue };
            if found.whole {
                let hold = self.establish(found);
                // SAFETY: found under this slot, which is established for all of them.
                return Ok(unsafe { Scatter::new(hold, pieces, span, flags.access()) });
            }
            self.refuse(op, found, span, flags, 0)?;
        }
        Err(self.unsettled(op, span, flags))
    }

    /// Looks a range up, in steps, and calls `each` with its extents until it says `false`.
    /// `None` if device or range have changed hands meanwhile: try again.
    ///
    /// A revoking thread waits for busy slots, with locks held, so a long look-up must not be
    /// busy from its beginning to its end. After the first step its slot *holds* all of the
    /// range, as a mapping does: whatever is revoked of it from then on finds a holder, which
    /// its drain waits for, without locks, until the look-up or the mapping ends; and keeps
    /// what was found. Each further step has a busy slot of its own, so that what it reads is
    /// not freed under it. What was revoked before a step is refused by it; what is revoked
    /// after it finds the holder; and what has been given up on meanwhile is marked.
    #[inline(always)]
    fn look_up<'port>(
        &'port self,
        op: Operation,
        span: Span<DeviceAddr>,
        flags: MapFlags,
        mut each: impl FnMut(Extent) -> bool,
    ) -> Result<Option<Found<'port>>> {
        let mut walk = Walk::new(span, Want::new(flags));
        let hold = self.publish(op, span)?;
        // SAFETY: the slot is busy until `establish` or the drop of `hold`.
        let view = unsafe { self.attachment.view() };
        // SAFETY: `step` asks for a busy slot since before the table is read, which `hold` is;
        // this being the first step, nothing was found under another.
        let progress = unsafe { walk.step(view, &self.guest.segments, &mut each) };
        let (id, whole) = (view.id(), progress == Progress::Whole);
        if progress != Progress::More {
            return Ok(Some(Found { hold, view: id, busy: Some(view), whole }));
        }
        self.go_on(op, span, walk, each, (hold, id))
    }

    /// The steps of a look-up after the first.
    #[cold]
    #[inline(never)]
    fn go_on<'port>(
        &'port self,
        op: Operation,
        span: Span<DeviceAddr>,
        mut walk: Walk,
        mut each: impl FnMut(Extent) -> bool,
        (hold, id): (Hold, u32),
    ) -> Result<Option<Found<'port>>> {
        hold.establish(id, self.vdev);
        loop {
            let step = self.publish(op, span)?;
            // SAFETY: the slot is busy until the drop of `step`.
            let view = unsafe { self.attachment.view() };
            if view.id() != id {
                return Ok(None);
            }
            // SAFETY: the slot of `step` is busy for what this step reads, and `hold`, which was
            // busy in the first step, is established for all of the span since.
            let progress = unsafe { walk.step(view, &self.guest.segments, &mut each) };
            drop(step);
            if progress != Progress::More {
                let whole = progress == Progress::Whole;
                let given_up = hold.is_revoked();
                return Ok((!given_up).then_some(Found { hold, view: id, busy: None, whole }));
            }
        }
    }

    /// Turns what was found into a mapping.
    fn establish(&self, found: Found<'_>) -> Hold {
        found.hold.establish(found.view, self.vdev);
        found.hold
    }

    #[inline]
    fn span(&self, op: Operation, addr: u64, len: u64) -> Result<Span<DeviceAddr>> {
        match Span::new(DeviceAddr::new(addr), len) {
            Ok(span) => Ok(span),
            Err(reason) => {
                Err(self.name(Error::new(op, self.place(DeviceAddr(addr)), len, reason)))
            }
        }
    }

    #[inline]
    fn publish(&self, op: Operation, span: Span<DeviceAddr>) -> Result<Hold> {
        match Hold::publish(span) {
            Some(hold) => Ok(hold),
            None => Err(self.error(op, span, TOO_MANY)),
        }
    }

    /// A map failed; no error where the reason is gone by now.
    #[cold]
    fn refuse(
        &self,
        op: Operation,
        found: Found<'_>,
        span: Span<DeviceAddr>,
        flags: MapFlags,
        prefix: u64,
    ) -> Result<()> {
        let mut hold = Some(found.hold);
        let reason = self.diagnose(found.busy, span, flags, || drop(hold.take()));
        // The fault log has a lock, and nobody who has a lock may wait for a busy slot's owner.
        drop(hold);
        // Where the walk was refused, the first extent ends there, and memory may well go on.
        let scattered = found.whole && 0 < prefix && prefix < span.len();
        match reason.or(scattered.then_some(Reason::NotConsecutive { prefix })) {
            Some(reason) => Err(self.refused(op, span, flags, reason)),
            None => Ok(()),
        }
    }

    /// Why a map of all of `span` fails, if it does. Begins with the view `busy`, if the
    /// caller's slot is busy with it, and calls `pause` when that has to end.
    #[inline(always)]
    fn diagnose(
        &self,
        busy: Option<&View>,
        span: Span<DeviceAddr>,
        flags: MapFlags,
        pause: impl FnOnce(),
    ) -> Option<Reason> {
        if span.last().0 >> self.guest.width != 0 {
            return Some(Reason::BeyondWidth { bits: self.guest.width });
        }
        let mut diagnosis = Diagnosis::new(span, flags);
        if let Some(view) = busy {
            // SAFETY: the caller's slot is busy.
            if let Some(end) = unsafe { diagnosis.step(view, &self.guest.segments) } {
                return end;
            }
        }
        pause();
        self.diagnose_on(diagnosis, span)
    }

    /// The steps of a diagnosis that need a busy slot of their own.
    #[cold]
    #[inline(never)]
    fn diagnose_on(&self, mut diagnosis: Diagnosis, span: Span<DeviceAddr>) -> Option<Reason> {
        loop {
            let Some(step) = Hold::publish(span) else { return Some(TOO_MANY) };
            // SAFETY: the slot is busy until the drop of `step`.
            let view = unsafe { self.attachment.view() };
            // SAFETY: what the table names lives while the slot of `step` is busy, and nothing
            // of it is kept beyond this step.
            if let Some(end) = unsafe { diagnosis.step(view, &self.guest.segments) } {
                return end;
            }
            drop(step);
        }
    }

    /// An error with its reason; the guest's fault log hears of the IOMMU's. No slot of the
    /// caller is busy.
    fn refused(
        &self,
        op: Operation,
        span: Span<DeviceAddr>,
        flags: MapFlags,
        reason: Reason,
    ) -> Error {
        if let (Some((device, faults)), Reason::Refused { at, refusal }) = (self.device, reason) {
            faults.record(device, at, flags.access(), refusal);
        }
        self.error(op, span, reason)
    }

    /// The range was refused each time it was looked up and allowed each time its reason
    /// was looked for: the guest keeps changing its mind.
    #[cold]
    fn unsettled(&self, op: Operation, span: Span<DeviceAddr>, flags: MapFlags) -> Error {
        let (at, refusal) = (span.start(), Refusal::NotGranted);
        let Some((device, faults)) = self.device else {
            return self.error(op, span, Reason::NoMemory { at: GuestPhys(at.0) });
        };
        faults.record(device, at, flags.access(), refusal);
        self.error(op, span, Reason::Refused { at, refusal })
    }

    #[cold]
    fn error(&self, op: Operation, span: Span<DeviceAddr>, reason: Reason) -> Error {
        self.name(Error::new(op, self.place(span.start()), span.len(), reason))
    }

    fn place(&self, addr: DeviceAddr) -> Place {
        match self.device {
            Some(_) => Place::Device(addr),
            None => Place::Guest(crate::addr::GuestPhys(addr.0)),
        }
    }

    fn name(&self, error: Error) -> Error {
        match self.device {
            Some((device, _)) => error.of(device),
            None => error,
        }
    }
}

/// Ends a look-up after its first extent.
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
