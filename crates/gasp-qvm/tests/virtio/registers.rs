//! Registers of MMIO, negotiation, and the configuration.

use gasp_qvm::Answer;
use gasp_qvm::vio::exports::{vio_config_update, vio_device_status, vio_init_queue, vio_reset};

use crate::driver::{
    ACK, CONFIG, Driver, EVENT_IDX, Event, INTERRUPT, QUEUE_SEL, STATUS, VERSION_1,
};
use crate::vdev::{PLAIN, PLAIN_710};

/// The size of the plain device's configuration.
const LEN: u64 = 32;

#[test]
fn the_block_of_registers_is_that_of_version_2() {
    for library in [&PLAIN, &PLAIN_710] {
        let driver = Driver::mmio(library);
        assert_eq!(driver.device.placed().unwrap().len, 0x200, "it says how long it is");
        let identity = [0, 4, 8, 12].map(|at| driver.get(at));
        assert_eq!(identity, [0x7472_6976, 2, 20, 0x1c05]);
        // Its own feature, and those of the transport: not those that it may not offer.
        driver.set(0x14, 0);
        assert_eq!(driver.get(0x10), 1 << 3 | 1 << 28 | 1 << 29);
        driver.set(0x14, 1);
        assert_eq!(driver.get(0x10), 1 | 2);
        driver.set(0x14, 2);
        assert_eq!(driver.get(0x10), 0);
        let max = |queue| {
            driver.set(QUEUE_SEL, queue);
            driver.get(0x34)
        };
        assert_eq!([0, 1, 2, 0x1_0000].map(max), [8, 8, 0, 0], "the last is no other name of 0");
        // No shared memory, and nothing where there is no register.
        assert_eq!([0xb0, 0xb4, 0xb8, 0xbc, 0x1c].map(|at| driver.get(at)), [!0, !0, !0, !0, 0]);
    }
}

#[test]
fn registers_are_accessed_as_a_whole() {
    let driver = Driver::mmio(&PLAIN);
    assert_eq!((driver.read::<1>(0), driver.read::<2>(0), driver.read::<8>(0)), (0, 0, 0));
    assert_eq!(driver.read::<4>(2), 0);
    driver.write::<1>(STATUS, 1);
    driver.write::<8>(STATUS, 1);
    driver.write::<4>(STATUS - 2, 0x1_0000);
    assert_eq!(driver.status(), 0);
    driver.set(STATUS, 1);
    // Bits of which there are none do not reset it.
    driver.set(STATUS, 0x100);
    assert_eq!(driver.status(), 1);
    let mut data = [0; 4];
    let before =
        driver.device.read(gasp_qvm::Access { addr: 0xf9ff_fff0, ..Driver::at(0) }, &mut data);
    assert_eq!(before, Answer::Failed, "it is before the registers");
}

#[test]
fn features_are_the_vdevs_once_they_are_agreed_upon() {
    let driver = Driver::mmio(&PLAIN);
    let vdev = driver.in_c();
    for wrong in [0, 1 << 3, VERSION_1 | 1 << 24, VERSION_1 | 1 << 34] {
        assert!(!driver.negotiate(wrong), "{wrong:#x}");
        assert_eq!(vdev.features(), [0; 4]);
        driver.set(STATUS, 0);
    }
    assert!(driver.negotiate(VERSION_1 | 1 << 3));
    assert_eq!(driver.class(), 0x40000 | 8, "VIOREF_CLASS_STATUS");
    assert_eq!(vdev.features(), [1 << 3, 1, 0, 0]);
    // The device refuses them.
    // SAFETY: the device lives.
    assert_eq!(unsafe { vio_device_status(vdev.vsp, 0, 8) }, 3);
    assert_eq!(driver.status(), 3);
    driver.set(STATUS, 11);
    driver.set(STATUS, 15);
    // SAFETY: as above. Other bits are not its own.
    assert_eq!(unsafe { vio_device_status(vdev.vsp, 0x80 | 0x30, 8 | 4 | 1) }, 15, "too late");
    // SAFETY: as above.
    assert_eq!(unsafe { vio_device_status(vdev.vsp, 64, 0) }, 15 | 64);
    assert_eq!(driver.get(INTERRUPT), 2);
}

#[test]
fn a_reset_is_complete_when_the_vdev_says_so() {
    let driver = Driver::mmio(&PLAIN);
    let vdev = driver.in_c();
    driver.start(0);
    driver.set(STATUS, 0);
    assert_eq!(driver.class(), 0x30000, "VIOREF_CLASS_RESET");
    assert_eq!(driver.status(), 15);
    driver.set(STATUS, 1);
    assert_eq!(driver.status(), 15, "nothing is accepted meanwhile");
    // SAFETY: the device lives.
    unsafe { vio_reset(vdev.vsp) };
    assert_eq!((driver.status(), vdev.features()), (0, [0; 4]));
    driver.set(QUEUE_SEL, 0);
    assert_eq!((driver.get(0x44), driver.get(0x34)), (0, 8));
    // A device that has not started is reset at once.
    driver.set(STATUS, 3);
    driver.set(STATUS, 0);
    assert_eq!((driver.class(), driver.status()), (0x30000, 0));
}

#[test]
fn a_queue_is_enabled_and_disabled_and_notified_if_there_is_one() {
    let driver = Driver::mmio(&PLAIN);
    assert!(driver.negotiate(VERSION_1));
    driver.queue(1);
    assert_eq!(driver.class(), 0x20000 | 1, "VIOREF_CLASS_ENABLED");
    assert_eq!(driver.get(0x44), 1);
    let vdev = driver.in_c();
    // SAFETY: the device lives.
    let init = |queue, max| unsafe { vio_init_queue(vdev.vsp, queue, max) };
    assert_eq!(init(1, 16), libc::EBUSY);
    assert_eq!([init(2, 8), init(0, 0), init(0, 32769)], [libc::EINVAL; 3]);
    driver.set(0x44, 0);
    assert_eq!(driver.get(0x44), 0);
    assert_eq!(init(1, 100), 0);
    assert_eq!(driver.get(0x34), 64, "a power of two");
    driver.set(0x50, 0);
    assert_eq!(driver.class(), 0x10000, "VIOREF_CLASS_NOTIFY");
    driver.set(0x50, 1);
    assert_eq!(driver.class(), 0x10000 | 1);
    for none in [2, 0x1_0000, 0xffff_ffff] {
        driver.set(0x50, none);
        assert_eq!(driver.class(), 0, "VIOREF_CLASS_NOP: the vdev would use it as an index");
    }
}

#[test]
fn the_vdev_sees_only_what_is_within_its_configuration() {
    let driver = Driver::mmio(&PLAIN);
    let counts = || (driver.get(CONFIG + 20), driver.get(CONFIG + 24));
    let (reads, writes) = counts();
    assert_eq!(counts(), (reads + 2, writes));
    driver.write::<4>(CONFIG + 28, 7);
    assert_eq!(driver.get(CONFIG + 28), 7);
    // Past the end, and across it.
    let before = counts();
    for (len, at) in [(1, LEN), (4, LEN - 2), (8, LEN - 4), (8, 0x1000), (8, 0xf_ffff)] {
        let (mut data, access) = ([7; 8], Driver::at(CONFIG + at));
        assert_eq!(driver.device.write(access, &[9; 8][..len]), Answer::Done);
        assert_eq!(driver.device.read(access, &mut data[..len]), Answer::Done);
        assert!(data[..len].iter().all(|byte| *byte == 0), "{at:#x}");
    }
    assert_eq!(driver.get(CONFIG + 28), 7);
    let after = counts();
    assert_eq!(after, (before.0 + 3, before.1), "the reads of this test alone");
}

#[test]
fn a_change_of_the_configuration_interrupts_a_driver_that_listens() {
    let driver = Driver::mmio(&PLAIN);
    let vdev = driver.in_c();
    // SAFETY: the device lives.
    let change = || unsafe { vio_config_update(vdev.vsp) };
    change();
    assert_eq!((driver.get(0xfc), driver.get(INTERRUPT)), (1, 0));
    assert_eq!(driver.events(), []);
    driver.start(EVENT_IDX);
    change();
    assert_eq!((driver.get(0xfc), driver.get(INTERRUPT)), (2, 2));
    assert_eq!(driver.events(), [Event::Line(true)]);
    driver.set(ACK, 1);
    assert_eq!((driver.get(INTERRUPT), driver.events()), (2, vec![]));
    driver.set(ACK, 2);
    assert_eq!((driver.get(INTERRUPT), driver.events()), (0, vec![Event::Line(false)]));
}
