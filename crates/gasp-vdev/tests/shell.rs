//! A device in its shell, driven without a VMM: life, registers, transfers, runs.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use gasp_vdev::dma::{self, DmaEngine};
use gasp_vdev::testbus::{Options, TestBus, until};
use gasp_vdev::{
    AttachError, Bar, Class, Device, DeviceContext, Identity, Model, RegionError, Register, Shell,
    Width,
};

/// Starts the engine, waits until it has finished, and returns its status.
fn run(bus: &TestBus, source: u64, destination: u64, length: u64, control: u32) -> u32 {
    for (offset, value) in [(0x08, source), (0x10, destination), (0x18, length)] {
        bus.write64(0, offset, value).unwrap();
    }
    bus.write32(0, 0x20, control).unwrap();
    let status = || bus.read32(0, 0x24).unwrap();
    until(|| (status() != dma::BUSY).then(status)).unwrap()
}

#[test]
fn the_engine_copies_and_can_be_attached_again() {
    let detached = Shell::new("dma", DmaEngine::new()).unwrap();
    assert_eq!(detached.bar_read(0, 0, &mut [0; 4]), Err(RegionError::Detached));
    let mut bus = TestBus::new(DmaEngine::new()).unwrap();
    for round in 0..3_u8 {
        let other = bus.guest().vdev(&format!("again-{round}")).unwrap();
        let again = bus.shell().attach(other, None, None);
        assert!(matches!(again, Err(AttachError::Attached)));
        assert_eq!(bus.read64(0, 0x08).unwrap(), 0, "as after a reset");
        let data: Vec<u8> = (0..1_500_000_u32).map(|n| (n / 3) as u8 ^ round).collect();
        bus.store(0x123, &data).unwrap();
        assert_eq!(run(&bus, 0x123, 0x20_0001, data.len() as u64, dma::START), dma::DONE);
        let mut copied = vec![0; data.len()];
        bus.load(0x20_0001, &mut copied).unwrap();
        assert!(copied == data);
        bus.detach();
        bus.detach();
        assert!(!bus.shell().is_attached());
        bus.attach().unwrap();
    }
}

#[test]
fn runs_are_what_the_engine_would_give_to_hardware() {
    let bus = TestBus::new(DmaEngine::new()).unwrap();
    let status = run(&bus, 0x1800, 0, 0x1_0000, dma::START | dma::RUNS);
    let read32 = |offset| bus.read32(0, offset).unwrap();
    let read64 = |offset| bus.read64(0, offset).unwrap();
    if bus.ram().host_run(0, 1).is_err() {
        // EPERM, without the privilege.
        assert_eq!((status, read32(0x28)), (dma::FAILED, 1));
        return;
    }
    assert_eq!(status, dma::DONE);
    let (mut done, count) = (0, read32(0x2c));
    for index in 0..count {
        bus.write32(0, 0x38, index).unwrap();
        let (addr, len) = (read64(0x40), read64(0x48));
        let run = bus.ram().host_run(0x1800 + done, 0x1_0000 - done).unwrap();
        assert_eq!((addr, len), (run.addr.0, run.len));
        done += len;
    }
    assert_eq!((done, read64(0x30)), (0x1_0000, 0x1_0000));
}

/// Counts its calls of `work`; a write to register 0 rings, register 8 makes work long.
struct Counter {
    works: Arc<AtomicU32>,
    long: AtomicU32,
}

impl Device for Counter {
    fn model(&self) -> Model {
        let class = Class { base: 0xff, sub: 0, interface: 0 };
        let identity = Identity {
            vendor: 1,
            device: 2,
            subsystem_vendor: 3,
            subsystem: 4,
            revision: 5,
            class,
        };
        Model::new(identity).bar(Bar::memory(0, 64))
    }

    fn read(&self, _: &DeviceContext, _: Register) -> u64 {
        u64::from(self.works.load(Ordering::Relaxed))
    }

    fn write(&self, context: &DeviceContext, at: Register, value: u64) {
        match at.offset {
            0 => context.ring(),
            _ => self.long.store(value as u32, Ordering::Relaxed),
        }
    }

    fn work(&self, context: &DeviceContext) {
        self.works.fetch_add(1, Ordering::Relaxed);
        while self.long.load(Ordering::Relaxed) != 0 && !context.should_stop() {
            std::thread::yield_now();
        }
        self.works.fetch_add(1 << 16, Ordering::Relaxed);
    }

    fn reset(&self) {
        let works = self.works.load(Ordering::Relaxed);
        assert_eq!(works >> 16, works & 0xffff, "no work during a reset");
    }
}

#[test]
fn work_runs_once_a_ring_ends_before_a_reset_and_ends_when_the_vmm_goes() {
    let works = Arc::new(AtomicU32::new(0));
    let counter = Counter { works: Arc::clone(&works), long: AtomicU32::new(0) };
    let bus = TestBus::new(counter).unwrap();
    let count = || works.load(Ordering::Relaxed) & 0xffff;
    let wait = |least| until(|| (count() >= least).then_some(())).unwrap();
    bus.write32(0, 0, 1).unwrap();
    wait(1);
    bus.write32(0, 8, 1).unwrap();
    bus.write32(0, 0, 1).unwrap();
    wait(2);
    // Long work, which a reset ends, and later a detachment.
    bus.shell().reset();
    bus.write32(0, 0, 1).unwrap();
    wait(3);
    bus.detach();
    assert_eq!(works.load(Ordering::Relaxed), 3 | 3 << 16);
}

/// Register 8 has the writes of 7 to register 0 ring, register 16 undoes it. Counts the writes that
/// arrive, and the calls of `work` above.
#[derive(Default)]
struct Rung {
    counts: Arc<[AtomicU32; 2]>,
}

impl Device for Rung {
    fn model(&self) -> Model {
        Counter { works: Arc::default(), long: AtomicU32::new(0) }.model()
    }

    fn read(&self, _: &DeviceContext, _: Register) -> u64 {
        0
    }

    fn write(&self, context: &DeviceContext, at: Register, value: u64) {
        let register = Register { bar: 0, offset: 0, width: Width::Four };
        match at.offset {
            8 => assert_eq!(context.ring_on_write(register, Some(7)), value != 0),
            16 => context.stop_ringing(register, Some(7)),
            _ => drop(self.counts[0].fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn work(&self, _: &DeviceContext) {
        self.counts[1].fetch_add(1, Ordering::Relaxed);
    }

    fn reset(&self) {}
}

#[test]
fn writes_ring_instead_of_arriving_until_a_stop_a_reset_or_a_detachment() {
    let device = Rung::default();
    let counts = Arc::clone(&device.counts);
    let count = |index: usize| counts[index].load(Ordering::Relaxed);
    let mut bus = Options::default().write_events().attach(device).unwrap();
    type End = fn(&mut TestBus);
    let ends: [End; 3] = [
        |bus| bus.write32(0, 16, 0).unwrap(),
        |bus| bus.shell().reset(),
        |bus| {
            bus.detach();
            bus.attach().unwrap();
        },
    ];
    for (round, end) in (1..).zip(ends) {
        bus.write32(0, 8, 1).unwrap();
        bus.write32(0, 8, 1).unwrap();
        bus.write32(0, 0, 7).unwrap();
        until(|| (count(1) == round).then_some(())).unwrap();
        assert_eq!(count(0), 2 * (round - 1));
        bus.write32(0, 0, 6).unwrap();
        end(&mut bus);
        bus.write32(0, 0, 7).unwrap();
        assert_eq!((count(0), count(1)), (2 * round, round));
    }
}

#[test]
fn a_front_end_without_write_events_says_so() {
    let device = Rung::default();
    let counts = Arc::clone(&device.counts);
    let bus = TestBus::new(device).unwrap();
    bus.write32(0, 8, 0).unwrap();
    bus.write32(0, 16, 0).unwrap();
    bus.write32(0, 0, 7).unwrap();
    assert_eq!(counts[0].load(Ordering::Relaxed), 1);
}

#[test]
fn a_guest_with_an_iommu_denies_what_is_not_granted() {
    let bus = Options::default().iommu().attach(DmaEngine::new()).unwrap();
    assert_eq!(run(&bus, 0, 0x1000, 16, dma::START), dma::FAILED);
    assert_eq!(bus.read32(0, 0x28).unwrap(), 14, "EFAULT");
    assert_eq!(bus.guest().take_faults().records.len(), 1);
}

/// Notes whether it is bus master.
#[derive(Default)]
struct Mastering(Arc<parking_lot::Mutex<Vec<bool>>>);

impl Device for Mastering {
    fn model(&self) -> Model {
        DmaEngine::new().model()
    }

    fn read(&self, _: &DeviceContext, _: Register) -> u64 {
        0
    }

    fn write(&self, _: &DeviceContext, _: Register, _: u64) {}

    fn bus_master(&self, enabled: bool) {
        self.0.lock().push(enabled);
    }

    fn reset(&self) {}
}

#[test]
fn a_device_is_told_of_each_change_of_the_bus_master_bit() {
    let device = Mastering::default();
    let told = Arc::clone(&device.0);
    // The bus sets it.
    let bus = TestBus::new(device).unwrap();
    for command in [6_u8, 2, 2, 0, 4, 6] {
        bus.shell().config_write(4, &[command, 0]).unwrap();
    }
    bus.shell().reset();
    bus.shell().reset();
    assert_eq!(*told.lock(), [true, false, true, false]);
}
