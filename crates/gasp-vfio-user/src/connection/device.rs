//! The device's information, features and reset.

use vfio_bindings::bindings::vfio;

use super::state::Connection;
use crate::report::ServerEvent;
use crate::wire::{DeviceInfo, Fields, Refused, Reply};

impl Connection<'_> {
    pub(super) fn device_info(&self, payload: &[u8]) -> Result<Reply, Refused> {
        let argsz = size_of::<DeviceInfo>() as u32;
        check_info(payload, argsz)?;
        Ok(Reply::new().put(&DeviceInfo {
            argsz,
            flags: vfio::VFIO_DEVICE_FLAGS_RESET | vfio::VFIO_DEVICE_FLAGS_PCI,
            regions: vfio::VFIO_PCI_NUM_REGIONS,
            irqs: vfio::VFIO_PCI_NUM_IRQS,
        }))
    }

    pub(super) fn reset(&self, payload: &[u8]) -> Result<Reply, Refused> {
        Fields::new(payload).end()?;
        self.service.shell.reset();
        let counters = &self.service.counters;
        counters.report_limited(&counters.routine, || ServerEvent::Reset);
        Ok(Reply::new())
    }
}

/// The operations on a feature: bits of the flags, above the feature's number.
const FEATURE_GET: u32 = vfio::VFIO_DEVICE_FEATURE_GET;
const FEATURE_SET: u32 = vfio::VFIO_DEVICE_FEATURE_SET;
const FEATURE_PROBE: u32 = vfio::VFIO_DEVICE_FEATURE_PROBE;

/// Refuses DEVICE_FEATURE: a device has no feature here. The kernel answers the same for a
/// device without features.
pub(super) fn feature(payload: &[u8]) -> Refused {
    let [argsz, flags] = match Fields::new(payload).read::<[u32; 2]>() {
        Ok(fields) => fields,
        Err(refused) => return refused,
    };
    let known = vfio::VFIO_DEVICE_FEATURE_MASK | FEATURE_GET | FEATURE_SET | FEATURE_PROBE;
    let both = flags & (FEATURE_GET | FEATURE_SET | FEATURE_PROBE) == FEATURE_GET | FEATURE_SET;
    match (argsz as usize) < payload.len() || flags & !known != 0 || both {
        true => Refused::invalid(format!("argsz {argsz}, flags {flags:#x} of a feature")),
        false => Refused::new(gasp::Errno::NOTTY, "the device has no such feature"),
    }
}

/// Checks a query for information: it must be at least as long as the fixed part of the
/// reply, with room for that part, and no longer than that room. A client may send the
/// buffer that it has for the reply; its contents past the index are ignored. Returns the
/// room (`argsz`), and the third field, which is the index if the query has one.
pub(super) fn check_info(payload: &[u8], size: u32) -> Result<(u32, u32), Refused> {
    let [argsz, _flags, index] = Fields::new(payload).read::<[u32; 3]>()?;
    if argsz < size || payload.len() < size as usize {
        return Err(Refused::invalid(format!("argsz is {argsz}, less than {size}")));
    }
    if payload.len() > argsz as usize {
        let what = format!("{} bytes, more than argsz, which is {argsz}", payload.len());
        return Err(Refused::invalid(what));
    }
    Ok((argsz, index))
}
