//! The entry point of a device, or of the firmware, to the guest's memory, and the errors of maps
//! through it.

use std::sync::Arc;

use crate::addr::{Address, DeviceAddr, GuestPhys};
use crate::error::{Error, Location, Operation, Reason, Refusal, Result};
use crate::fault::FaultLog;
use crate::map_flags::MapFlags;
use crate::space::segment::Segments;
use crate::span::Span;
use crate::view::attachment::Attachment;

/// The part of a guest's state that a map reads.
pub(crate) struct Physical {
    pub(crate) segments: Segments,
    /// The guest's address width in bits.
    pub(crate) width: u32,
    /// Whether host-contiguous maps accept addresses that can change (decision 20).
    pub(crate) allow_unpinned: bool,
}

/// A device's, or the firmware's, entry point to the guest's memory.
#[derive(Clone, Copy)]
pub(crate) struct Port<'a> {
    pub(crate) attachment: &'a Attachment,
    pub(crate) guest: &'a Physical,
    pub(crate) vdev: u32,
    /// The device's name and the fault log; `None` for firmware.
    pub(crate) device: Option<(&'a Arc<str>, &'a FaultLog)>,
}

impl Port<'_> {
    /// The range `[addr, addr + len)`.
    #[inline]
    pub(crate) fn span(&self, op: Operation, addr: u64, len: u64) -> Result<Span<DeviceAddr>> {
        match Span::new(DeviceAddr::new(addr), len) {
            Ok(span) => Ok(span),
            Err(reason) => {
                Err(self.with_device(Error::new(op, self.location(DeviceAddr(addr)), len, reason)))
            }
        }
    }

    /// The error for a reason, which is recorded in the guest's fault log if the IOMMU refused.
    /// No slot of the caller may be busy.
    pub(crate) fn refused(
        &self,
        op: Operation,
        span: Span<DeviceAddr>,
        flags: MapFlags,
        reason: Reason,
    ) -> Error {
        if let (Some((device, faults)), Reason::Refused { addr, refusal }) = (self.device, reason) {
            faults.record(device, addr, flags.access(), refusal);
        }
        self.error(op, span, reason)
    }

    /// The error for a range that was refused at each look-up and allowed at each diagnosis,
    /// because the guest keeps changing its grants.
    #[cold]
    pub(crate) fn unsettled(
        &self,
        op: Operation,
        span: Span<DeviceAddr>,
        flags: MapFlags,
    ) -> Error {
        let (addr, refusal) = (span.start(), Refusal::NotGranted);
        let Some((device, faults)) = self.device else {
            return self.error(op, span, Reason::NoMemory { addr: GuestPhys(addr.0) });
        };
        faults.record(device, addr, flags.access(), refusal);
        self.error(op, span, Reason::Refused { addr, refusal })
    }

    /// An error about a range.
    #[cold]
    pub(super) fn error(&self, op: Operation, span: Span<DeviceAddr>, reason: Reason) -> Error {
        self.with_device(Error::new(op, self.location(span.start()), span.len(), reason))
    }

    /// The location of an error at `addr`: a guest-physical address for firmware.
    fn location(&self, addr: DeviceAddr) -> Location {
        match self.device {
            Some(_) => Location::Device(addr),
            None => Location::Guest(GuestPhys(addr.0)),
        }
    }

    /// Names the device, if there is one, in an error.
    fn with_device(&self, error: Error) -> Error {
        match self.device {
            Some((device, _)) => error.of(device),
            None => error,
        }
    }
}
