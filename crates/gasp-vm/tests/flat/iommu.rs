//! Devices behind the guest's own IOMMU.

use core::time::Duration;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use gasp::{DeviceAddr, Guest, GuestPhys, MapFlags, MemoryObject, Unattached, Vdev};
use gasp_vdev::Shell;
use gasp_vdev::dma::{self, DmaEngine};
use gasp_vm::pci::{Bdf, PciRoot};
use gasp_vm::{BusDevice, Interrupts, Iommu, Machine, acpi, layout};
use parking_lot::Mutex;

use crate::code::{Code, interrupt_tables};
use crate::support::{Flat, PATIENCE, Trials, ram};

pub(crate) fn trials() -> Trials {
    vec![
        ("iommu_that_the_guest_programs_translates_and_interrupts_for_a_fault", programmed),
        ("iommu_invalidation_completes_after_the_mapping_that_is_held", held),
        ("iommu_is_reset_for_a_new_machine_and_is_in_its_tables", new_machine),
        ("iommu_leads_to_the_host_physical_address_of_the_guests_buffer", host_physical),
    ]
}

const UNIT: u32 = layout::IOMMU.0 as u32;
const GCMD: u32 = UNIT + 0x18;
const RTADDR: u32 = UNIT + 0x20;
const FSTS: u32 = UNIT + 0x34;
const FECTL: u32 = UNIT + 0x38;
const IQT: u32 = UNIT + 0x88;
const IQA: u32 = UNIT + 0x90;
const TE: u32 = 1 << 31;
const SRTP: u32 = 1 << 30;
const QIE: u32 = 1 << 26;

/// Tables of the guest: root, context, and three levels of pages.
const ROOT: u32 = 0x20_0000;
const CONTEXT: u32 = 0x20_1000;
const TOP: u32 = 0x20_2000;
const MIDDLE: u32 = 0x20_3000;
const PAGES: u32 = 0x20_4000;
const QUEUE: u32 = 0x20_5000;
/// Where the device reads and writes, and where that is.
const SOURCE: u32 = 0x5000;
const TARGET: u32 = 0x6000;
const FROM: u32 = 0x10_0000;
const TO: u32 = 0x11_0000;

const HANDLER: u32 = 0x9000;
const VECTOR: u8 = 0x42;

struct Rig {
    flat: Flat,
    iommu: Iommu,
    pci: PciRoot,
    at: Bdf,
    shell: Arc<Shell>,
    vdev: Vdev,
}

impl Rig {
    fn new() -> Self {
        Self::with_ram(&ram(4 << 20))
    }

    fn with_ram(ram: &MemoryObject) -> Self {
        let guest = Guest::builder().iommu(Unattached::Bypass).build().unwrap();
        guest.space().add_ram(None, ram).unwrap();
        let iommu = Iommu::new(&guest).unwrap();
        let (at, vdev) = (Bdf::new(0, 1, 0).unwrap(), guest.vdev("engine").unwrap());
        iommu.attach(at, &vdev).unwrap().wait();
        let shell = Arc::new(Shell::new("engine", DmaEngine::new()).unwrap());
        Self::on(guest, iommu, at, shell, vdev)
    }

    /// On a new machine.
    fn on(guest: Guest, iommu: Iommu, at: Bdf, shell: Arc<Shell>, vdev: Vdev) -> Self {
        let machine = Machine::builder().interrupts(Interrupts::Kernel).build(&guest).unwrap();
        iommu.connect(&machine).unwrap();
        assert!(iommu.connect(&machine).is_err(), "its registers are there");
        let pci = PciRoot::new(&machine).unwrap();
        pci.attach(at, Arc::clone(&shell), vdev.clone()).unwrap();
        Self { flat: Flat { guest, machine }, iommu, pci, at, shell, vdev }
    }

    /// The same on a new machine.
    fn again(self) -> Self {
        let Self { flat, iommu, pci, at, shell, vdev } = self;
        drop(pci);
        let guest = flat.guest.clone();
        drop(flat);
        Self::on(guest, iommu, at, shell, vdev)
    }

    fn put(&self, addr: u32, bytes: &[u8]) {
        self.flat.guest.write_firmware(GuestPhys(addr.into()), bytes).unwrap();
    }

    fn load<const N: usize>(&self, addr: u32) -> [u8; N] {
        let mut bytes = [0; N];
        self.flat.guest.read_firmware(GuestPhys(addr.into()), &mut bytes).unwrap();
        bytes
    }

    fn read32(&self, addr: u32) -> u32 {
        let mut bytes = [0; 4];
        self.flat.machine.mmio().read(addr.into(), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn write32(&self, addr: u32, value: u32) {
        self.flat.machine.mmio().write(addr.into(), &value.to_le_bytes());
    }

    fn config(&self) -> u32 {
        layout::PCI_CONFIG.0.0 as u32 + (u32::from(self.at.requester_id()) << 12)
    }

    /// Writes the tables, and enables translation, as a driver does.
    fn translate(&self) {
        for (addr, entry) in tables() {
            self.put(addr, &entry.to_le_bytes());
        }
        self.write32(RTADDR, ROOT);
        self.write32(GCMD, SRTP);
        self.write32(GCMD, TE);
    }
}

/// The entries of the tables. Bit 0 is present, or readable; bit 1 writable.
fn tables() -> [(u32, u64); 7] {
    let context = CONTEXT + 8 * 16; // 00:01.0
    [
        (ROOT, u64::from(CONTEXT) | 1),
        (context, u64::from(TOP) | 1),
        (context + 8, 1 << 8 | 1), // domain 1, three levels
        (TOP, u64::from(MIDDLE) | 3),
        (MIDDLE, u64::from(PAGES) | 3),
        (PAGES + (SOURCE >> 12) * 8, u64::from(FROM) | 1),
        (PAGES + (TARGET >> 12) * 8, u64::from(TO) | 3),
    ]
}

/// Starts a copy of 64 bytes.
fn copy(code: Code, bar: u32, target: u32) -> Code {
    code.store64(bar + 0x08, SOURCE.into())
        .store64(bar + 0x10, target.into())
        .store64(bar + 0x18, 64)
        .store32(bar + 0x20, dma::START)
}

/// Sends each byte that the guest writes to port 0x80.
struct Reports(Mutex<std::sync::mpsc::Sender<u8>>);

impl BusDevice for Reports {
    fn read(&self, _: u64, _: &mut [u8]) {}
    fn write(&self, _: u64, data: &[u8]) {
        let _ = self.0.lock().send(data[0]);
    }
}

fn programmed() {
    let rig = Rig::new();
    let (sender, reports) = channel();
    rig.flat.machine.ports().add(0x80, 1, Arc::new(Reports(Mutex::new(sender)))).unwrap();
    interrupt_tables(&rig.flat, &[(VECTOR, HANDLER)]);
    let handler = Code::new().output(1, 0x80, 7).end_of_interrupt().wait_for_interrupts();
    rig.put(HANDLER, handler.bytes());
    rig.put(FROM, &[0x5a; 64]);
    let bar = rig.read32(rig.config() + 0x10) & !0xf;
    let mut code = Code::new().take_interrupts().store16(rig.config() + 4, 6);
    for (addr, entry) in tables() {
        code = code.store64(addr, entry);
    }
    code = code
        .store32(RTADDR, ROOT)
        .store32(GCMD, SRTP)
        .store32(GCMD, TE)
        // The fault event: data, address, and last the mask.
        .store32(FECTL + 4, VECTOR.into())
        .store32(FECTL + 8, 0xfee0_0000)
        .store32(FECTL, 0);
    let code = copy(code, bar, TARGET).output(1, 0x80, 1).wait_for_interrupts();
    rig.put(0x1000, code.bytes());
    let running = rig.flat.start();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(1), "{:?}", running.ending());
    let wait_for = |status| {
        let since = Instant::now();
        while rig.read32(bar + 0x24) != status {
            assert!(since.elapsed() < PATIENCE, "{:#x}", rig.read32(bar + 0x24));
            std::thread::yield_now();
        }
    };
    wait_for(dma::DONE);
    assert_eq!(rig.load::<64>(TO), [0x5a; 64]);
    assert_eq!(rig.load::<64>(TARGET), [0; 64], "translated");
    assert_eq!(reports.recv_timeout(Duration::from_millis(20)).ok(), None, "no fault");

    // A page that may only be read.
    rig.write32(bar + 0x10, SOURCE);
    rig.write32(bar + 0x20, dma::START);
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(7), "the interrupt of the fault");
    wait_for(dma::FAILED);
    assert_eq!(rig.read32(FSTS) & 2, 2, "a fault is pending");
    // The record: the page, then reason 5 of 00:01.0, for a write.
    assert_eq!([0x600, 0x608, 0x60c].map(|at| rig.read32(UNIT + at)), [SOURCE, 8, 1 << 31 | 5]);
    let faults = rig.flat.guest.take_faults();
    assert_eq!(&*faults.records[0].device, "engine");
    assert_eq!(rig.load::<64>(FROM), [0x5a; 64]);
}

fn held() {
    let rig = Rig::new();
    rig.translate();
    let mapping = rig.vdev.map(DeviceAddr(SOURCE.into()), 512, MapFlags::READ).unwrap();
    // Domain 1 is invalidated, then a wait writes 1.
    let [status, queue] = [QUEUE + 0x800, QUEUE];
    rig.put(PAGES + (SOURCE >> 12) * 8, &[0; 8]);
    rig.put(queue, &(1_u64 << 16 | 2 << 4 | 2).to_le_bytes());
    rig.put(queue + 16, &(1_u64 << 32 | 1 << 5 | 5).to_le_bytes());
    rig.put(queue + 24, &u64::from(status).to_le_bytes());
    rig.write32(IQA, queue);
    rig.write32(GCMD, TE | QIE);
    rig.write32(IQT, 32);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(rig.load::<4>(status), [0; 4], "the mapping is held");
    assert!(rig.vdev.map(DeviceAddr(SOURCE.into()), 512, MapFlags::READ).is_err(), "gone");
    drop(mapping);
    let since = Instant::now();
    while rig.load::<4>(status) != [1, 0, 0, 0] {
        assert!(since.elapsed() < PATIENCE, "the wait does not complete");
        std::thread::yield_now();
    }
}

fn new_machine() {
    let rig = Rig::new();
    rig.translate();
    let refused = |rig: &Rig| rig.vdev.map(DeviceAddr(0x9000), 512, MapFlags::READ).is_err();
    assert!(refused(&rig) && rig.read32(GCMD + 4) == TE | SRTP);
    let rig = rig.again();
    assert!(!refused(&rig) && rig.read32(GCMD + 4) == 0, "as after a reset");
    rig.translate();
    assert!(refused(&rig));
    rig.iommu.describe(rig.pci.describe(acpi::Tables::new(1))).write(&rig.flat.guest).unwrap();
    let bytes = rig.load::<{ 64 << 10 }>(0xe_0000);
    let dmar = bytes.windows(4).position(|bytes| bytes == b"DMAR").unwrap();
    // After a header of 36 bytes and 12 of the table: a unit of 16 bytes, its registers at the end.
    assert_eq!(bytes[dmar + 56..][..8], layout::IOMMU.0.to_le_bytes());
}

fn host_physical() {
    // Pinned, if this machine can.
    let rig = Rig::with_ram(&MemoryObject::ram(4 << 20).create().unwrap());
    rig.translate();
    let firmware = rig.flat.guest.vdev("firmware").unwrap();
    let run = |vdev: &Vdev, addr: u32, max| {
        vdev.map_host_contig_truncated(DeviceAddr(addr.into()), max, MapFlags::READ)
            .map(|mapping| mapping.run())
    };
    let (source, target) = match (run(&rig.vdev, SOURCE, 0x10_0000), run(&rig.vdev, TARGET, 4096)) {
        (Ok(source), Ok(target)) => (source, target),
        (Err(error), _) | (_, Err(error)) => {
            assert!(["EPERM", "EAGAIN"].contains(&error.errno_name()), "{error}");
            println!("skipped, because host-physical addresses are not known here: {error}");
            return;
        }
    };
    assert_eq!(source.addr, run(&firmware, FROM, 4096).unwrap().addr);
    assert_eq!(target.addr, run(&firmware, TO, 4096).unwrap().addr);
    assert_eq!(source.len, 4096, "its neighbour is elsewhere, however long the run is there");
}
