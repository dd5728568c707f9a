//! Interrupts: MSI-X, MSI, the pin.

use std::sync::Arc;
use std::time::Duration;

use gasp::GuestPhys;
use gasp_vdev::dma;
use gasp_vdev::{Bar, Device, DeviceContext, Model, Msix, Register, VendorCapability, Window};
use gasp_vm::pci::Bdf;
use gasp_vm::{Interrupts, Message};

use super::rig::{
    COMMAND, HANDLER, IDENTITY, OTHER_HANDLER, Rig, config_of, handler, reports, vdev,
};
use crate::code::{Code, interrupt_tables};
use crate::support::{Flat, PATIENCE};

/// Starts the engine behind `bar` with an interrupt at its end.
fn start_engine(code: Code, bar: u32) -> Code {
    code.store64(bar + 0x08, 0x10_0000)
        .store64(bar + 0x10, 0x11_0000)
        .store64(bar + 0x18, 64)
        .store32(bar + 0x20, dma::START | dma::INTERRUPT)
}

pub(super) fn dma_msix() {
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

pub(super) fn msix_masks() {
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

/// One MSI-X vector, and a window on the BARs in configuration space.
struct Windowed;

impl Device for Windowed {
    fn model(&self) -> Model {
        let msix = Msix { vectors: 1, bar: 0, table: 0, pending: 0x800 };
        let window = Some(Window { bar: 1, offset: 5, len: 9, data: 13 });
        let (contents, writable) = (vec![0; 17], vec![0xff; 17]);
        let window = VendorCapability { contents, writable, window };
        Model::new(IDENTITY).bar(Bar::memory(0, 4096)).msix(msix).vendor(window)
    }
    fn read(&self, _: &DeviceContext, _: Register) -> u64 {
        0
    }
    fn write(&self, _: &DeviceContext, _: Register, _: u64) {}
    fn reset(&self) {}
}

pub(super) fn window() {
    let rig = Rig::with(Interrupts::Kernel, Windowed);
    let reports = reports(&rig.flat);
    interrupt_tables(&rig.flat, &[(0x41, HANDLER)]);
    rig.put(HANDLER.into(), handler(1));
    rig.put(0x1000, Code::new().take_interrupts().output(1, 0x80, 9).wait_for_interrupts());
    let _running = rig.flat.start();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(9));
    let config = config_of(rig.at);
    let capability = |id: u32| {
        let mut at = u64::from(rig.read32(config + 0x34) & 0xff);
        while rig.read32(config + at) & 0xff != id {
            at = u64::from(rig.read32(config + at) >> 8 & 0xff);
        }
        config + at
    };
    let (msix, window) = (capability(0x11), capability(0x09));
    let store = |offset: u32, value: u32| {
        for (at, value) in [(8, offset), (12, 4), (16, value)] {
            rig.write32(window + at, value);
        }
    };
    rig.write32(config + 4, COMMAND);
    rig.write32(msix, 0x8000_0000);
    store(0, 0xfee0_0000);
    store(8, 0x41);
    store(12, 0);
    rig.shell.interrupts().signal(0);
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(1));
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

pub(super) fn msi() {
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
    rig.write32(config + 4, COMMAND);
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

pub(super) fn pin() {
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

pub(super) fn many_vectors() {
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

pub(super) fn message() {
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
