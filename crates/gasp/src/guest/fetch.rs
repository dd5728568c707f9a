//! Maps of devices whose domain asks: what a map misses is fetched, and the map tried again.
#![allow(unsafe_code, reason = "says which guest a domain is of")]

use std::sync::Arc;

use super::attached::Owner;
use super::vdev::{Request, Vdev};
use crate::addr::{DeviceAddr, GRANULE};
use crate::error::{Error, Reason, Result};
use crate::iommu::Fetched;
use crate::map_flags::MapFlags;
use crate::mapping::{Failed, Outcome, Partial, Port};
use crate::span::Span;

/// How often a map is tried. Each time all that is missing is fetched, and kept from being evicted
/// until the map has been tried again: it misses once more only if the guest invalidates meanwhile.
const TRIES: u32 = 64;
/// How much a map that may end before its range does fetches at first; twice as much each time.
const AHEAD: u64 = 8 * GRANULE;

impl Vdev {
    /// Calls `map` until it no longer misses.
    #[inline]
    pub(super) fn fetching<T>(
        &self,
        request: Request,
        mut map: impl FnMut(Port<'_>) -> Outcome<T>,
    ) -> Result<T> {
        match map(self.port()) {
            Ok(mapped) => Ok(mapped),
            Err(Failed::Error(error)) => Err(error),
            Err(Failed::Missed(addr)) => {
                self.fetch(request, addr, Partial::Refuse, |port, _| map(port))
            }
        }
    }

    /// As [`fetching`](Self::fetching), for a map that may end before the range does.
    #[inline]
    pub(super) fn fetching_part<T>(
        &self,
        request: Request,
        partial: Partial,
        mut map: impl FnMut(Port<'_>, Partial) -> Outcome<T>,
    ) -> Result<T> {
        match map(self.port(), partial) {
            Ok(mapped) => Ok(mapped),
            Err(Failed::Error(error)) => Err(error),
            Err(Failed::Missed(addr)) => self.fetch(request, addr, partial, map),
        }
    }

    /// Fetches what is missing from `missed` on, and maps again.
    #[cold]
    #[inline(never)]
    pub(super) fn fetch<T>(
        &self,
        request: Request,
        missed: DeviceAddr,
        partial: Partial,
        map: impl FnMut(Port<'_>, Partial) -> Outcome<T>,
    ) -> Result<T> {
        let Request { op, addr, len, flags } = request;
        let span = self.port().span(op, addr.0, len)?;
        self.fetched(span, flags, missed, partial, map).map_err(|unfetched| match unfetched {
            Unfetched::Refused(reason, domain) => {
                let error = self.port().refused(op, span, flags, reason);
                if let Some(domain) = domain {
                    domain.tell_refused(flags.access(), reason);
                }
                error
            }
            Unfetched::Unsettled => self.port().unsettled(op, span, flags),
            Unfetched::Error(error) => error,
        })
    }

    /// [`allows`](Self::allows), of a range of which something is missing from `missed` on: asks the
    /// translator, and records no fault.
    #[cold]
    #[inline(never)]
    pub(super) fn allows_fetched(
        &self,
        (addr, len): (DeviceAddr, u64),
        flags: MapFlags,
        missed: DeviceAddr,
    ) -> bool {
        let Ok(span) = Span::new(addr, len) else { return false };
        let allows = |port: Port<'_>, _| port.allows(addr.0, len, flags);
        self.fetched(span, flags, missed, Partial::Refuse, allows).unwrap_or(false)
    }

    /// Fetches what is missing of `span` from `missed` on, and calls `map` again, until it no longer
    /// misses.
    fn fetched<T>(
        &self,
        span: Span<DeviceAddr>,
        flags: MapFlags,
        mut missed: DeviceAddr,
        mut partial: Partial,
        mut map: impl FnMut(Port<'_>, Partial) -> Outcome<T>,
    ) -> core::result::Result<T, Unfetched> {
        let mut shortened = 0;
        // A map that may end before the range does may not need all of it.
        let mut ahead = if partial == Partial::Refuse { u64::MAX } else { AHEAD };
        for _ in 0..TRIES {
            let last = span.last().min(DeviceAddr(missed.0.saturating_add(ahead - 1)));
            let ahead_span = Span::inclusive(span.start(), last).unwrap_or(span);
            ahead = ahead.saturating_mul(2);
            let domain = self.inner.domain.asking();
            let firmware = self.guest.firmware_port();
            let fetched = match &domain {
                // SAFETY: `fetch` asks that the firmware's port is of the guest whose domain this is:
                // it is of `self.guest`, and a device is attached only to domains of its guest.
                Some(domain) => unsafe {
                    domain.fetch(firmware, ahead_span, missed, flags.access())
                },
                // Moved meanwhile.
                None => Ok(Fetched::Nothing),
            };
            let fetched = match fetched {
                Ok(fetched) => fetched,
                // The beginning can be mapped. Not if it is refused itself, or fails for a reason
                // which gives way to this one (decision 1); then it comes to this again. So it does
                // if what follows the beginning has taken its place in a full table, but once.
                Err(reason)
                    if partial != Partial::Refuse
                        && shortened < 2
                        && is_past(reason, span.start()) =>
                {
                    shortened += 1;
                    partial = Partial::TruncateAtMiss;
                    Fetched::Nothing
                }
                // What the domain says that the device was moved away from does not matter.
                Err(_) if !self.is_attached_to(domain.as_ref()) => Fetched::Nothing,
                Err(reason) => return Err(Unfetched::Refused(reason, domain.clone())),
            };
            let mapped = map(self.port(), partial);
            drop(fetched);
            match mapped {
                Ok(mapped) => return Ok(mapped),
                Err(Failed::Error(error)) => return Err(Unfetched::Error(error)),
                Err(Failed::Missed(addr)) => missed = addr,
            }
        }
        Err(Unfetched::Unsettled)
    }

    /// Whether the device has not been moved since `domain` was looked for on this thread.
    fn is_attached_to(&self, domain: Option<&Arc<Owner>>) -> bool {
        self.inner.domain.asking().as_ref().map(Arc::as_ptr) == domain.map(Arc::as_ptr)
    }
}

/// Why a map that has missed fails.
enum Unfetched {
    /// What it needs is refused, by this domain.
    Refused(Reason, Option<Arc<Owner>>),
    /// The guest has invalidated what it needs each time.
    Unsettled,
    /// The error of the map itself.
    Error(Error),
}

/// Whether a map from `addr` on can end before what this reason is about.
fn is_past(reason: Reason, addr: DeviceAddr) -> bool {
    match reason {
        Reason::Refused { addr: refused, .. } => refused.0 / GRANULE > addr.0 / GRANULE,
        reason => matches!(reason, Reason::Limit { .. }),
    }
}
