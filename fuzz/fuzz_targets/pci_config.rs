//! A guest that writes what it likes to PCI configuration space, BARs and MSI-X tables: nothing
//! panics, hangs or grows, and after a reset the device is as it was.
//!
//! It needs `/dev/kvm`; without, nothing is tested, and it says so.

#![no_main]

use std::error::Error;
use std::sync::{Arc, OnceLock};

use gasp::{Guest, MemoryObject, Residency};
use gasp_vdev::{Shell, dma::DmaEngine, dma::MAGIC};
use gasp_vm::Machine;
use gasp_vm::layout::PCI_CONFIG;
use gasp_vm::pci::{Bdf, PciRoot};
use libfuzzer_sys::fuzz_target;

/// One machine for all inputs; each begins with a reset of its device.
struct Rig {
    machine: Machine,
    pci: PciRoot,
    at: Bdf,
    /// Its BARs, before anything is written.
    home: [u64; 2],
}

impl Rig {
    fn new() -> Result<Self, Box<dyn Error>> {
        let guest = Guest::builder().build()?;
        let ram = MemoryObject::ram(1 << 20).residency(Residency::OnDemand).create()?;
        guest.space().add_ram(None, &ram)?;
        let machine = Machine::builder().build(&guest)?;
        let pci = PciRoot::new(&machine)?;
        let at = pci.free().ok_or("the bus is full")?;
        let shell = Arc::new(Shell::new("dma", DmaEngine::new())?);
        pci.attach(at, shell, guest.vdev("dma")?)?;
        let mut rig = Self { machine, pci, at, home: [0; 2] };
        rig.home = [0x10, 0x14].map(|register| rig.read32(rig.config() + register));
        Ok(rig)
    }

    fn config(&self) -> u64 {
        PCI_CONFIG.0.0 + (u64::from(self.at.requester_id()) << 12)
    }

    fn read32(&self, addr: u64) -> u64 {
        let mut bytes = [0; 4];
        self.machine.mmio().read(addr, &mut bytes);
        u32::from_le_bytes(bytes).into()
    }
}

fuzz_target!(|input: &[u8]| {
    static RIG: OnceLock<Option<Rig>> = OnceLock::new();
    let rig =
        RIG.get_or_init(|| Rig::new().map_err(|why| eprintln!("nothing is tested: {why}")).ok());
    let Some(rig) = rig else { return };
    let (ports, mmio) = (rig.machine.ports(), rig.machine.mmio());
    for step in input.chunks_exact(12).take(256) {
        let [kind, width, low, high, data @ ..] = step else { continue };
        let len = usize::from(width % 8) + 1;
        let offset = u64::from(u16::from_le_bytes([*low, *high]));
        let mut data = data.to_vec();
        let data = &mut data[..len];
        let (bus, addr) = match kind % 5 {
            0 => (ports, 0xcf0 + offset % 24),
            1 => (mmio, PCI_CONFIG.0.0 + offset * 16),
            2 => (mmio, rig.config() + offset % 0x100),
            3 => (mmio, rig.home[usize::from(kind >> 7)] + offset % 0x1000),
            _ => (mmio, (rig.read32(rig.config() + 0x14) & !0xf) + offset % 0x1000),
        };
        bus.write(addr, data);
        bus.read(addr, data);
    }
    rig.pci.reset(rig.at).expect("it is there");
    mmio.write(rig.config() + 4, &[2, 0]);
    assert_eq!(rig.read32(rig.home[0]), u64::from(MAGIC));
});
