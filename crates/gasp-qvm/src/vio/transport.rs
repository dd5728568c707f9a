//! Accesses, by the transport that the device has.

use gasp_virtio::transport::CommonConfig;

use super::mmio;
use super::registers::{Fixed, Read, Transport, Wrote};

impl Fixed {
    /// A read of `len` bytes, 1 to 8.
    pub(super) fn read(
        &self,
        common: &CommonConfig,
        generation: u8,
        offset: u64,
        len: usize,
    ) -> Read {
        match self.transport {
            Transport::Mmio => mmio::read(self, common, generation, offset, len),
            Transport::Pci => self.read_pci(common, generation, offset, len),
        }
    }

    /// A write of 1 to 8 bytes.
    pub(super) fn write(&self, common: &mut CommonConfig, offset: u64, bytes: &[u8]) -> Wrote {
        match self.transport {
            Transport::Mmio => mmio::write(self, common, offset, bytes),
            Transport::Pci => self.write_pci(common, offset, bytes),
        }
    }
}
