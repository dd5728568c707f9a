//! The registers of vdevs on the buses of a machine.

use std::sync::Arc;

use gasp_qvm::{Decoder, Space};
use gasp_vm::{Bus, BusDevice, BusError, Machine};

/// Addresses or ports, of which the decoder knows whose they are. Those of a vdev's own region are
/// kept from other devices; the fallback of the bus has the regions that vdevs make themselves.
struct Window {
    decoder: Arc<Decoder>,
    space: Space,
    base: u64,
}

impl BusDevice for Window {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.decoder.read(self.space, self.base.wrapping_add(offset), data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.decoder.write(self.space, self.base.wrapping_add(offset), data);
    }
}

/// Registers on the buses of a machine, until this is dropped.
pub(super) struct Windows {
    decoder: Arc<Decoder>,
    memory: Arc<Bus>,
    ports: Arc<Bus>,
    starts: Vec<(Space, u64)>,
}

impl Windows {
    pub(super) fn new(machine: &Machine, decoder: &Arc<Decoder>) -> Self {
        let (memory, ports) = (Arc::clone(machine.mmio()), Arc::clone(machine.ports()));
        for (bus, space) in [(&memory, Space::Memory), (&ports, Space::Ports)] {
            let decoder = Arc::clone(decoder);
            bus.set_fallback(Some(Arc::new(Window { decoder, space, base: 0 })));
        }
        Self { decoder: Arc::clone(decoder), memory, ports, starts: Vec::new() }
    }

    fn bus(&self, space: Space) -> &Bus {
        if space == Space::Ports { &self.ports } else { &self.memory }
    }

    /// Adds registers.
    pub(super) fn add(&mut self, space: Space, start: u64, len: u64) -> Result<(), BusError> {
        let decoder = Arc::clone(&self.decoder);
        self.bus(space).add(start, len, Arc::new(Window { decoder, space, base: start }))?;
        self.starts.push((space, start));
        Ok(())
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        for &(space, start) in &self.starts {
            drop(self.bus(space).remove(start));
        }
        self.memory.set_fallback(None);
        self.ports.set_fallback(None);
        self.decoder.clear();
    }
}
