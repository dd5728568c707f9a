//! The transport: capabilities, registers, status, interrupts, notifications, resets.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gasp::Access;
use gasp_vdev::testbus::Options;
use gasp_vdev::{IrqKind, Register, Width, WriteEvents};
use gasp_virtio::block::{self, Block};
use gasp_virtio::entropy::Entropy;
use gasp_virtio::{Backing, VirtioPci};

use crate::driver::{
    DATA, Driver, EVENT_IDX, INDIRECT, IOVA, Noise, PLATFORM, RINGS, STARTED, VERSION_1, until,
};

fn disk() -> Block {
    Block::new(&Backing::memory(1 << 20), block::Options::default()).unwrap()
}

#[test]
fn the_capabilities_name_every_part_and_a_device_without_configuration_has_none() {
    let disk = Driver::attach(disk());
    let kinds: Vec<u8> = disk.capabilities().iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [1, 2, 3, 4, 5]);
    assert_eq!((disk.config32(0), disk.config32(8)), (0x1042_1af4, 0x0180_0001));
    for (at, kind) in disk.capabilities() {
        let len = [0, 16, 20, 16, 16, 20][usize::from(kind)];
        assert_eq!((disk.config8(at + 2), disk.config8(at + 4)), (len, 0), "BAR 0");
        let lens = [0, 0x38, 4, 1, 60, 0];
        assert_eq!(disk.config32(at + 12), lens[usize::from(kind)]);
    }
    let rng = Driver::attach(Entropy::new());
    let kinds: Vec<u8> = rng.capabilities().iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [1, 2, 3, 5]);
    assert_eq!(rng.config32(0), 0x1044_1af4);
}

#[test]
fn features_are_refused_unless_offered_and_modern() {
    let mut driver = Driver::attach(disk());
    let offered = driver.offered();
    let transport = VERSION_1 | PLATFORM | EVENT_IDX | INDIRECT;
    assert_eq!(offered & (transport | 1 << 9), transport | 1 << 9);
    driver.write::<4>(driver.common, 2);
    assert_eq!(driver.read::<4>(driver.common + 4), 0, "there are 64");
    let cases = [
        (0, false),
        (1 << 9, false),
        (VERSION_1, true),
        (VERSION_1 | 1 << 34, false),
        (VERSION_1 | 1, false),
        (offered, true),
    ];
    for (features, is_ok) in cases {
        driver.reset();
        driver.set_status(3);
        driver.accept(features);
        driver.set_status(3 | 8);
        assert_eq!(driver.status(), if is_ok { 11 } else { 3 }, "{features:#x}");
        // What was agreed on stays.
        driver.accept(!features);
        driver.write::<4>(driver.common + 8, 0);
        let low = if is_ok { features } else { !features } & 0xffff_ffff;
        assert_eq!(driver.read::<4>(driver.common + 0xc), low);
        // Without features there is no start.
        driver.set_status(STARTED);
        assert_eq!(driver.status() & 4 != 0, is_ok);
    }
}

#[test]
fn a_driver_that_ignores_the_iommu_in_front_of_the_device_cannot_use_it() {
    let mut driver = Driver::attach_to(VirtioPci::behind_iommu(disk()), Options::default());
    for (features, is_ok) in [(VERSION_1, false), (VERSION_1 | PLATFORM, true)] {
        driver.reset();
        driver.set_status(3);
        driver.accept(features);
        driver.set_status(3 | 8);
        assert_eq!(driver.status() & 8 != 0, is_ok);
    }
}

#[test]
fn the_registers_of_a_queue_hold_what_is_valid_and_are_fixed_once_it_is_enabled() {
    let mut driver = Driver::attach(Entropy::new());
    let common = driver.common;
    driver.reset();
    let size = |driver: &Driver| driver.read::<2>(common + 0x18);
    assert_eq!((driver.read::<2>(common + 0x12), size(&driver)), (1, 64));
    for (wanted, is) in [(0, 64), (3, 64), (128, 64), (32, 32), (1, 1), (16, 16)] {
        driver.write::<2>(common + 0x18, wanted);
        assert_eq!(size(&driver), is, "{wanted}");
    }
    for (wanted, is) in [(1, 1), (2, 0xffff), (0, 0), (0xffff, 0xffff)] {
        for vector in [0x10, 0x1a] {
            driver.write::<2>(common + vector, wanted);
            assert_eq!(driver.read::<2>(common + vector), is, "{wanted}");
        }
    }
    driver.write::<8>(common + 0x20, 0x1122_3344_5566_7788);
    driver.write::<4>(common + 0x24, 0xaabb_ccdd);
    assert_eq!(driver.read::<8>(common + 0x20), 0xaabb_ccdd_5566_7788);
    driver.write::<2>(common + 0x1c, 2);
    assert_eq!(driver.read::<2>(common + 0x1c), 0, "1 enables it");
    driver.write::<2>(common + 0x1c, 1);
    for (field, value) in [(0x18, 8), (0x1c, 0), (0x20, 1), (0x28, 1), (0x30, 1)] {
        driver.write::<2>(common + field, value);
    }
    assert_eq!((size(&driver), driver.read::<2>(common + 0x1c)), (16, 1));
    assert_eq!(driver.read::<8>(common + 0x20), 0xaabb_ccdd_5566_7788);
    // A queue that is not there.
    driver.write::<2>(common + 0x16, 1);
    for field in [0x18, 0x1a, 0x1c, 0x20, 0x28, 0x30] {
        driver.write::<2>(common + field, 1);
        assert_eq!(driver.read::<2>(common + field), 0);
    }
    driver.reset();
    assert_eq!((size(&driver), driver.read::<8>(common + 0x20)), (64, 0));
    assert_eq!(driver.read::<2>(common + 0x1a), 0xffff);
}

#[test]
fn every_width_reads_the_same_bytes() {
    let driver = Driver::attach(disk());
    driver.write::<8>(driver.common + 0x20, 0x8877_6655_4433_2211);
    for (base, len) in [(driver.common, 0x40), (driver.device.unwrap(), 64)] {
        let one: Vec<u8> = (0..len).map(|at| driver.read::<1>(base + at) as u8).collect();
        let mut all = vec![0; len as usize];
        driver.bus.shell().bar_read(0, base, &mut all).unwrap();
        assert_eq!(one, all);
        let mut odd = vec![0; len as usize - 3];
        driver.bus.shell().bar_read(0, base + 3, &mut odd).unwrap();
        assert_eq!(one[3..], odd);
        for at in (0..len - 4).step_by(2) {
            let two = driver.read::<2>(base + at) as u16;
            assert_eq!(two.to_le_bytes(), one[at as usize..][..2]);
        }
    }
}

#[test]
fn a_reset_reads_as_complete_only_after_the_device_has_ended() {
    let mut driver = Driver::attach(Entropy::new());
    for round in 0..1000_u64 {
        driver.start(if round % 2 == 0 { EVENT_IDX } else { 0 }, 8);
        let at = DATA + round % 7 * 64;
        assert_eq!(driver.run(0, &[(at, 16, true)]), 16);
        // Requests that a reset overtakes.
        for _ in 0..4 {
            driver.put(0, &[(at, 64, true)]);
        }
        driver.notify(0);
        driver.reset();
        // The memory is the driver's own again: nothing is written to it now.
        driver.bus.store(DATA, &[0; 512]).unwrap();
        let used = driver.bytes(RINGS + 0x2000, 80);
        assert_eq!(driver.bytes(DATA, 512), [0; 512]);
        assert_eq!(driver.bytes(RINGS + 0x2000, 80), used);
    }
}

#[test]
fn a_reset_of_the_function_in_the_middle_of_work_leaves_a_device_that_starts_again() {
    let mut driver = Driver::attach(disk());
    for _ in 0..1000 {
        driver.start(EVENT_IDX, 16);
        driver.bus.store(DATA, &[0; 16]).unwrap();
        for _ in 0..5 {
            driver.put(0, &[(DATA, 16, false), (DATA + 512, 512, true), (DATA + 2048, 1, true)]);
        }
        driver.notify(0);
        driver.bus.shell().reset();
        assert_eq!(driver.status(), 0);
        driver.bus.shell().config_write(4, &[6, 0]).unwrap();
    }
    driver.start(0, 16);
    let request = [(DATA, 16, false), (DATA + 512, 512, true), (DATA + 2048, 1, true)];
    assert_eq!(driver.run(0, &request), 513);
    assert_eq!(driver.bus.guest().take_faults(), gasp::Faults::default());
}

#[test]
fn interrupts_come_by_the_vector_of_their_queue_or_not_at_all() {
    let mut driver = Driver::attach(Entropy::new());
    driver.watch(1);
    driver.start(0, 8);
    // Without anything that was used there is none.
    for _ in 0..20 {
        driver.notify(0);
        std::thread::sleep(Duration::from_millis(1));
    }
    driver.start(0, 8);
    assert!(!driver.has_interrupt());
    driver.run(0, &[(DATA, 16, true)]);
    until(|| driver.has_interrupt().then_some(()));
    // The driver wants none: flags of the available ring.
    driver.bus.store(RINGS + 0x1000, &[1, 0]).unwrap();
    driver.run(0, &[(DATA, 16, true)]);
    driver.run(0, &[(DATA, 16, true)]);
    driver.bus.store(RINGS + 0x1000, &[0, 0]).unwrap();
    // Nor without a vector.
    driver.write::<2>(driver.common + 0x1a, 0xffff);
    driver.run(0, &[(DATA, 16, true)]);
    driver.write::<2>(driver.common + 0x1a, 0);
    driver.run(0, &[(DATA, 16, true)]);
    assert!(driver.bus.interrupt(0).unwrap(), "that of the new vector");
    assert!(!driver.has_interrupt());
}

#[test]
fn without_msix_the_pin_is_up_until_the_isr_is_read() {
    let mut driver = Driver::attach(Entropy::new());
    driver.bus.shell().interrupts().disable(IrqKind::Msix);
    driver.start(0, 8);
    let raised = |driver: &Driver| driver.config8(6) & 8 != 0;
    for width in [Width::One, Width::Four] {
        assert!(!raised(&driver));
        driver.run(0, &[(DATA, 16, true)]);
        until(|| raised(&driver).then_some(()));
        let isr = match width {
            Width::One => driver.read::<1>(driver.isr),
            _ => driver.read::<4>(driver.isr),
        };
        assert_eq!(isr, 1);
        assert!(!raised(&driver));
        assert_eq!(driver.read::<1>(driver.isr), 0);
    }
    // A change of the configuration: the device asks for a reset.
    driver.revoke(RINGS + 0x2000);
    driver.put(0, &[(DATA, 16, true)]);
    driver.notify(0);
    until(|| raised(&driver).then_some(()));
    assert_eq!(driver.read::<1>(driver.isr), 2);
    driver.grant(RINGS + 0x2000, Access::RW);
    driver.start(0, 8);
    driver.run(0, &[(DATA, 16, true)]);
    until(|| raised(&driver).then_some(()));
    driver.reset();
    assert!(!raised(&driver), "a reset lowers it");
    assert_eq!(driver.read::<1>(driver.isr), 0);
    driver.start(0, 8);
    driver.run(0, &[(DATA, 16, true)]);
    until(|| raised(&driver).then_some(()));
    driver.bus.shell().reset();
    assert_eq!((raised(&driver), driver.read::<1>(driver.isr)), (false, 0));
}

#[test]
fn with_the_event_index_the_driver_is_told_what_to_notify_of_and_no_request_is_lost() {
    let mut driver = Driver::attach(Entropy::new());
    driver.start(EVENT_IDX, 8);
    for count in 1..=200_u16 {
        let before = driver.put(0, &[(DATA, 16, true)]);
        // As a driver does: it notifies if the index that the device waits for was passed.
        let (_, event) = driver.asks(0);
        if event == count.wrapping_sub(1) {
            driver.notify(0);
        }
        // A driver that looks before may have told the device to interrupt for the next one alone.
        assert!(driver.bus.interrupt(1).unwrap());
        assert_eq!(driver.wait(0).0, before, "{count}");
        until(|| (driver.asks(0).1 == count).then_some(()));
    }
}

#[test]
fn without_the_event_index_flags_say_whether_to_notify_and_no_request_is_lost() {
    let mut driver = Driver::attach(Entropy::new());
    driver.start(0, 8);
    for count in 0..200_u16 {
        let before = driver.put(0, &[(DATA, 16, true)]);
        if driver.asks(0).0 & 1 == 0 {
            driver.notify(0);
        }
        assert_eq!(driver.wait(0).0, before, "{count}");
    }
}

#[test]
fn any_write_to_a_notification_register_notifies_also_if_the_kernel_takes_it() {
    for options in [Options::default(), Options::default().write_events()] {
        let mut driver = Driver::attach_to(VirtioPci::new(Entropy::new()), options);
        driver.start(0, 8);
        for width in 0..4 {
            driver.put(0, &[(DATA, 16, true)]);
            match width {
                0 => driver.write::<1>(driver.notify, 0),
                1 => driver.bus.write32(0, driver.notify, 0).unwrap(),
                2 => driver.write::<4>(driver.notify, u64::from(u32::MAX)),
                _ => driver.write::<8>(driver.notify, 7),
            }
            assert_eq!(driver.wait(0).1, 16);
        }
    }
}

/// What the kernel would be asked for.
#[derive(Default)]
struct Kernel(Mutex<Vec<(Register, Option<u64>, OwnedFd)>>);

impl WriteEvents for Kernel {
    fn connect(&self, at: Register, value: Option<u64>, event: BorrowedFd<'_>) -> bool {
        self.0.lock().unwrap().push((at, value, event.try_clone_to_owned().unwrap()));
        true
    }

    fn disconnect(&self, _: Register, _: Option<u64>) {}

    fn disconnect_all(&self) {
        self.0.lock().unwrap().clear();
    }
}

#[test]
fn notifications_need_not_leave_the_kernel() {
    let mut driver = Driver::attach(Entropy::new());
    driver.bus.detach();
    let vdev = driver.bus.guest().vdev("again").unwrap();
    vdev.attach(driver.bus.domain().unwrap()).unwrap().wait();
    let kernel = Arc::new(Kernel::default());
    let shell = driver.bus.shell();
    shell.attach(vdev, None, Some(kernel.clone())).unwrap();
    shell.config_write(4, &[6, 0]).unwrap();
    driver.start(EVENT_IDX, 8);
    until(|| (kernel.0.lock().unwrap().len() == 1).then_some(()));
    driver.put(0, &[(DATA, 16, true)]);
    let at = Register { bar: 0, offset: driver.notify, width: Width::Two };
    {
        let connected = kernel.0.lock().unwrap();
        let (register, value, event) = &connected[0];
        assert_eq!((*register, *value), (at, None));
        rustix::io::write(event, &1_u64.to_ne_bytes()).unwrap();
    }
    assert_eq!(driver.wait(0).1, 16);
}

#[test]
fn the_window_of_configuration_space_reaches_the_registers() {
    let driver = Driver::attach(disk());
    let (at, _) = *driver.capabilities().iter().find(|(_, kind)| *kind == 5).unwrap();
    let config =
        |at, value: u32| driver.bus.shell().config_write(at, &value.to_le_bytes()).unwrap();
    let select = |offset: u64, len| {
        driver.bus.shell().config_write(at + 4, &[0]).unwrap();
        config(at + 8, offset as u32);
        config(at + 12, len);
    };
    select(driver.common, 4);
    config(at + 16, 1);
    select(driver.common + 4, 4);
    assert_eq!(driver.config32(at + 16), 3, "VERSION_1 and ACCESS_PLATFORM");
    select(driver.common + 0x14, 1);
    config(at + 16, 0xffff_ff03);
    assert_eq!(driver.status(), 3);
    select(driver.device.unwrap(), 4);
    assert_eq!(driver.config32(at + 16), 2048, "sectors");
}

#[test]
fn nonsense_in_every_register_breaks_nothing() {
    let mut driver = Driver::attach(disk());
    let mut noise = Noise(1);
    for round in 0..20_000_u32 {
        let offset = match noise.below(4) {
            0 => noise.below(0x40),
            1 => 0x1000 * noise.below(4) + noise.below(0x40),
            2 => noise.below(0x8000),
            _ => driver.common + 0x14 + noise.below(0x24),
        };
        let len = (1 << noise.below(4)).min(0x8000 - offset) as usize;
        let value = match noise.below(3) {
            0 => noise.next(),
            1 => noise.below(16),
            _ => IOVA + noise.below(0x200) * 0x1000,
        };
        let shell = driver.bus.shell();
        match noise.below(8) {
            0 => shell.bar_read(0, offset, &mut value.to_le_bytes()[..len]).unwrap(),
            1 => {
                shell.config_write(noise.below(256), &value.to_le_bytes()).unwrap();
                shell.config_write(4, &[6, 0]).unwrap();
            }
            2 => shell.config_read(noise.below(256), &mut [0; 16]).unwrap(),
            _ => shell.bar_write(0, offset, &value.to_le_bytes()[..len]).unwrap(),
        }
        if round % 1000 == 0 {
            driver.bus.shell().reset();
            driver.bus.shell().config_write(4, &[6, 0]).unwrap();
        }
    }
    driver.bus.shell().reset();
    driver.bus.shell().config_write(4, &[6, 0]).unwrap();
    driver.start(EVENT_IDX, 16);
    driver.bus.store(DATA, &[0; 16]).unwrap();
    let request = [(DATA, 16, false), (DATA + 512, 512, true), (DATA + 2048, 1, true)];
    assert_eq!(driver.run(0, &request), 513);
}
