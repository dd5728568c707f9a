//! A machine with a bus, and one device on it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use gasp::{Guest, GuestPhys, Vdev};
use gasp_vdev::dma::{self, DmaEngine};
use gasp_vdev::{Bar, BarKind, Class, Device, DeviceContext, Identity, Model, Register, Shell};
use gasp_vm::pci::{Bdf, PciError, PciRoot};
use gasp_vm::{BusDevice, Interrupts};
use parking_lot::Mutex;

use crate::code::Code;
use crate::support::{Flat, PATIENCE, POWER_OFF};

pub(crate) const ECAM: u32 = 0xe000_0000;
pub(crate) const SLOT: u32 = 1 << 15;
/// Memory decoding and bus master.
pub(crate) const COMMAND: u32 = 0x06;

/// The machine's bus, with a DMA engine in the first free slot.
pub(crate) struct Rig {
    pub(crate) flat: Flat,
    pub(crate) pci: Arc<PciRoot>,
    pub(crate) at: Bdf,
    pub(crate) shell: Arc<Shell>,
}

impl Rig {
    pub(crate) fn new(interrupts: Interrupts) -> Self {
        Self::with(interrupts, DmaEngine::new())
    }

    pub(crate) fn with(interrupts: Interrupts, device: impl Device) -> Self {
        let flat = Flat::new(interrupts, &[]);
        let pci = Arc::new(PciRoot::new(&flat.machine).unwrap());
        let at = pci.free().unwrap();
        let shell = Arc::new(Shell::new("device", device).unwrap());
        pci.attach(at, Arc::clone(&shell), vdev(&flat.guest, "device")).unwrap();
        Self { flat, pci, at, shell }
    }

    /// Another DMA engine.
    pub(crate) fn attach(&self, at: Bdf) -> Result<Arc<Shell>, PciError> {
        let shell = Arc::new(Shell::new("other", DmaEngine::new()).unwrap());
        let vdev = vdev(&self.flat.guest, &format!("other {at}"));
        self.pci.attach(at, Arc::clone(&shell), vdev)?;
        Ok(shell)
    }

    /// Runs the code until it has switched the machine off.
    pub(crate) fn run(&self, code: Code) -> gasp_vm::Exits {
        self.put(0x1000, code.raw(POWER_OFF));
        self.flat.run().exits()
    }

    pub(crate) fn put(&self, addr: u64, code: Code) {
        self.flat.guest.write_firmware(GuestPhys(addr), code.bytes()).unwrap();
    }

    pub(crate) fn load<const N: usize>(&self, addr: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.flat.guest.read_firmware(GuestPhys(addr), &mut bytes).unwrap();
        bytes
    }

    pub(crate) fn read32(&self, addr: u64) -> u32 {
        let mut bytes = [0; 4];
        self.flat.machine.mmio().read(addr, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn write32(&self, addr: u64, value: u32) {
        self.flat.machine.mmio().write(addr, &value.to_le_bytes());
    }

    /// The address of a BAR, from its register.
    pub(crate) fn bar(&self, at: Bdf, index: u64) -> u64 {
        u64::from(self.read32(config_of(at) + 0x10 + 4 * index) & !0xf)
    }

    /// A copy by the engine behind the BAR at `bar`, as the guest's processor would start it.
    pub(crate) fn copies(&self, bar: u64) {
        let data: Vec<u8> = (0..=255).collect();
        self.flat.guest.write_firmware(GuestPhys(0x10_0000), &data).unwrap();
        self.flat.guest.write_firmware(GuestPhys(0x11_0000), &[0; 256]).unwrap();
        for (register, value) in [(0x08, 0x10_0000), (0x10, 0x11_0000), (0x18, 256)] {
            self.write32(bar + register, value);
            self.write32(bar + register + 4, 0);
        }
        self.write32(bar + 0x20, dma::START);
        let since = Instant::now();
        while self.read32(bar + 0x24) != dma::DONE {
            assert!(since.elapsed() < PATIENCE, "{:#x}", self.read32(bar + 0x24));
            std::thread::yield_now();
        }
        assert_eq!(self.load::<256>(0x11_0000), data[..]);
    }
}

pub(crate) fn vdev(guest: &Guest, name: &str) -> Vdev {
    guest.vdev(name).unwrap()
}

pub(crate) fn config_of(at: Bdf) -> u64 {
    u64::from(ECAM) + (u64::from(at.requester_id()) << 12)
}

/// Sends each byte that the guest writes to port 0x80.
pub(crate) struct Reports(Mutex<Sender<u8>>);

impl BusDevice for Reports {
    fn read(&self, _: u64, _: &mut [u8]) {}
    fn write(&self, _: u64, data: &[u8]) {
        let _ = self.0.lock().send(data[0]);
    }
}

pub(crate) fn reports(flat: &Flat) -> Receiver<u8> {
    let (sender, receiver) = channel();
    flat.machine.ports().add(0x80, 1, Arc::new(Reports(Mutex::new(sender)))).unwrap();
    receiver
}

pub(crate) const IDENTITY: Identity = Identity {
    vendor: 0x1234,
    device: 1,
    subsystem_vendor: 0,
    subsystem: 0,
    revision: 0,
    class: Class { base: 0xff, sub: 0, interface: 0 },
};

/// A function with each kind of BAR. Register 0 of each has the BAR's number.
pub(crate) struct Kinds;

impl Device for Kinds {
    fn model(&self) -> Model {
        let io = |index, size| Bar { kind: BarKind::Io, ..Bar::memory(index, size) };
        Model::new(IDENTITY).bar(io(0, 0x40)).bar(Bar::memory(1, 16)).bar(Bar::memory64(2, 1 << 33))
    }
    fn read(&self, _: &DeviceContext, at: Register) -> u64 {
        0x100 * u64::from(at.bar) + at.offset
    }
    fn write(&self, _: &DeviceContext, _: Register, _: u64) {}
    fn reset(&self) {}
}

/// Code at `HANDLER` that reports `what`, and waits for the next interrupt: not every KVM emulates a
/// return from one.
pub(crate) fn handler(what: u8) -> Code {
    Code::new().output(1, 0x80, what.into()).end_of_interrupt().wait_for_interrupts()
}

pub(crate) const HANDLER: u32 = 0x6000;
pub(crate) const OTHER_HANDLER: u32 = 0x6100;
