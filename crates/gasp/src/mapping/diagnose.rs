//! The reason of a refused map, found in steps.
#![allow(unsafe_code, reason = "reads views and segments under a busy slot")]

use super::failed::{Failed, Outcome};
use super::hold::{Hold, TOO_MANY};
use super::port::Port;
use crate::addr::DeviceAddr;
use crate::error::Reason;
use crate::map_flags::MapFlags;
use crate::span::Span;
use crate::view::View;
use crate::view::lookup::{Diagnosed, Diagnosis};

impl Port<'_> {
    /// Whether a map of all of a range would find it allowed and with memory, in one piece or
    /// several. It leaves no fault record.
    pub(crate) fn allows(&self, addr: u64, len: u64, flags: MapFlags) -> Outcome<bool> {
        let Ok(span) = Span::new(DeviceAddr(addr), len) else { return Ok(false) };
        // SAFETY: `diagnose` asks for a busy slot under which its view was found: it gets no view.
        match unsafe { self.diagnose(None, span, flags, || ()) } {
            Diagnosed::Allowed => Ok(true),
            Diagnosed::Refused(_) => Ok(false),
            Diagnosed::Missed(addr) => Err(Failed::Missed(addr)),
        }
    }

    /// Why a map of all of `span` fails, if it does. It begins with
    /// `busy_view`, if the caller's slot is busy with a view, and calls `pause` when that has to
    /// end.
    ///
    /// # Safety
    /// The slot under which `busy_view` was found is busy, until `pause` is called.
    #[inline(always)]
    pub(super) unsafe fn diagnose(
        &self,
        busy_view: Option<&View>,
        span: Span<DeviceAddr>,
        flags: MapFlags,
        pause: impl FnOnce(),
    ) -> Diagnosed {
        if span.last().0 >> self.guest.width != 0 {
            return Diagnosed::Refused(Reason::BeyondWidth { bits: self.guest.width });
        }
        let mut diagnosis = Diagnosis::new(span, flags);
        if let Some(view) = busy_view {
            // SAFETY: `Diagnosis::step` asks for a slot that is busy since before the table is
            // read: that under which `busy_view` was found is busy, as this function's contract
            // asks, and `pause` is called later. Nothing of the table is kept beyond this step.
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
    fn diagnose_on(&self, mut diagnosis: Diagnosis, span: Span<DeviceAddr>) -> Diagnosed {
        loop {
            let Some(step) = Hold::publish(span) else { return Diagnosed::Refused(TOO_MANY) };
            // SAFETY: `Attachment::view` asks that the caller's slot is busy, and that the view is
            // not used after that: the slot of `step` is busy until it is dropped, after the last
            // use of the view.
            let view = unsafe { self.attachment.view() };
            // SAFETY: `Diagnosis::step` asks for a slot that is busy since before the table is
            // read: that of `step`. Nothing of the table is kept beyond this step.
            if let Some(end) = unsafe { diagnosis.step(view, &self.guest.segments) } {
                return end;
            }
            drop(step);
        }
    }
}
