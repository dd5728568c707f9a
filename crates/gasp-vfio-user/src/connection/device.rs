//! What the device is, and its reset.

use vfio_bindings::bindings::vfio;

use super::Connection;
use crate::report::Happened;
use crate::wire::{Fields, Refused, Reply};

/// The bytes of the device's information.
const SIZE: u32 = 16;

impl Connection<'_> {
    pub(super) fn device_info(&self, payload: &[u8]) -> Result<Reply, Refused> {
        check_info(payload, SIZE)?;
        let flags = vfio::VFIO_DEVICE_FLAGS_RESET | vfio::VFIO_DEVICE_FLAGS_PCI;
        let (regions, irqs) = (vfio::VFIO_PCI_NUM_REGIONS, vfio::VFIO_PCI_NUM_IRQS);
        Ok(Reply::new().u32(SIZE).u32(flags).u32(regions).u32(irqs))
    }

    pub(super) fn reset(&self, payload: &[u8]) -> Result<Reply, Refused> {
        Fields::new(payload).end()?;
        self.server.shell.reset();
        self.server.counters.tell(|| Happened::Reset);
        Ok(Reply::new())
    }
}

/// Checks a question for information: as long as the answer, and with room for it. Gives
/// back the room, and the third field, which is the index where there is one.
pub(super) fn check_info(payload: &[u8], size: u32) -> Result<(u32, u32), Refused> {
    let mut fields = Fields::new(payload);
    let (argsz, _flags, index) = (fields.u32()?, fields.u32()?, fields.u32()?);
    if argsz < size || payload.len() < size as usize {
        return Err(Refused::invalid(format!("argsz is {argsz}, and {size} is needed")));
    }
    Ok((argsz, index))
}
