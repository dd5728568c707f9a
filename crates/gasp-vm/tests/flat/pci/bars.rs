//! Base address registers.

use gasp_vdev::dma;
use gasp_vm::{Interrupts, layout};

use super::rig::{COMMAND, ECAM, Kinds, Rig, config_of};
use crate::code::Code;

pub(super) fn bars_move() {
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

pub(super) fn overlaps() {
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

pub(super) fn kinds() {
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
