//! Configuration space, and places on the bus.

use std::sync::Arc;

use gasp_vdev::{Bar, Device, DeviceContext, Model, Register, Shell};
use gasp_vm::pci::{Bdf, PciError};
use gasp_vm::{Interrupts, layout};

use super::rig::{ECAM, IDENTITY, Rig, SLOT, config_of, vdev};
use crate::code::Code;

pub(super) fn config() {
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

pub(super) fn absent() {
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

pub(super) fn places() {
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
