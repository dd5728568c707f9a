//! A window of configuration space on a BAR, and a doorbell that a thread of the device rings.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use gasp_vdev::testbus::{TestBus, until};
use gasp_vdev::{
    Bar, Bell, Class, Device, DeviceContext, Identity, Model, Register, VendorCapability, Window,
};

/// Its registers from 8 on read as their offset. What is written there is kept, with the width;
/// register 0 counts calls of `work`, which a thread asks for at each write.
#[derive(Default)]
struct Echo {
    works: AtomicU64,
    written: AtomicU64,
    bell: Mutex<Option<Bell>>,
}

impl Device for Echo {
    fn model(&self) -> Model {
        let class = Class { base: 0xff, sub: 0, interface: 0 };
        let (vendor, device, subsystem_vendor, subsystem, revision) = (0x1234, 1, 0, 0, 0);
        let identity = Identity { vendor, device, subsystem_vendor, subsystem, revision, class };
        let window = Some(Window { bar: 1, offset: 5, len: 9, data: 13 });
        let capability =
            VendorCapability { contents: vec![0; 17], writable: vec![0xff; 17], window };
        Model::new(identity).bar(Bar::memory(2, 4096)).vendor(capability)
    }

    fn attached(&self, context: &DeviceContext) {
        *self.bell.lock().unwrap() = Some(context.bell().unwrap());
    }

    fn read(&self, _: &DeviceContext, at: Register) -> u64 {
        match at.offset {
            0 => self.works.load(Ordering::Relaxed),
            4 => self.written.load(Ordering::Relaxed),
            offset => offset * 0x0101_0101,
        }
    }

    fn write(&self, _: &DeviceContext, at: Register, value: u64) {
        self.written.store(value << 8 | at.width.bytes(), Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| self.bell.lock().unwrap().as_ref().unwrap().ring());
        });
    }

    fn work(&self, _: &DeviceContext) {
        self.works.fetch_add(1, Ordering::Relaxed);
    }

    fn reset(&self) {}
}

/// Selects the window's register.
fn select(bus: &TestBus, bar: u8, offset: u32, len: u32) {
    bus.shell().config_write(0x44, &[bar]).unwrap();
    bus.shell().config_write(0x48, &offset.to_le_bytes()).unwrap();
    bus.shell().config_write(0x4c, &len.to_le_bytes()).unwrap();
}

fn data(bus: &TestBus) -> u32 {
    let mut bytes = [0; 4];
    bus.shell().config_read(0x50, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

#[test]
fn an_access_to_the_data_of_a_window_is_an_access_to_the_bar() {
    let mut bus = TestBus::new(Echo::default()).unwrap();
    for (len, read) in [(1, 0x10), (2, 0x1010), (4, 0x1010_1010_u32)] {
        bus.shell().config_write(0x4c, &[0; 4]).unwrap();
        bus.shell().config_write(0x50, &[0; 4]).unwrap();
        select(&bus, 2, 0x10, len);
        assert_eq!(data(&bus), read, "the rest stays");
        bus.shell().config_write(0x50, &0x44_3322_u32.to_le_bytes()).unwrap();
        let written = u64::from(0x44_3322_u32) & (u64::MAX >> (64 - 8 * len));
        let expected = (written << 8 | u64::from(len)) as u32;
        assert_eq!(bus.read32(2, 4).unwrap(), expected);
    }
    // No such BAR, past its end, not attached: nothing happens.
    select(&bus, 2, 0x10, 4);
    data(&bus);
    for (bar, offset) in [(0, 0x20), (9, 0x20), (2, 4096), (2, u32::MAX - 3)] {
        select(&bus, bar, offset, 4);
        assert_eq!(data(&bus), 0x1010_1010, "{bar} {offset:#x}");
        bus.shell().config_write(0x50, &0x1010_1010_u32.to_le_bytes()).unwrap();
    }
    select(&bus, 2, 0x20, 4);
    bus.detach();
    assert_eq!(data(&bus), 0x1010_1010);
    bus.attach().unwrap();
    assert_eq!(data(&bus), 0, "as after a reset");
}

#[test]
fn a_thread_of_the_device_wakes_its_work() {
    let mut bus = TestBus::new(Echo::default()).unwrap();
    for round in 1..4 {
        bus.write32(2, 8, 1).unwrap();
        until(|| (bus.read32(2, 0).unwrap() >= round).then_some(())).unwrap();
        bus.detach();
        bus.attach().unwrap();
    }
}
