//! Looks at words of a view, without mapping anything.
#![allow(unsafe_code, reason = "reads segments under its own busy slot")]

use super::hold::{Hold, TOO_MANY};
use super::port::Port;
use crate::addr::{DeviceAddr, GRANULE, GuestPhys};
use crate::error::Reason;
use crate::space::segment::Segments;
use crate::span::Span;
use crate::view::View;
use crate::view::entry::{Behind, Leaf};
use crate::view::lookup::guest_of;

/// The leaf for the granule of `addr`, and the last address that the same word stands for; `None`
/// if there is none, or the thread has no slot left.
pub(crate) fn peek(view: &View, addr: DeviceAddr) -> Option<(Leaf, DeviceAddr)> {
    // Nodes of the table are freed only after a scan, which waits for the slot.
    let _busy = Hold::publish(Span::new(addr, 1).ok()?)?;
    let found = view.table.find(addr.0);
    let leaf = found.leaf_at(addr.0)?;
    Some((leaf, DeviceAddr(addr.0 + (found.rest(addr.0) - 1))))
}

/// The guest-physical address that `addr` leads to in a view.
///
/// # Safety
/// The view and the segments are of the same guest.
pub(crate) unsafe fn target(
    view: &View,
    segments: &Segments,
    addr: DeviceAddr,
) -> Option<GuestPhys> {
    let _busy = Hold::publish(Span::new(addr, 1).ok()?)?;
    let leaf = view.table.find(addr.0).leaf_at(addr.0)?;
    // SAFETY: `guest_of` asks that the leaf was found in a table of the guest of `segments`, which
    // is the contract of this function, and that the slot under which it was found is busy: `_busy`
    // was published before the look-up and is not dropped yet.
    let guest = unsafe { guest_of(segments, leaf, addr.0 % GRANULE) };
    Some(GuestPhys(guest))
}

impl Port<'_> {
    /// What is behind `span` of guest memory, if the firmware's view has one word for all of it.
    ///
    /// # Errors
    /// If the thread has no slot left.
    pub(crate) fn behind(&self, span: Span<GuestPhys>) -> Result<Option<Behind>, Reason> {
        let (first, last) = (span.start().0, span.last().0);
        let Some(_busy) = Hold::publish(Span::new(DeviceAddr(first), 1)?) else {
            return Err(TOO_MANY);
        };
        // SAFETY: `Attachment::view` asks that the caller's slot is busy, and that the view is not
        // used after that: `_busy` is busy until it is dropped, after the last use of the view.
        let view = unsafe { self.attachment.view() };
        let found = view.table.find(first);
        let hole = Behind::Hole { guest_page: first / GRANULE };
        let behind = found.leaf_at(first).map_or(hole, Leaf::behind);
        Ok(found.covers(first, last).then_some(behind))
    }
}
