//! Maps of devices whose domain asks: what a map misses is fetched, and the map tried again.

use std::sync::Arc;

use super::vdev::{Request, Vdev};
use crate::addr::{DeviceAddr, GRANULE};
use crate::error::{Reason, Result};
use crate::iommu::Fetched;
use crate::map_flags::MapFlags;
use crate::mapping::{Failed, Outcome, Partial, Port};
use crate::span::Span;

/// How often a map is tried. Each time all that is missing is fetched, and kept from being evicted
/// until the map has been tried again: it misses once more only if the guest invalidates meanwhile.
const TRIES: u32 = 64;

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
        mut missed: DeviceAddr,
        mut partial: Partial,
        mut map: impl FnMut(Port<'_>, Partial) -> Outcome<T>,
    ) -> Result<T> {
        let Request { op, addr, len, flags } = request;
        let span = self.port().span(op, addr.0, len)?;
        let mut shortened = 0;
        for _ in 0..TRIES {
            let domain = self.inner.domain().as_ref().map(Arc::clone);
            let firmware = self.guest.firmware_port();
            let fetched = match &domain {
                Some(domain) => domain.fetch(firmware, span, missed, flags.access()),
                // Moved meanwhile.
                None => Ok(Fetched::Nothing),
            };
            let fetched = match fetched {
                Ok(fetched) => fetched,
                // The beginning can be mapped. Not if it is refused itself, or fails for a reason
                // which gives way to this one (decision 1); then it comes to this again. So it does
                // if what follows the beginning has taken its place in a full table, but once.
                Err(reason)
                    if partial != Partial::Refuse && shortened < 2 && is_past(reason, addr) =>
                {
                    shortened += 1;
                    partial = Partial::TruncateAtMiss;
                    Fetched::Nothing
                }
                Err(reason) => return Err(self.port().refused(op, span, flags, reason)),
            };
            let mapped = map(self.port(), partial);
            drop(fetched);
            match mapped {
                Ok(mapped) => return Ok(mapped),
                Err(Failed::Error(error)) => return Err(error),
                Err(Failed::Missed(addr)) => missed = addr,
            }
        }
        Err(self.port().unsettled(op, span, flags))
    }

    /// [`allows`](Self::allows), of a range of which something is missing from `missed` on: asks the
    /// translator, and records no fault.
    #[cold]
    #[inline(never)]
    pub(super) fn allows_fetched(
        &self,
        (addr, len): (DeviceAddr, u64),
        flags: MapFlags,
        mut missed: DeviceAddr,
    ) -> bool {
        let Ok(span) = Span::new(addr, len) else { return false };
        for _ in 0..TRIES {
            let domain = self.inner.domain().as_ref().map(Arc::clone);
            let firmware = self.guest.firmware_port();
            let fetched = match &domain {
                Some(domain) => domain.fetch(firmware, span, missed, flags.access()),
                None => Ok(Fetched::Nothing),
            };
            if fetched.is_err() {
                return false;
            }
            match self.port().allows(addr.0, len, flags) {
                Ok(allows) => return allows,
                Err(Failed::Missed(addr)) => missed = addr,
                Err(Failed::Error(_)) => return false,
            }
        }
        false
    }
}

/// Whether a map from `addr` on can end before what this reason is about.
fn is_past(reason: Reason, addr: DeviceAddr) -> bool {
    match reason {
        Reason::Refused { addr: refused, .. } => refused.0 / GRANULE > addr.0 / GRANULE,
        reason => matches!(reason, Reason::Limit { .. }),
    }
}
