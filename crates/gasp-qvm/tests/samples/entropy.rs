//! `vdev-virtio-entropy.c`, as Linux's virtio-rng uses it.

use std::time::Duration;

use crate::Test;
use crate::device::{library, until};
use crate::driver::{ACK, DATA, Driver, Event, INTERRUPT, NOTIFY, STATUS, VERSION_1, WRITE};

pub(crate) const TESTS: &[Test] = &[
    ("virtio-entropy: each request gets other bytes, and an interrupt", fills),
    ("virtio-entropy: a reset ends what is in progress", reset),
];

fn start(edition: u32) -> Driver {
    let driver = Driver::mmio(&library("virtio-entropy", edition));
    assert_eq!((driver.get(0), driver.get(4), driver.get(8)), (0x7472_6976, 2, 4));
    resume(&driver);
    driver
}

fn resume(driver: &Driver) {
    assert!(driver.negotiate(VERSION_1));
    driver.queue(0);
    driver.set(STATUS, 15);
}

fn finish(driver: Driver) {
    until("it lets go", || driver.vdev.held() == 0);
    assert!(driver.device.terminate().is_empty());
}

fn fills(edition: u32) {
    let mut driver = start(edition);
    let mut seen = vec![[0; 32]];
    for round in 1..=20_u16 {
        driver.chain(0, 0, &[(DATA, 32, WRITE)]);
        driver.set(NOTIFY, 0);
        until("the request is used", || driver.used(0, 0).0 == round);
        assert_eq!(driver.used(0, u64::from((round - 1) % 8)), (round, 0, 32));
        until("it interrupts", || driver.get(INTERRUPT) == 1);
        driver.set(ACK, 1);
        until("the line is up, then down", || {
            driver.events().ends_with(&[Event::Line(true), Event::Line(false)])
        });
        let bytes = driver.peek::<32>(DATA);
        assert!(!seen.contains(&bytes), "{bytes:?}");
        seen.push(bytes);
    }
    assert_eq!(driver.peek::<32>(DATA + 32), [0; 32], "not past the buffer");
    // A request that is too long gets as much as does not take long.
    driver.chain(0, 0, &[(DATA + 0x1000, 0xf000, WRITE), (DATA + 0x1_0000, 0x2000, WRITE)]);
    driver.set(NOTIFY, 0);
    until("the request is used", || driver.used(0, 4) == (21, 0, 0x1_0000));
    assert_ne!(driver.peek::<32>(DATA + 0x1_0fe0), [0; 32]);
    assert_eq!(driver.peek::<32>(DATA + 0x1_1000), [0; 32]);
    finish(driver);
}

fn reset(edition: u32) {
    let mut driver = start(edition);
    for round in 0..40 {
        for _ in 0..8 {
            driver.chain(0, 0, &[(DATA, 0x8_0000, WRITE)]);
        }
        driver.set(NOTIFY, 0);
        std::thread::sleep(Duration::from_micros(50 * (round % 8)));
        driver.set(STATUS, 0);
        assert_eq!((driver.status(), driver.vdev.held()), (0, 0));
        driver.poke(DATA, &[0; 64]);
        driver.restart();
        resume(&driver);
        assert_eq!(driver.peek::<64>(DATA), [0; 64], "no request of before writes any more");
    }
    driver.chain(0, 0, &[(DATA, 32, WRITE)]);
    driver.set(NOTIFY, 0);
    until("the request is used", || driver.used(0, 0) == (1, 0, 32));
    finish(driver);
}
