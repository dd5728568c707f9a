//! The memory that a device reaches its rings in.

use std::sync::Arc;

use gasp::{DeviceAddr, Dma, MapFlags, Mapping, Scatter};
use thiserror::Error;

use super::outside::Outside;

/// Why a ring cannot be reached.
#[derive(Debug, Error)]
pub(crate) enum RingError {
    /// The guest's IOMMU, or its memory, does not allow it.
    #[error(transparent)]
    Engine(#[from] gasp::Error),
    /// The guest has not made the function a bus master, or no more.
    #[error("the device is not bus master")]
    NotBusMaster,
}

/// The memory of a vdev, unless that is held back.
#[derive(Clone, Debug)]
pub(super) struct RingMemory(pub(super) Arc<dyn Outside>);

impl RingMemory {
    fn vdev(&self) -> Result<&gasp::Vdev, RingError> {
        match self.0.is_held_back() {
            true => Err(RingError::NotBusMaster),
            false => Ok(self.0.vdev()),
        }
    }
}

impl Dma for RingMemory {
    type Error = RingError;

    fn map(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping, RingError> {
        Ok(self.vdev()?.map(addr, len, flags)?)
    }

    fn map_scatter(
        &self,
        addr: DeviceAddr,
        len: u64,
        flags: MapFlags,
    ) -> Result<Scatter, RingError> {
        Ok(self.vdev()?.map_scatter(addr, len, flags)?)
    }

    fn map_page(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping, RingError> {
        Ok(Dma::map_page(self.vdev()?, addr, len, flags)?)
    }

    fn allows(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> bool {
        self.vdev().is_ok_and(|vdev| vdev.allows(addr, len, flags))
    }

    fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> Result<(), RingError> {
        Ok(self.vdev()?.read(addr, into)?)
    }

    fn write(&self, addr: DeviceAddr, from: &[u8]) -> Result<(), RingError> {
        Ok(self.vdev()?.write(addr, from)?)
    }
}
