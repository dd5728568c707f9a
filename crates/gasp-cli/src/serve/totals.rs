//! How a device stands, and what is new since the last look.

use core::sync::atomic::Ordering;
use std::time::Instant;

use super::device::Served;
use super::event::{Event, FaultOf, Snapshot};

/// What was seen at the last look.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) now: Snapshot,
    /// Maps and unmaps each second.
    pub(super) rate: f64,
    seen: Option<(Instant, u64)>,
}

impl Totals {
    /// Looks again; gives back what has happened that nobody told.
    ///
    /// Faults are kept by the guest's IOMMU until they are read, and lost with it: those in
    /// the last moment of a VMM may not be counted.
    pub(super) fn look(&mut self, server: &Served) -> Option<Event> {
        let event = server.server.guest().and_then(|guest| {
            let faults = guest.take_faults();
            let count = faults.records.len() as u64 + faults.dropped;
            server.faults.fetch_add(count, Ordering::Relaxed);
            let first = faults.records.first().map(|fault| FaultOf {
                addr: fault.addr.0,
                access: fault.access.to_string(),
                reason: fault.refusal.to_string(),
            });
            (count > 0).then_some(Event::Faults { count, first })
        });
        self.now = server.snapshot();
        self.measure();
        event
    }

    /// The rate over the last second or so.
    fn measure(&mut self) {
        let (now, moved) = (Instant::now(), self.now.maps + self.now.unmaps);
        let Some((since, before)) = self.seen else {
            self.seen = Some((now, moved));
            return;
        };
        let elapsed = now.duration_since(since).as_secs_f64();
        if elapsed >= 1.0 {
            #[expect(clippy::cast_precision_loss, reason = "a rate, to be read by a person")]
            let moved_since = moved.saturating_sub(before) as f64;
            self.rate = moved_since / elapsed;
            self.seen = Some((now, moved));
        }
    }
}
