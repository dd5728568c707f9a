//! The map operations.
//!
//! Each publishes a slot, looks the range up, and establishes the slot; a refusal takes
//! the slow path, which finds out why and tells the guest's fault log.
#![allow(unsafe_code, reason = "reads views and segments under its own busy slot")]

use std::sync::Arc;

use super::handle::Mapping;
use super::lane::{Hold, Lane};
use super::scatter::{Pieces, Scatter};
use crate::access::MapFlags;
use crate::addr::{Address, DeviceAddr};
use crate::error::{Error, Operation, Place, Reason, Refusal, Result};
use crate::fault::FaultLog;
use crate::span::Span;
use crate::view::entry::Want;
use crate::view::lookup::{self, Extent};
use crate::view::segment::Segments;
use crate::view::{Attachment, View};

/// Where a device, or the firmware, enters the guest's memory.
#[derive(Clone, Copy)]
pub(crate) struct Port<'a> {
    pub(crate) attachment: &'a Attachment,
    pub(crate) segments: &'a Segments,
    pub(crate) vdev: u32,
    /// The guest's address width in bits.
    pub(crate) width: u32,
    /// The device, for errors and faults; firmware has none.
    pub(crate) device: Option<(&'a Arc<str>, &'a FaultLog)>,
}

/// How often a refusal that is gone when one looks for its reason is tried again.
const TRIES: u32 = 4;

/// What to do where only the beginning of a range can be mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partial {
    /// Refuse (decisions 8 and 9).
    Refuse,
    /// Map what is allowed.
    Truncate,
}

impl Port<'_> {
    /// Maps the whole range, consecutive in host-virtual memory.
    #[inline(always)]
    pub(crate) fn map(
        self,
        op: Operation,
        addr: u64,
        len: u64,
        flags: MapFlags,
    ) -> Result<Mapping> {
        let span = self.span(op, addr, len)?;
        if let Some((hold, view, extent)) = self.look_up_page(span, flags) {
            hold.establish(view.id(), self.vdev);
            // SAFETY: found under this slot, which is established for it.
            return Ok(unsafe { Mapping::new(hold, extent, span.start(), flags.access()) });
        }
        self.map_across(op, span, flags)
    }

    /// Maps as much of the range as is consecutive in host-physical memory.
    #[inline(always)]
    pub(crate) fn map_host_contig(
        self,
        addr: u64,
        len: u64,
        flags: MapFlags,
        partial: Partial,
    ) -> Result<Mapping> {
        let span = self.span(Operation::MapHostContig, addr, len)?;
        if let Some((hold, view, mut extent)) = self.look_up_page(span, flags) {
            // SAFETY: the slot is busy.
            let object = unsafe { extent.segment.as_ref() }.object();
            if let Ok(run) = object.phys_run(extent.offset, extent.len) {
                extent.len = run.len;
                hold.shorten(last_of(span.start(), run.len));
                hold.establish(view.id(), self.vdev);
                // SAFETY: found under this slot, which is established for it.
                return Ok(unsafe { Mapping::new(hold, extent, span.start(), flags.access()) });
            }
        }
        self.map_host_contig_across(span, flags, partial)
    }

    /// The short way of [`map`](Self::map) for a device that is in a list which others
    /// take devices out of. It is looked for under the busy slot, for which those others
    /// wait: see [`grace_period`](super::grace_period).
    #[inline(always)]
    pub(crate) fn map_page_of(
        find: impl FnOnce() -> Option<Self>,
        addr: u64,
        len: u64,
        flags: MapFlags,
        host_contig: bool,
    ) -> Option<Mapping> {
        let span = Span::new(DeviceAddr(addr), len).ok()?;
        let hold = Lane::with(|lane| lane.publish(span)).ok()?;
        let port = find()?;
        // SAFETY: the slot is busy.
        let view = unsafe { port.attachment.view() };
        // SAFETY: as above.
        let mut extent = unsafe { lookup::page(view, port.segments, span, Want::new(flags)) }?;
        if host_contig {
            // SAFETY: the slot is busy.
            let object = unsafe { extent.segment.as_ref() }.object();
            extent.len = object.phys_run(extent.offset, extent.len).ok()?.len;
            hold.shorten(last_of(span.start(), extent.len));
        }
        hold.establish(view.id(), port.vdev);
        // SAFETY: found under this slot, which is established for it.
        Some(unsafe { Mapping::new(hold, extent, span.start(), flags.access()) })
    }

    /// The short way: the whole range lies in one page of the table and nothing speaks
    /// against it. `None` says nothing about why it does not. The slot that comes back is
    /// busy; the view is not used any more once it no longer is.
    #[inline(always)]
    fn look_up_page(
        &self,
        span: Span<DeviceAddr>,
        flags: MapFlags,
    ) -> Option<(Hold, &View, Extent)> {
        let hold = Lane::with(|lane| lane.publish(span)).ok()?;
        // SAFETY: the slot is busy.
        let view = unsafe { self.attachment.view() };
        // SAFETY: as above.
        let extent = unsafe { lookup::page(view, self.segments, span, Want::new(flags)) }?;
        Some((hold, view, extent))
    }

    #[inline(never)]
    fn map_across(self, op: Operation, span: Span<DeviceAddr>, flags: MapFlags) -> Result<Mapping> {
        for _ in 0..TRIES {
            let hold = self.publish(op, span)?;
            // SAFETY: the slot is busy until `establish` or the drop of `hold`.
            let view = unsafe { self.attachment.view() };
            // SAFETY: as above.
            let extent = unsafe { lookup::extent(view, self.segments, span, Want::new(flags)) };
            match extent {
                Some(extent) if extent.len == span.len() => {
                    hold.establish(view.id(), self.vdev);
                    // SAFETY: found under this slot, which is established for it.
                    return Ok(unsafe { Mapping::new(hold, extent, span.start(), flags.access()) });
                }
                extent => {
                    let prefix = extent.map_or(0, |extent| extent.len);
                    let reason = self.diagnose(view, span, flags);
                    self.refuse(op, hold, span, flags, reason, prefix)?;
                }
            }
        }
        Err(self.unsettled(op, span, flags))
    }

    #[inline(never)]
    fn map_host_contig_across(
        self,
        span: Span<DeviceAddr>,
        flags: MapFlags,
        partial: Partial,
    ) -> Result<Mapping> {
        let op = Operation::MapHostContig;
        for _ in 0..TRIES {
            let hold = self.publish(op, span)?;
            // SAFETY: the slot is busy until `establish` or the drop of `hold`.
            let view = unsafe { self.attachment.view() };
            // SAFETY: as above.
            let found = unsafe { lookup::extent(view, self.segments, span, Want::new(flags)) };
            let Some(mut extent) = found else {
                let reason = self.diagnose(view, span, flags);
                self.refuse(op, hold, span, flags, reason, 0)?;
                continue;
            };
            if extent.len < span.len()
                && partial == Partial::Refuse
                && let Some(reason) = self.diagnose(view, span, flags)
            {
                return Err(self.refused(op, hold, span, flags, reason));
            }
            // SAFETY: the slot is busy.
            let object = unsafe { extent.segment.as_ref() }.object();
            let run = match object.phys_run(extent.offset, extent.len) {
                Ok(run) => run,
                Err(reason) => return Err(self.error(op, span, reason)),
            };
            extent.len = run.len;
            hold.shorten(last_of(span.start(), run.len));
            hold.establish(view.id(), self.vdev);
            // SAFETY: found under this slot, which is established for it.
            return Ok(unsafe { Mapping::new(hold, extent, span.start(), flags.access()) });
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
        let want = Want::new(flags);
        for _ in 0..TRIES {
            let hold = self.publish(op, span)?;
            // SAFETY: the slot is busy until `establish` or the drop of `hold`.
            let view = unsafe { self.attachment.view() };
            match self.pieces(view, span, want) {
                Some(pieces) => {
                    hold.establish(view.id(), self.vdev);
                    // SAFETY: found under this slot, which is established for all of them.
                    return Ok(unsafe { Scatter::new(hold, pieces, span, flags.access()) });
                }
                None => {
                    let reason = self.diagnose(view, span, flags);
                    self.refuse(op, hold, span, flags, reason, 0)?;
                }
            }
        }
        Err(self.unsettled(op, span, flags))
    }

    /// The extents of the range; `None` where part of it is refused. Called with a busy
    /// slot.
    fn pieces(&self, view: &View, span: Span<DeviceAddr>, want: Want) -> Option<Pieces> {
        let mut pieces = Pieces::new();
        let collect = |extent| {
            pieces.push(extent);
            true
        };
        // SAFETY: `map_scatter`, the only caller, has a busy slot.
        let whole = unsafe { lookup::extents(view, self.segments, span, want, collect) };
        whole.then_some(pieces)
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
        match Lane::with(|lane| lane.publish(span)) {
            Ok(hold) => Ok(hold),
            Err(reason) => Err(self.error(op, span, reason)),
        }
    }

    /// A map failed, for this reason; no error where the reason is gone by now.
    #[cold]
    fn refuse(
        &self,
        op: Operation,
        hold: Hold,
        span: Span<DeviceAddr>,
        flags: MapFlags,
        reason: Option<Reason>,
        prefix: u64,
    ) -> Result<()> {
        let scattered = 0 < prefix && prefix < span.len();
        match reason.or(scattered.then_some(Reason::NotConsecutive { prefix })) {
            Some(reason) => Err(self.refused(op, hold, span, flags, reason)),
            None => Ok(()),
        }
    }

    /// Why a map of all of `span` fails, if it does. Called with a busy slot.
    fn diagnose(&self, view: &View, span: Span<DeviceAddr>, flags: MapFlags) -> Option<Reason> {
        if span.last().0 >> self.width != 0 {
            return Some(Reason::BeyondWidth { bits: self.width });
        }
        // SAFETY: the callers have a busy slot.
        unsafe { lookup::diagnose(view, self.segments, span, flags) }
    }

    /// An error with its reason; the guest's fault log hears of the IOMMU's.
    fn refused(
        &self,
        op: Operation,
        hold: Hold,
        span: Span<DeviceAddr>,
        flags: MapFlags,
        reason: Reason,
    ) -> Error {
        // The log has a lock, and nobody who has a lock may wait for a busy slot's owner.
        drop(hold);
        if let (Some((device, faults)), Reason::Refused { at, refusal }) = (self.device, reason) {
            faults.record(device, at, flags.access(), refusal);
        }
        self.error(op, span, reason)
    }

    /// The range was refused each time it was looked up and allowed each time its reason
    /// was looked for: the guest keeps changing its mind.
    #[cold]
    fn unsettled(&self, op: Operation, span: Span<DeviceAddr>, flags: MapFlags) -> Error {
        let (at, refusal) = (span.start(), Refusal::NoRule);
        let Some((device, faults)) = self.device else {
            return self.error(op, span, Reason::NoMemory { at: at.0 });
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

/// The last address of a run of `len` bytes, at least one, inside a span from `start`.
#[inline]
fn last_of(start: DeviceAddr, len: u64) -> DeviceAddr {
    DeviceAddr(start.0 + (len - 1))
}
