//! [`DeviceContext::transfer`]: one call for memory that can be mapped and for memory that cannot.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Mutex;

use gasp::{Access, DeviceAddr, Errno, GuestPhys, MapFlags, Span};
use gasp_vdev::dma::{self, DmaEngine};
use gasp_vdev::testbus::{Options, RAM, TestBus};
use gasp_vdev::{Bar, Class, Device, DeviceContext, Identity, Model, Register};

/// The start of the memory that is reached by messages: right past the RAM.
const FAR: u64 = RAM;
const LEN: u64 = 8 << 20;

fn far() -> Span<DeviceAddr> {
    Span::new(DeviceAddr(FAR), LEN).unwrap()
}

/// What a test does with the context of a device.
type Body = Box<dyn FnOnce(&DeviceContext) + Send>;

/// Runs the body of a test on its thread, and then signals its pin.
struct Probe(Mutex<Option<Body>>);

impl Device for Probe {
    fn model(&self) -> Model {
        let class = Class { base: 0xff, sub: 0, interface: 0 };
        let (vendor, device, subsystem_vendor, subsystem, revision) = (1, 2, 3, 4, 5);
        let identity = Identity { vendor, device, subsystem_vendor, subsystem, revision, class };
        Model::new(identity).bar(Bar::memory(0, 64)).pin()
    }

    fn read(&self, _: &DeviceContext, _: Register) -> u64 {
        0
    }

    fn write(&self, context: &DeviceContext, _: Register, _: u64) {
        context.ring();
    }

    fn work(&self, context: &DeviceContext) {
        let body = self.0.lock().unwrap().take().unwrap();
        body(context);
        context.signal(0);
    }

    fn reset(&self) {}
}

/// Runs `body` on a device's thread.
fn on_a_bus(options: Options, body: impl FnOnce(&DeviceContext) + Send + 'static) -> TestBus {
    let bus = options.attach(Probe(Mutex::new(Some(Box::new(body))))).unwrap();
    if let Some(domain) = bus.domain() {
        // The RAM's first page may only be read; the second is not the device's at all.
        domain.grant(DeviceAddr(0), GuestPhys(0), 4096, Access::READ).unwrap();
        domain.grant(DeviceAddr(0x2000), GuestPhys(0x2000), FAR - 0x2000, Access::RW).unwrap();
        domain.grant(DeviceAddr(FAR), GuestPhys(FAR), LEN, Access::READ).unwrap();
    }
    bus.write32(0, 0, 1).unwrap();
    assert!(bus.interrupt(0).unwrap(), "the body has panicked");
    bus
}

#[test]
fn a_transfer_reaches_memory_of_every_kind_and_across_their_seam() {
    let bus = on_a_bus(Options::default().messages(far()), |context| {
        for (start, len, mapped) in [
            (0x1000, 16, true),
            (0x1ff8, 16, true),
            (0x10_0000, 3 << 20, true),
            (FAR - 16, 16, true),
            (FAR, 4096, false),
            (FAR + 5, 2 << 20, false),
            (FAR - 8, 16, false),
            (FAR - 0x1_0000, 0x2_0000, false),
        ] {
            let transfer = context.transfer(DeviceAddr(start), len, MapFlags::RW).unwrap();
            assert_eq!((transfer.is_mapped(), transfer.len()), (mapped, len), "{start:#x}");
            assert_eq!(transfer.device_addr(), DeviceAddr(start));
            let data: Vec<u8> = (0..len).map(|n| (n % 251) as u8 ^ 0x55).collect();
            transfer.write_at(0, &data).unwrap();
            let mut back = vec![0; data.len()];
            transfer.read_at(0, &mut back).unwrap();
            assert!(back == data, "{start:#x}");
            // In parts, and nothing past the end.
            transfer.write_at(len - 1, b"z").unwrap();
            transfer.read_at(len - 2, &mut back[..2]).unwrap();
            assert_eq!(back[1], b'z');
            transfer.read_at(len, &mut []).unwrap();
            for (offset, part) in [(len, 1), (len - 1, 2), (u64::MAX, 2)] {
                let refused = transfer.read_at(offset, &mut vec![0; part]).unwrap_err();
                assert_eq!(refused.errno(), Errno::INVAL, "{start:#x}, {offset:#x}");
                let refused = transfer.write_at(offset, &vec![0; part]).unwrap_err();
                assert_eq!(refused.errno(), Errno::INVAL);
            }
        }
    });
    // The guest sees the data, on both sides of the seam.
    let mut bytes = [0; 2];
    bus.load(FAR + 0xffff, &mut bytes[..1]).unwrap();
    bus.load(FAR - 8, &mut bytes[1..]).unwrap();
    assert_eq!(bytes, [b'z', (0xfff8 % 251) as u8 ^ 0x55]);
}

#[test]
fn a_transfer_is_refused_where_nothing_is_and_where_the_guest_says_no() {
    on_a_bus(Options::default().messages(far()), |context| {
        for (start, len) in [(FAR + LEN, 1), (FAR + LEN - 1, 2), (1 << 40, 4096)] {
            let refused = context.transfer(DeviceAddr(start), len, MapFlags::RW).unwrap_err();
            assert_eq!(refused.errno(), Errno::NXIO, "{start:#x}: {refused}");
        }
        let empty = context.transfer(DeviceAddr(0), 0, MapFlags::RW).unwrap_err();
        assert_eq!(empty.errno(), Errno::INVAL);
        for (start, len) in [(u64::MAX, 2), (FAR, u64::MAX)] {
            let refused = context.transfer(DeviceAddr(start), len, MapFlags::RW).unwrap_err();
            assert_eq!(refused.errno(), Errno::NXIO, "{refused}");
        }
    });
    on_a_bus(Options::default().iommu().messages(far()), |context| {
        let reads = |start, len| context.transfer(DeviceAddr(start), len, MapFlags::READ);
        for (start, len) in [(0, 8), (FAR, 8), (FAR - 8, 16)] {
            let transfer = reads(start, len).unwrap();
            transfer.read_at(0, &mut [0; 8]).unwrap();
            assert_eq!(transfer.write_at(0, &[0; 8]).unwrap_err().errno(), Errno::ACCESS);
        }
        assert_eq!(reads(0xff8, 16).unwrap_err().errno(), Errno::FAULT);
        for start in [0, FAR, FAR - 8] {
            let refused = context.transfer(DeviceAddr(start), 16, MapFlags::RW).unwrap_err();
            assert_eq!(refused.errno(), Errno::FAULT, "{start:#x}: {refused}");
        }
    });
}

#[test]
fn a_map_of_memory_that_is_only_copied_says_why_and_what_to_call() {
    on_a_bus(Options::default().messages(far()), |context| {
        let refused = [
            context.map(DeviceAddr(FAR), 16, MapFlags::READ).unwrap_err(),
            context.map_scatter(DeviceAddr(FAR - 8), 16, MapFlags::READ).unwrap_err(),
            context.map_host_contig(DeviceAddr(FAR), 16, MapFlags::READ).unwrap_err(),
        ];
        for refused in refused {
            assert_eq!(refused.errno(), Errno::NXIO);
            let text = refused.to_string();
            assert!(
                text.contains("because the VMM") && text.contains("DeviceContext::transfer"),
                "{text}"
            );
        }
    });
}

#[test]
fn the_dma_engine_copies_between_memory_of_both_kinds() {
    let bus = Options::default().messages(far()).attach(DmaEngine::new()).unwrap();
    let data: Vec<u8> = (0..2_500_000_u32).map(|n| (n / 3) as u8).collect();
    let len = data.len() as u64;
    for (from, to) in [(0x123, FAR + 1), (FAR + 1, 0x40_0000), (FAR - 5000, FAR + (4 << 20))] {
        // Those that lie across the seam are stored in two parts.
        let cut = (FAR.saturating_sub(from) as usize).min(data.len());
        let (head, tail) = if from < FAR { data.split_at(cut) } else { (&[][..], &data[..]) };
        bus.store(from, head).unwrap();
        bus.store(from + head.len() as u64, tail).unwrap();
        for (register, value) in [(0x08, from), (0x10, to), (0x18, len)] {
            bus.write64(0, register, value).unwrap();
        }
        bus.write32(0, 0x20, dma::START | dma::INTERRUPT).unwrap();
        assert!(bus.interrupt(0).unwrap());
        assert_eq!((bus.read32(0, 0x24).unwrap(), bus.read32(0, 0x28).unwrap()), (dma::DONE, 0));
        let mut copied = vec![0; data.len()];
        bus.load(to, &mut copied).unwrap();
        assert!(copied == data, "{from:#x} to {to:#x}");
    }
}
