//! Devices on the PCI bus: configuration space, BARs, interrupts, doorbells, hostile guests.

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gasp::{Guest, GuestPhys, Vdev};
use gasp_vdev::dma::{self, DmaEngine};
use gasp_vdev::{
    Bar, BarKind, Class, Device, DeviceContext, Identity, Model, Msix, Register, Shell, Width,
};
use gasp_vm::pci::{Bdf, PciError, PciRoot};
use gasp_vm::{BusDevice, Interrupts, Machine, Message, layout};
use parking_lot::Mutex;

use crate::code::{Code, interrupt_tables};
use crate::support::{Flat, PATIENCE, POWER_OFF, Trials};

pub(crate) fn trials() -> Trials {
    vec![
        ("pci_config_is_the_same_by_ports_and_ecam_in_every_width", config),
        ("pci_functions_that_are_not_there_read_as_ones", absent),
        ("pci_places_are_refused_if_taken_and_found_if_free", places),
        ("pci_bars_go_where_the_guest_moves_them", bars_move),
        ("pci_bars_that_overlap_come_back_when_they_no_longer_do", overlaps),
        ("pci_bars_are_ports_low_or_high_memory", kinds),
        ("pci_dma_moves_bytes_and_raises_msix", dma_msix),
        ("pci_msix_is_held_back_while_masked_and_goes_to_its_new_message", msix_masks),
        ("pci_msi_vectors_go_to_their_messages", msi),
        ("pci_pin_stays_up_until_the_device_lowers_it", pin),
        ("pci_doorbell_rings_without_an_exit_and_follows_its_bar", doorbell),
        ("pci_doorbell_ends_with_a_reset", doorbell_resets),
        ("pci_device_has_as_many_messages_as_it_has_vectors", many_vectors),
        ("pci_device_works_after_1000_resets", resets),
        ("pci_device_goes_to_a_new_machine_of_the_guest", new_machine),
        ("pci_device_works_after_a_guest_wrote_nonsense", nonsense),
        ("a_message_is_sent_without_a_device", message),
    ]
}

const ECAM: u32 = 0xe000_0000;
const SLOT: u32 = 1 << 15;
/// Memory decoding and bus master.
const COMMAND: u32 = 0x06;

/// The machine's bus, with a DMA engine in the first free slot.
struct Rig {
    flat: Flat,
    pci: Arc<PciRoot>,
    at: Bdf,
    shell: Arc<Shell>,
}

impl Rig {
    fn new(interrupts: Interrupts) -> Self {
        Self::with(interrupts, DmaEngine::new())
    }

    fn with(interrupts: Interrupts, device: impl Device) -> Self {
        let flat = Flat::new(interrupts, &[]);
        let pci = Arc::new(PciRoot::new(&flat.machine).unwrap());
        let at = pci.free().unwrap();
        let shell = Arc::new(Shell::new("device", device).unwrap());
        pci.attach(at, Arc::clone(&shell), vdev(&flat.guest, "device")).unwrap();
        Self { flat, pci, at, shell }
    }

    /// Another DMA engine.
    fn attach(&self, at: Bdf) -> Result<Arc<Shell>, PciError> {
        let shell = Arc::new(Shell::new("other", DmaEngine::new()).unwrap());
        let vdev = vdev(&self.flat.guest, &format!("other {at}"));
        self.pci.attach(at, Arc::clone(&shell), vdev)?;
        Ok(shell)
    }

    /// Runs the code until it has switched the machine off.
    fn run(&self, code: Code) -> gasp_vm::Exits {
        self.put(0x1000, code.raw(POWER_OFF));
        self.flat.run().exits()
    }

    fn put(&self, addr: u64, code: Code) {
        self.flat.guest.write_firmware(GuestPhys(addr), code.bytes()).unwrap();
    }

    fn load<const N: usize>(&self, addr: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.flat.guest.read_firmware(GuestPhys(addr), &mut bytes).unwrap();
        bytes
    }

    fn read32(&self, addr: u64) -> u32 {
        let mut bytes = [0; 4];
        self.flat.machine.mmio().read(addr, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn write32(&self, addr: u64, value: u32) {
        self.flat.machine.mmio().write(addr, &value.to_le_bytes());
    }

    /// The address of a BAR, from its register.
    fn bar(&self, at: Bdf, index: u64) -> u64 {
        u64::from(self.read32(config_of(at) + 0x10 + 4 * index) & !0xf)
    }

    /// A copy by the engine behind the BAR at `bar`, as the guest's processor would start it.
    fn copies(&self, bar: u64) {
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

fn vdev(guest: &Guest, name: &str) -> Vdev {
    guest.vdev(name).unwrap()
}

fn config_of(at: Bdf) -> u64 {
    u64::from(ECAM) + (u64::from(at.requester_id()) << 12)
}

/// Sends each byte that the guest writes to port 0x80.
struct Reports(Mutex<std::sync::mpsc::Sender<u8>>);

impl BusDevice for Reports {
    fn read(&self, _: u64, _: &mut [u8]) {}
    fn write(&self, _: u64, data: &[u8]) {
        let _ = self.0.lock().send(data[0]);
    }
}

fn reports(flat: &Flat) -> Receiver<u8> {
    let (sender, receiver) = channel();
    flat.machine.ports().add(0x80, 1, Arc::new(Reports(Mutex::new(sender)))).unwrap();
    receiver
}

fn config() {
    let rig = Rig::new(Interrupts::None);
    let mut code = Code::new();
    let mut expected = Vec::new();
    let mut to = 0x3000;
    // Registers that are read, in three widths, at each byte of the first four and of a BAR.
    for offset in [0x00_u32, 0x01, 0x02, 0x03, 0x08, 0x0a, 0x2c, 0x3d, 0x40, 0x42] {
        for width in [1, 2, 4] {
            code = code.copy(width, ECAM + SLOT + offset, to);
            let mut whole = [0; 4];
            rig.shell.config_read(offset.into(), &mut whole[..width]).unwrap();
            expected.push(whole);
            // By ports an access ends with the register of 4 bytes.
            let (port, inside) = (0xcfc + (offset & 3) as u16, 4 - (offset & 3) as usize);
            code = code.output(4, 0xcf8, 0x8000_0000 | SLOT >> 4 | offset & 0xfc);
            code = code.input(width, port, to + 4);
            let mut part = [0xff; 4];
            rig.shell.config_read(offset.into(), &mut part[..width.min(inside)]).unwrap();
            part[width..].fill(0);
            expected.push(part);
            to += 8;
        }
    }
    // Writes: the line register in each width, by both ways; 0xcf8 itself in other widths.
    code = code
        .store8(ECAM + SLOT + 0x3c, 0x11)
        .copy(1, ECAM + SLOT + 0x3c, to)
        .output(4, 0xcf8, 0xff00_083f)
        .output(1, 0xcfc, 0x22)
        .output(1, 0xcf8, 0)
        .output(2, 0xcfa, 0)
        .input(4, 0xcf8, to + 4)
        .input(1, 0xcfc, to + 8)
        .output(2, 0xcfc, 0xff33)
        .input(4, 0xcfc, to + 12)
        .store16(ECAM + SLOT + 0x0c, 0x5544)
        .copy(2, ECAM + SLOT + 0x0c, to + 16)
        // Not enabled.
        .output(4, 0xcf8, 0x0000_083c)
        .input(4, 0xcfc, to + 20);
    let exits = rig.run(code);
    for (index, bytes) in expected.iter().enumerate() {
        assert_eq!(rig.load::<4>(0x3000 + 4 * index as u64), *bytes, "read {index}");
    }
    let word = |at: u32| u32::from_le_bytes(rig.load(u64::from(to + at)));
    assert_eq!([word(0), word(4), word(8)], [0x11, 0x8000_083c, 0x22]);
    assert_eq!([word(12), word(16), word(20)], [0x133, 0x5544, u32::MAX]);
    assert!(exits.mmio >= 34, "{exits:?}");
    // The last byte of one function and the first of the next; past the bus.
    let mut across = [0; 8];
    rig.flat.machine.mmio().read(u64::from(ECAM + SLOT) - 4, &mut across);
    assert_eq!(across, [0xff, 0xff, 0xff, 0xff, 0x34, 0x12, 0x61, 0x6d]);
    let mut past = [0; 8];
    rig.flat.machine.mmio().read(u64::from(ECAM) + (1 << 20) - 4, &mut past);
    assert_eq!(past, [0xff; 8]);
}

fn absent() {
    let rig = Rig::new(Interrupts::None);
    let read = |bdf: Bdf, offset: u64| rig.read32(config_of(bdf) + offset);
    let bdf = |device, function| Bdf::new(0, device, function).unwrap();
    for id in 0..256 {
        let at = Bdf::from_requester_id(id);
        let there = [bdf(0, 0), bdf(1, 0)].contains(&at);
        assert_eq!(read(at, 0) != u32::MAX, there, "{at}");
        rig.write32(config_of(at) + 4, 0);
    }
    // The host bridge, which nothing changes.
    let bridge: Vec<_> = (0..16).map(|word| read(bdf(0, 0), 4 * word)).collect();
    assert_eq!((bridge[0], bridge[2]), (0x6862_1234, 0x0600_0001));
    (0..16).for_each(|word| rig.write32(config_of(bdf(0, 0)) + 4 * word, u32::MAX));
    let after: Vec<_> = (0..16).map(|word| read(bdf(0, 0), 4 * word)).collect();
    assert_eq!(bridge, after);
    // Only the first of several functions says that there are more.
    let header_type = |at| read(at, 0xc) >> 16 & 0xff;
    assert_eq!(header_type(bdf(1, 0)), 0);
    rig.attach(bdf(1, 3)).unwrap();
    assert_eq!((header_type(bdf(1, 0)), header_type(bdf(1, 3))), (0x80, 0));
    let mut byte = [0];
    rig.flat.machine.mmio().read(config_of(bdf(1, 0)) + 0xe, &mut byte);
    assert_eq!(byte, [0x80]);
    rig.pci.detach(bdf(1, 3)).unwrap();
    assert_eq!((header_type(bdf(1, 0)), read(bdf(1, 3), 0)), (0, u32::MAX));
}

fn places() {
    let rig = Rig::new(Interrupts::None);
    let bdf = |device, function| Bdf::new(0, device, function).unwrap();
    assert_eq!((rig.at, rig.pci.free()), (bdf(1, 0), Some(bdf(2, 0))));
    assert!(matches!(rig.attach(bdf(0, 0)), Err(PciError::Taken(_))));
    assert!(matches!(rig.attach(bdf(1, 0)), Err(PciError::Taken(_))));
    assert!(matches!(rig.attach(bdf(9, 1)), Err(PciError::NoFirstFunction(_))));
    assert!(matches!(rig.attach(Bdf::new(1, 0, 0).unwrap()), Err(PciError::NoSuchBus(_))));
    assert!(matches!(rig.pci.detach(bdf(7, 0)), Err(PciError::Absent(_))));
    assert!(matches!(rig.pci.reset(bdf(7, 0)), Err(PciError::Absent(_))));
    let again = rig.pci.attach(bdf(4, 0), Arc::clone(&rig.shell), vdev(&rig.flat.guest, "twice"));
    assert!(matches!(again, Err(PciError::Attach(_))));
    // What is refused takes no addresses.
    rig.attach(bdf(2, 0)).unwrap();
    assert_eq!(rig.bar(bdf(2, 0), 0), rig.bar(bdf(1, 0), 1) + 0x1000);
    // All of them fit, at addresses of their own.
    while let Some(at) = rig.pci.free() {
        rig.attach(at).unwrap();
    }
    let mut bars: Vec<u64> =
        rig.pci.devices().iter().flat_map(|&at| [rig.bar(at, 0), rig.bar(at, 1)]).collect();
    let window = layout::PCI_MEMORY.0.0..layout::PCI_MEMORY.0.0 + layout::PCI_MEMORY.1;
    assert!(bars.len() == 62 && bars.iter().all(|bar| window.contains(bar)), "{bars:x?}");
    bars.sort();
    bars.dedup();
    assert_eq!(bars.len(), 62);
    struct Large;
    impl Device for Large {
        fn model(&self) -> Model {
            Model::new(IDENTITY).bar(Bar::memory(0, 16)).bar(Bar::memory(1, 1 << 31))
        }
        fn read(&self, _: &DeviceContext, _: Register) -> u64 {
            0
        }
        fn write(&self, _: &DeviceContext, _: Register, _: u64) {}
        fn reset(&self) {}
    }
    let before = [0, 1].map(|index| rig.bar(bdf(3, 0), index));
    let third = rig.pci.detach(bdf(3, 0)).unwrap();
    let large = Arc::new(Shell::new("large", Large).unwrap());
    let refused = rig.pci.attach(bdf(3, 0), Arc::clone(&large), vdev(&rig.flat.guest, "large"));
    assert!(matches!(refused, Err(PciError::NoRoom { bar: 1, .. })), "{refused:?}");
    assert!(!large.is_attached() && rig.pci.free() == Some(bdf(3, 0)));
    rig.pci.attach(bdf(3, 0), third, vdev(&rig.flat.guest, "third")).unwrap();
    assert_eq!([0, 1].map(|index| rig.bar(bdf(3, 0), index)), before);
}

const IDENTITY: Identity = Identity {
    vendor: 0x1234,
    device: 1,
    subsystem_vendor: 0,
    subsystem: 0,
    revision: 0,
    class: Class { base: 0xff, sub: 0, interface: 0 },
};

fn bars_move() {
    let rig = Rig::new(Interrupts::None);
    let config = config_of(rig.at);
    let first = rig.bar(rig.at, 0);
    assert_eq!(rig.read32(first), u32::MAX, "not decoded yet");
    // The guest enables memory, sizes the BAR, moves it, and reads the magic number each time.
    let (config32, first32, second) = (config as u32, first as u32, 0xd123_4000);
    let code = Code::new()
        .store16(config32 + 4, COMMAND as u16)
        .copy(4, first32, 0x3000)
        .store32(config32 + 0x10, u32::MAX)
        .copy(4, config32 + 0x10, 0x3004)
        .copy(4, first32, 0x3008)
        .copy(4, 0xffff_f000, 0x300c)
        .store32(config32 + 0x10, second)
        .copy(4, second, 0x3010)
        .copy(4, first32, 0x3014)
        .store8(config32 + 4, 0)
        .copy(4, second, 0x3018)
        .store8(config32 + 4, COMMAND as u8)
        .copy(4, second, 0x301c);
    rig.run(code);
    let word = |at: u64| u32::from_le_bytes(rig.load(0x3000 + at));
    let ones = u32::MAX;
    assert_eq!([word(0), word(4), word(8)], [dma::MAGIC, !0xfff, ones]);
    assert_eq!(word(0xc), dma::MAGIC, "where all ones have put it");
    assert_eq!([word(0x10), word(0x14), word(0x18)], [dma::MAGIC, ones, ones]);
    assert_eq!(word(0x1c), dma::MAGIC);
    rig.copies(u64::from(second));
    rig.pci.reset(rig.at).unwrap();
    assert_eq!((rig.bar(rig.at, 0), rig.read32(first)), (first, ones), "as before it started");
}

fn overlaps() {
    let rig = Rig::new(Interrupts::None);
    let other = rig.pci.free().unwrap();
    rig.attach(other).unwrap();
    let [mine, others] = [config_of(rig.at), config_of(other)];
    for config in [mine, others] {
        rig.write32(config + 4, COMMAND);
    }
    let [home, second] = [rig.bar(rig.at, 0), rig.bar(other, 0)];
    assert_eq!((rig.read32(home), rig.read32(second)), (dma::MAGIC, dma::MAGIC));
    // Over the other one, its own other BAR, configuration space: not there.
    for over in [second, rig.bar(rig.at, 1), u64::from(ECAM) + 0x5000] {
        rig.write32(mine + 0x10, over as u32);
        assert_eq!((rig.read32(home), rig.read32(second)), (u32::MAX, dma::MAGIC), "{over:#x}");
    }
    assert_eq!(rig.read32(u64::from(ECAM) + 0x5000), u32::MAX);
    assert_eq!(rig.read32(mine), 0x6d61_1234, "still to be configured");
    // What was hidden is there when the other one has moved away, and the other way round.
    rig.write32(mine + 0x10, second as u32);
    rig.write32(others + 0x10, 0xd000_0000);
    assert_eq!((rig.read32(second), rig.read32(0xd000_0000)), (dma::MAGIC, dma::MAGIC));
    rig.write32(others + 0x10, second as u32);
    assert_eq!(rig.read32(0xd000_0000), u32::MAX);
    rig.pci.detach(rig.at).unwrap();
    rig.copies(second);
    // Over RAM the guest finds the RAM, at the local APIC that, and at the last addresses nothing
    // breaks.
    let [others, second] = [others as u32, second as u32];
    let code = Code::new()
        .store32(0x2_0000, 5)
        .store32(others + 0x10, 0x2_0000)
        .store32(0x2_0000, 6)
        .copy(4, 0x2_0000, 0x3000)
        .store32(others + 0x10, 0xfee0_0000)
        .copy(4, 0xfee0_0030, 0x3004)
        .store32(others + 0x10, 0xffff_f000)
        .copy(4, 0xffff_fffd, 0x3008)
        .store32(others + 0x10, second)
        .copy(4, second, 0x300c);
    rig.run(code);
    let word = |at: u64| u32::from_le_bytes(rig.load(0x3000 + at));
    assert_eq!([word(0), word(0xc)], [6, dma::MAGIC]);
    assert_ne!(word(4), 0, "the version of a local APIC, or ones without one");
}

/// A function with each kind of BAR. Register 0 of each has the BAR's number.
struct Kinds;

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

fn kinds() {
    let rig = Rig::with(Interrupts::None, Kinds);
    let config = config_of(rig.at);
    let bar = |index: u64| rig.read32(config + 0x10 + 4 * index);
    let [ports, low, high] = [bar(0), bar(1), bar(2)];
    assert_eq!((ports & 3, low & 0xf, high & 0xf), (1, 0, 4));
    let (port, high) = (ports as u16 & !3, u64::from(bar(3)) << 32 | u64::from(high & !0xf));
    assert!(port >= layout::PCI_PORTS.0 && high >= layout::HIGH.0 && high % (1 << 33) == 0);
    let code = Code::new()
        .store32(config as u32 + 4, 2)
        .input(1, port + 4, 0x3000)
        .store32(config as u32 + 4, 1)
        .input(1, port + 4, 0x3001)
        .copy(4, low + 4, 0x3004)
        // Over the ports that switch the machine off: those stay.
        .store32(config as u32 + 0x10, 0x601)
        .output(4, 0xcf8, 0x8000_0810)
        .output(4, 0xcfc, 0xffff_ffff)
        .store32(config as u32 + 4, 3)
        .copy(4, low + 4, 0x3008);
    rig.run(code);
    assert_eq!(rig.load::<12>(0x3000), [0xff, 4, 0, 0, 0xff, 0xff, 0xff, 0xff, 4, 1, 0, 0]);
    let mmio = |addr| {
        let mut bytes = [0; 8];
        rig.flat.machine.mmio().read(addr, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    assert_eq!((mmio(high + 8), mmio(high + (1 << 33) - 8)), (0x208, 0x1_ffff_fff8 + 0x200));
    // At the last addresses that there are.
    rig.write32(config + 0x18, u32::MAX);
    rig.write32(config + 0x1c, u32::MAX);
    assert_eq!((bar(2), bar(3)), (4, 0xffff_fffe));
    assert_eq!((mmio(high + 8), mmio(u64::MAX - 7)), (u64::MAX, 0x1_ffff_fff8 + 0x200));
    rig.pci.reset(rig.at).unwrap();
    assert_eq!((u64::from(bar(3)) << 32 | u64::from(bar(2) & !0xf), mmio(high)), (high, u64::MAX));
}

/// Code at `HANDLER` that reports `what`, and waits for the next interrupt: not every KVM emulates a
/// return from one.
fn handler(what: u8) -> Code {
    Code::new().output(1, 0x80, what.into()).end_of_interrupt().wait_for_interrupts()
}

const HANDLER: u32 = 0x6000;
const OTHER_HANDLER: u32 = 0x6100;

/// Starts the engine behind `bar` with an interrupt at its end.
fn start_engine(code: Code, bar: u32) -> Code {
    code.store64(bar + 0x08, 0x10_0000)
        .store64(bar + 0x10, 0x11_0000)
        .store64(bar + 0x18, 64)
        .store32(bar + 0x20, dma::START | dma::INTERRUPT)
}

fn dma_msix() {
    let rig = Rig::new(Interrupts::Kernel);
    let reports = reports(&rig.flat);
    interrupt_tables(&rig.flat, &[(0x41, HANDLER)]);
    rig.put(HANDLER.into(), handler(2));
    let (config, bar, table) =
        (config_of(rig.at) as u32, rig.bar(rig.at, 0) as u32, rig.bar(rig.at, 1) as u32);
    let code = Code::new()
        .take_interrupts()
        .store16(config + 4, COMMAND as u16)
        // Enabled with all of it masked, then the entry, then the mask: as Linux does.
        .store16(config + 0x42, 0xc000)
        .store64(table, 0xfee0_0000)
        .store32(table + 8, 0x41)
        .store32(table + 12, 0)
        .store16(config + 0x42, 0x8000);
    let code = start_engine(code, bar).wait_for_interrupts();
    rig.put(0x1000, code);
    rig.flat.guest.write_firmware(GuestPhys(0x10_0000), &[0x5a; 64]).unwrap();
    let running = rig.flat.start();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(2), "{:?}", running.ending());
    assert_eq!(rig.load::<64>(0x11_0000), [0x5a; 64]);
    let exits = running.exits();
    rig.shell.interrupts().signal(0);
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(2));
    let more = running.exits();
    assert_eq!((more.mmio, more.port), (exits.mmio, exits.port + 1), "only the report");
}

fn msix_masks() {
    let rig = Rig::new(Interrupts::Kernel);
    let reports = reports(&rig.flat);
    interrupt_tables(&rig.flat, &[(0x41, HANDLER), (0x42, OTHER_HANDLER)]);
    rig.put(HANDLER.into(), handler(1));
    rig.put(OTHER_HANDLER.into(), handler(2));
    rig.put(0x1000, Code::new().take_interrupts().wait_for_interrupts());
    let _running = rig.flat.start();
    let (config, table) = (config_of(rig.at), rig.bar(rig.at, 1));
    rig.write32(config + 4, COMMAND);
    let pending = || rig.read32(table + 0x800) & 1;
    let quiet = || {
        assert_eq!(reports.recv_timeout(Duration::from_millis(30)).ok(), None);
        assert_eq!(pending(), 1);
    };
    let enable = |bits: u32| rig.write32(config + 0x40, bits << 16);
    let entry = |data: u32| {
        rig.write32(table, 0xfee0_0000);
        rig.write32(table + 8, data);
    };
    let mask = |masked: u32| rig.write32(table + 12, masked);
    let signal = || rig.shell.interrupts().signal(0);
    // Enabled, and still masked as after a reset.
    enable(0x8000);
    signal();
    quiet();
    entry(0x41);
    mask(0);
    assert_eq!((reports.recv_timeout(PATIENCE), pending()), (Ok(1), 0));
    // Changed while it is masked: what was held back goes to the new vector.
    mask(1);
    signal();
    entry(0x42);
    quiet();
    mask(0);
    assert_eq!((reports.recv_timeout(PATIENCE), pending()), (Ok(2), 0));
    // The same by the function's mask.
    enable(0xc000);
    signal();
    entry(0x41);
    quiet();
    enable(0x8000);
    assert_eq!((reports.recv_timeout(PATIENCE), pending()), (Ok(1), 0));
    // Disabled and enabled again, the entry is as it was.
    enable(0);
    enable(0x8000);
    signal();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(1));
    // A reset masks it.
    rig.pci.reset(rig.at).unwrap();
    rig.write32(config + 4, COMMAND);
    enable(0x8000);
    signal();
    quiet();
}

/// Four MSI vectors.
struct Messages;

impl Device for Messages {
    fn model(&self) -> Model {
        Model::new(IDENTITY).msi(4).pin()
    }
    fn read(&self, _: &DeviceContext, _: Register) -> u64 {
        0
    }
    fn write(&self, _: &DeviceContext, _: Register, _: u64) {}
    fn reset(&self) {}
}

fn msi() {
    let rig = Rig::with(Interrupts::Kernel, Messages);
    let reports = reports(&rig.flat);
    let handlers = [(0x50, 0x6000), (0x51, 0x6100), (0x52, 0x6200), (0x53, 0x6300)];
    interrupt_tables(&rig.flat, &handlers);
    for (vector, at) in handlers {
        rig.put(at.into(), handler(vector));
    }
    rig.put(0x1000, Code::new().take_interrupts().output(1, 0x80, 1).wait_for_interrupts());
    let _running = rig.flat.start();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(1));
    let config = config_of(rig.at);
    let signal = |vector, expected: u8| {
        rig.shell.interrupts().signal(vector);
        assert_eq!(reports.recv_timeout(PATIENCE), Ok(expected));
    };
    rig.write32(config + 0x44, 0xfee0_0000);
    rig.write32(config + 0x4c, 0x52);
    // One vector is granted, then four, whose number the data has in its low bits.
    rig.write32(config + 0x40, 0x0001_0000);
    signal(3, 0x52);
    rig.write32(config + 0x40, 0x0021_0000);
    (0..4).for_each(|vector| signal(vector, 0x50 + vector as u8));
    rig.write32(config + 0x40, 0x0001_0000);
    rig.write32(config + 0x4c, 0x53);
    signal(1, 0x53);
    rig.write32(config + 0x40, 0);
    assert_eq!(rig.shell.interrupts().assigned(gasp_vdev::IrqKind::Msi), 0);
}

fn pin() {
    let rig = Rig::new(Interrupts::Kernel);
    let reports = reports(&rig.flat);
    interrupt_tables(&rig.flat, &[(0x41, HANDLER)]);
    let (config, bar) = (config_of(rig.at) as u32, rig.bar(rig.at, 0) as u32);
    // The line of device 1 is 17: level-triggered, to vector 0x41. The handler counts, and has the
    // engine lower its pin only at the third time.
    let handler = Code::new()
        .raw(&[0xff, 0x05, 0x00, 0x70, 0x00, 0x00]) // inc dword [0x7000]
        .raw(&[0xa1, 0x00, 0x70, 0x00, 0x00]) // mov eax, [0x7000]
        .raw(&[0xe6, 0x80]) // out 0x80, al
        .raw(&[0x83, 0xf8, 0x03]) // cmp eax, 3
        .raw(&[0x75, 0x0a]) // jne past the store
        .store32(bar + 0x50, 0)
        .end_of_interrupt()
        .wait_for_interrupts();
    rig.put(HANDLER.into(), handler);
    let code = Code::new()
        .take_interrupts()
        .store32(0xfec0_0000, 0x10 + 2 * 17)
        .store32(0xfec0_0010, 0x8041)
        .store16(config + 4, COMMAND as u16);
    rig.put(0x1000, start_engine(code, bar).wait_for_interrupts());
    let running = rig.flat.start();
    for count in 1..=3 {
        assert_eq!(reports.recv_timeout(PATIENCE), Ok(count), "{:?}", running.ending());
    }
    // Not every KVM takes back what it has latched before the line went down.
    let pause = Duration::from_millis(50);
    let after = (0..2).filter(|_| reports.recv_timeout(pause).is_ok()).count();
    assert!(after <= 1, "it comes again and again");
    // Once more, while the command register holds it down, and when it does no longer.
    let config = u64::from(config);
    let status = || rig.read32(config + 4) >> 16 & 8;
    rig.write32(config + 4, COMMAND | 0x400);
    rig.shell.interrupts().signal(0);
    assert_eq!((status(), reports.recv_timeout(pause).ok()), (8, None));
    rig.write32(config + 4, COMMAND);
    for _ in 0..3 {
        assert!(reports.recv_timeout(PATIENCE).is_ok(), "until it is lowered");
    }
    // Another device on the same line holds it up.
    let other = rig.attach(Bdf::new(0, 9, 0).unwrap()).unwrap();
    other.interrupts().signal(0);
    rig.shell.interrupts().lower();
    assert_eq!(status(), 0);
    while reports.try_recv().is_ok() {}
    for _ in 0..3 {
        assert!(reports.recv_timeout(PATIENCE).is_ok(), "until both are lowered");
    }
    drop(rig.pci.detach(Bdf::new(0, 9, 0).unwrap()).unwrap());
    while reports.try_recv().is_ok() {}
    let after = (0..3).filter(|_| reports.recv_timeout(pause).is_ok()).count();
    assert!(after <= 2, "it is lowered with the device");
}

/// 300 MSI-X vectors.
struct Many;

const MANY: u16 = 300;

impl Device for Many {
    fn model(&self) -> Model {
        let msix = Msix { vectors: MANY, bar: 0, table: 0, pending: 0x2000 };
        Model::new(IDENTITY).bar(Bar::memory(0, 0x4000)).msix(msix)
    }
    fn read(&self, _: &DeviceContext, _: Register) -> u64 {
        0
    }
    fn write(&self, _: &DeviceContext, _: Register, _: u64) {}
    fn reset(&self) {}
}

fn many_vectors() {
    let rig = Rig::with(Interrupts::Kernel, Many);
    let reports = reports(&rig.flat);
    interrupt_tables(&rig.flat, &[(0x41, HANDLER), (0x42, OTHER_HANDLER)]);
    rig.put(HANDLER.into(), handler(1));
    rig.put(OTHER_HANDLER.into(), handler(2));
    rig.put(0x1000, Code::new().take_interrupts().output(1, 0x80, 9).wait_for_interrupts());
    let _running = rig.flat.start();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(9));
    let (config, table) = (config_of(rig.at), rig.bar(rig.at, 0));
    let mut shell = Arc::clone(&rig.shell);
    for round in 0..2 {
        rig.write32(config + 4, COMMAND);
        rig.write32(config + 0x40, 0x8000_0000);
        for vector in 0..u64::from(MANY) {
            rig.write32(table + 16 * vector, 0xfee0_0000);
            rig.write32(table + 16 * vector + 8, if vector % 2 == 0 { 0x41 } else { 0x42 });
            rig.write32(table + 16 * vector + 12, 0);
        }
        for vector in [0, 1, 127, 128, MANY - 1] {
            shell.interrupts().signal(vector);
            let expected = 1 + vector as u8 % 2;
            assert_eq!(reports.recv_timeout(PATIENCE), Ok(expected), "{round}: {vector}");
        }
        // Detached, it gives back the numbers of its routes.
        shell = rig.pci.detach(rig.at).unwrap();
        let again = vdev(&rig.flat.guest, &format!("again {round}"));
        rig.pci.attach(rig.at, Arc::clone(&shell), again).unwrap();
    }
}

/// Rings its doorbell by writes of register 0x20, and by the value 7 at 0x24.
#[derive(Default)]
struct Rung {
    counts: Arc<[AtomicU32; 2]>,
}

impl Device for Rung {
    fn model(&self) -> Model {
        Model::new(IDENTITY).bar(Bar::memory(0, 4096))
    }
    fn read(&self, _: &DeviceContext, _: Register) -> u64 {
        0
    }
    fn write(&self, context: &DeviceContext, at: Register, value: u64) {
        let register = |offset| Register { bar: 0, offset, width: Width::Four };
        match at.offset {
            0 if value == 1 => {
                assert!(context.ring_on_write(register(0x20), None));
                assert!(context.ring_on_write(register(0x20), None));
                assert!(context.ring_on_write(register(0x24), Some(7)));
                assert!(!context.ring_on_write(register(0x24), Some(1 << 32)));
            }
            0 => context.stop_ringing(register(0x20), None),
            _ => drop(self.counts[0].fetch_add(1, Ordering::SeqCst)),
        }
    }
    fn work(&self, _: &DeviceContext) {
        self.counts[1].fetch_add(1, Ordering::SeqCst);
    }
    fn reset(&self) {}
}

fn doorbell() {
    let device = Rung::default();
    let counts = Arc::clone(&device.counts);
    let rig = Rig::with(Interrupts::None, device);
    let (config, bar) = (config_of(rig.at) as u32, rig.bar(rig.at, 0) as u32);
    let moved = 0xd000_0000;
    let waits = Arc::new(Waits(Arc::clone(&counts), AtomicU32::new(0)));
    rig.flat.machine.ports().add(0x90, 1, waits).unwrap();
    // Each `in` waits until the device's thread has been woken.
    let wait = |code: Code| code.raw(&[0xe4, 0x90]);
    let code = Code::new().store16(config + 4, COMMAND as u16).store32(bar, 1);
    let code = wait(code.store32(bar + 0x20, 5));
    let code = wait(code.store32(bar + 0x24, 7));
    let code = code.store32(bar + 0x24, 6).store32(config + 0x10, moved);
    let code = wait(code.store32(moved + 0x20, 5));
    let code = code.store32(bar + 0x20, 5).store32(moved, 0).store32(moved + 0x20, 5);
    let code = wait(code.store32(moved + 0x24, 7));
    let exits = rig.run(code);
    let [arrived, worked] = [0, 1].map(|index: usize| counts[index].load(Ordering::SeqCst));
    assert_eq!((arrived, worked), (2, 4));
    // Two of configuration, two of register 0, and what has arrived, at the old place too.
    assert_eq!((exits.mmio, exits.port), (2 + 2 + 2 + 1, 4 + 1));
}

fn doorbell_resets() {
    let device = Rung::default();
    let counts = Arc::clone(&device.counts);
    let rig = Rig::with(Interrupts::None, device);
    let (config, bar) = (config_of(rig.at) as u32, rig.bar(rig.at, 0) as u32);
    let (pci, at) = (Arc::clone(&rig.pci), rig.at);
    rig.flat.machine.ports().add(0x91, 1, Arc::new(Resets(pci, at))).unwrap();
    let code = Code::new().store16(config + 4, COMMAND as u16).store32(bar, 1);
    let code = code.store32(bar + 0x24, 7).output(1, 0x91, 0);
    let code = code.store16(config + 4, COMMAND as u16).store32(bar + 0x24, 7);
    let exits = rig.run(code.store32(bar + 0x20, 7));
    assert_eq!((counts[0].load(Ordering::SeqCst), exits.mmio), (2, 2 + 1 + 2));
}

/// A write resets a device.
struct Resets(Arc<PciRoot>, Bdf);

impl BusDevice for Resets {
    fn read(&self, _: u64, _: &mut [u8]) {}
    fn write(&self, _: u64, _: &[u8]) {
        self.0.reset(self.1).unwrap();
    }
}

/// A read waits until there was one more call of `work`.
struct Waits(Arc<[AtomicU32; 2]>, AtomicU32);

impl BusDevice for Waits {
    fn read(&self, _: u64, _: &mut [u8]) {
        let seen = self.1.fetch_add(1, Ordering::SeqCst);
        let since = Instant::now();
        while self.0[1].load(Ordering::SeqCst) <= seen && since.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
    }
    fn write(&self, _: u64, _: &[u8]) {}
}

fn resets() {
    let rig = Rig::new(Interrupts::Kernel);
    let (config, table) = (config_of(rig.at), rig.bar(rig.at, 1));
    let bar = rig.bar(rig.at, 0);
    for round in 0..1000 {
        rig.write32(config + 4, COMMAND);
        rig.write32(table + 8, 0x41);
        rig.write32(table + 12, 0);
        rig.write32(config + 0x40, 0x8000_0000);
        if round % 100 == 0 {
            rig.copies(bar);
        } else {
            // In the middle of its work.
            rig.write32(bar + 0x18, 1 << 20);
            rig.write32(bar + 0x20, dma::START | dma::INTERRUPT);
        }
        rig.pci.reset(rig.at).unwrap();
        assert_eq!((rig.bar(rig.at, 0), rig.read32(bar)), (bar, u32::MAX));
    }
    rig.write32(config + 4, COMMAND);
    rig.copies(bar);
}

fn new_machine() {
    let Rig { flat, pci, at, shell } = Rig::new(Interrupts::Kernel);
    let vdev = vdev(&flat.guest, "again");
    let mut kept = (flat, pci);
    for _ in 0..20 {
        let (flat, pci) = kept;
        drop(pci);
        assert!(!shell.is_attached());
        let mut bytes = [0; 4];
        flat.machine.mmio().read(config_of(at), &mut bytes);
        assert_eq!(bytes, [0xff; 4], "nothing is left of it");
        drop(PciRoot::new(&flat.machine).unwrap());
        let guest = flat.guest.clone();
        drop(flat);
        let machine = Machine::builder().build(&guest).unwrap();
        let flat = Flat { guest, machine };
        let pci = Arc::new(PciRoot::new(&flat.machine).unwrap());
        assert!(PciRoot::new(&flat.machine).is_err(), "there is one");
        pci.attach(at, Arc::clone(&shell), vdev.clone()).unwrap();
        let rig = Rig { flat, pci, at, shell: Arc::clone(&shell) };
        rig.write32(config_of(at) + 4, COMMAND);
        rig.copies(rig.bar(at, 0));
        kept = (rig.flat, rig.pci);
    }
    // The other way round: first the machine.
    let (flat, pci) = kept;
    drop(flat);
    assert!(pci.detach(at).is_ok() && !shell.is_attached());
}

/// A sequence of numbers that looks random, and is the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Writes and reads at random where PCI is, and makes the engine's BARs overlap now and then.
fn write_nonsense(rig: &Rig, home: [u64; 2], seed: u64) {
    let mut random = Random(seed);
    let (mmio, config) = (rig.flat.machine.mmio(), config_of(rig.at));
    for _ in 0..10_000 {
        let width = 1 + random.below(8) as usize;
        let mut data = match random.below(3) {
            0 => [[0xff; 8], [0; 8]][random.below(2) as usize],
            _ => random.below(u64::MAX).to_le_bytes(),
        };
        let bar = u64::from(rig.read32(config + 0x10 + 4 * random.below(2)) & !0xf);
        let (bus, addr) = match random.below(6) {
            0 => (rig.flat.machine.ports(), 0xcf0 + random.below(24)),
            1 => (mmio, u64::from(ECAM) + random.below(1 << 20)),
            2 => (mmio, config + random.below(0x60)),
            3 => (mmio, config + 0x8000 + random.below(0x60)),
            4 => (mmio, home[1] + random.below(64)),
            _ => (mmio, bar + random.below(64)),
        };
        bus.write(addr, &data[..width]);
        bus.read(addr, &mut data[..width]);
        if random.below(16) == 0 {
            rig.shell.interrupts().signal(0);
        }
        if random.below(64) == 0 {
            let place = home[random.below(2) as usize] as u32;
            rig.write32(config + 0x10 + 4 * random.below(2), place);
            rig.write32(config + 4, COMMAND);
        }
    }
}

fn nonsense() {
    let rig = Rig::new(Interrupts::Kernel);
    let kinds = Arc::new(Shell::new("kinds", Kinds).unwrap());
    let other = Bdf::new(0, 2, 0).unwrap();
    rig.pci.attach(other, kinds, vdev(&rig.flat.guest, "kinds")).unwrap();
    let home = [rig.bar(rig.at, 0), rig.bar(rig.at, 1)];
    let (sender, ended) = channel();
    let rig = Arc::new(rig);
    // As two vCPUs, and resets by the host at the same time.
    for seed in [0x9e37_79b9_7f4a_7c15, 0x1234_5678_9abc_def1] {
        let (rig, sender) = (Arc::clone(&rig), sender.clone());
        std::thread::spawn(move || {
            write_nonsense(&rig, home, seed);
            sender.send(()).unwrap();
        });
    }
    let resets = Arc::clone(&rig);
    std::thread::spawn(move || {
        for _ in 0..100 {
            resets.pci.reset(resets.at).unwrap();
            resets.pci.reset(other).unwrap();
        }
        sender.send(()).unwrap();
    });
    for _ in 0..3 {
        ended.recv_timeout(2 * PATIENCE).expect("a thread hangs or has panicked");
    }
    rig.pci.reset(rig.at).unwrap();
    rig.pci.reset(other).unwrap();
    rig.write32(config_of(rig.at) + 4, COMMAND);
    rig.copies(home[0]);
}

fn message() {
    let flat = Flat::new(Interrupts::Kernel, &[]);
    let reports = reports(&flat);
    interrupt_tables(&flat, &[(0x41, HANDLER)]);
    flat.guest.write_firmware(GuestPhys(HANDLER.into()), handler(9).bytes()).unwrap();
    let code = Code::new().take_interrupts().output(1, 0x80, 1).wait_for_interrupts();
    flat.guest.write_firmware(GuestPhys(0x1000), code.bytes()).unwrap();
    let running = flat.start();
    let messages = flat.machine.messages();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(1));
    let to_vector = |data| Message { addr: 0xfee0_0000, data };
    assert!(messages.send(to_vector(0x41)).unwrap());
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(9));
    drop(running);
    let none = Flat::new(Interrupts::None, &[]);
    assert!(none.machine.messages().send(to_vector(0x41)).is_err());
}
