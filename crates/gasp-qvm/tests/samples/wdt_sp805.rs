//! `vdev-wdt-sp805.c`, by the sequences of a driver of the SP805.

use std::time::{Duration, Instant};

use gasp_qvm::{Answer, Cause, End};

use crate::Test;
use crate::device::{Device, Numbers, library, patience, until};

const LOAD: u64 = 0x000;
const VALUE: u64 = 0x004;
const CONTROL: u64 = 0x008;
const INTCLR: u64 = 0x00c;
const RIS: u64 = 0x010;
const MIS: u64 = 0x014;
const LOCK: u64 = 0xc00;
const PERIPHID0: u64 = 0xfe0;

const INTEN: u32 = 1;
const RESEN: u32 = 2;
const KEY: u32 = 0x1acc_e551;

/// `GTC_WATCHDOG`.
const WATCHDOG: i32 = 4;

pub(crate) const TESTS: &[Test] = &[
    ("wdt-sp805: registers have their values of a reset", reset_values),
    ("wdt-sp805: zero interrupts, and the next zero ends the guest", bites),
    ("wdt-sp805: a guest that clears the interrupt goes on", is_fed),
    ("wdt-sp805: without RESEN the guest goes on, and with it ends", without_reset),
    ("wdt-sp805: without INTEN the count stands still", stopped),
    ("wdt-sp805: a lock keeps registers from being written", locked),
    ("wdt-sp805: what is no register, or too fast, does no harm", misused),
    ("wdt-sp805: a clock that is none is refused", options),
];

fn start(edition: u32, options: &str) -> Device {
    let line = format!("vdev wdt-sp805 {options} intr ioapic:10 loc 0xfa001000");
    Device::start(&library("wdt-sp805", edition), &line)
}

fn registers(device: &Device) -> [u32; 6] {
    [LOAD, VALUE, CONTROL, RIS, MIS, LOCK].map(|register| device.read32(register))
}

fn end(device: &Device) -> End {
    End { vdev: device.vdev.name().to_owned(), cause: Cause::Terminated(WATCHDOG) }
}

fn reset_values(edition: u32) {
    let device = start(edition, "");
    assert_eq!(registers(&device), [u32::MAX, u32::MAX, 0, 0, 0, 0]);
    let identity: Vec<u32> = (0..8).map(|n| device.read32(PERIPHID0 + 4 * n)).collect();
    assert_eq!(identity, [0x05, 0x18, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1], "as the bus probes");
    let report = device.vdev.status();
    let expected = "load 4294967295, value 4294967295, control 0, no interrupt\n";
    assert_eq!(report, expected);
    assert_eq!((device.rises(), device.ends()), (0, vec![]));
    device.finish();
}

fn bites(edition: u32) {
    let device = start(edition, "clock 1000");
    let began = Instant::now();
    device.write32(LOAD, 49);
    device.write32(CONTROL, INTEN | RESEN);
    assert!(device.read32(VALUE) <= 49);
    until("it interrupts", || device.is_raised());
    let first = began.elapsed();
    until("it ends the guest", || !device.ends().is_empty());
    let second = began.elapsed();
    assert_eq!(device.ends(), [end(&device)]);
    assert!(first >= Duration::from_millis(50), "{first:?}");
    assert!(second >= Duration::from_millis(100), "{second:?}");
    assert!(second < patience() / 2, "{second:?}");
    // It is over: the count does not go on.
    std::thread::sleep(Duration::from_millis(120));
    assert_eq!(device.ends().len(), 1);
    assert_eq!(registers(&device), [49, 49, INTEN | RESEN, 1, 1, 0]);
    device.finish();
}

fn is_fed(edition: u32) {
    let device = start(edition, "clock 1000");
    // Long enough for a thread of a busy machine to be late.
    device.write32(LOAD, 299);
    device.write32(CONTROL, INTEN | RESEN);
    for round in 1..=2 {
        until("it interrupts", || device.is_raised());
        assert_eq!((device.read32(RIS), device.read32(MIS)), (1, 1));
        device.write32(INTCLR, 0);
        assert!(!device.is_raised());
        assert_eq!((device.read32(RIS), device.read32(MIS), device.rises()), (0, 0, round));
    }
    // A new count before the interrupt: nothing happens.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(700) {
        device.write32(LOAD, 299);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((device.rises(), device.ends()), (2, vec![]));
    device.finish();
}

fn without_reset(edition: u32) {
    let device = start(edition, "clock 1000");
    device.write32(LOAD, 9);
    device.write32(CONTROL, INTEN);
    until("it interrupts", || device.is_raised());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!((device.rises(), device.ends()), (1, vec![]));
    let seen: Vec<u32> = (0..30)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            device.read32(VALUE)
        })
        .collect();
    assert!(seen.iter().all(|value| *value <= 9), "{seen:?}");
    assert!(seen.iter().any(|value| *value != seen[0]), "the count goes on: {seen:?}");
    device.write32(CONTROL, INTEN | RESEN);
    until("it ends the guest", || !device.ends().is_empty());
    device.finish();
}

fn stopped(edition: u32) {
    let device = start(edition, "clock 1000");
    device.write32(LOAD, 199);
    device.write32(CONTROL, INTEN);
    until("the count begins", || device.read32(VALUE) < 190);
    device.write32(CONTROL, 0);
    let value = device.read32(VALUE);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((device.read32(VALUE), device.rises()), (value, 0));
    // It begins again from the start.
    device.write32(CONTROL, INTEN);
    assert!(device.read32(VALUE) > value);
    until("it interrupts", || device.is_raised());
    // The enable bit is that of the interrupt, too.
    device.write32(CONTROL, 0);
    assert_eq!((device.is_raised(), device.read32(RIS), device.read32(MIS)), (false, 1, 0));
    device.write32(CONTROL, INTEN);
    assert!(device.is_raised());
    device.finish();
}

fn locked(edition: u32) {
    let device = start(edition, "");
    device.write32(LOAD, 77);
    for lock in [0, 1, u32::MAX, KEY - 1] {
        device.write32(LOCK, lock);
        for register in [LOAD, CONTROL, INTCLR] {
            device.write32(register, 3);
        }
        assert_eq!(registers(&device), [77, 77, 0, 0, 0, 1]);
    }
    assert!(device.vdev.status().ends_with(", locked\n"));
    device.write32(LOCK, KEY);
    device.write32(LOAD, 78);
    assert_eq!((device.read32(LOCK), device.read32(LOAD)), (0, 78));
    device.finish();
}

fn misused(edition: u32) {
    let device = start(edition, "clock 1000000000");
    for offset in [VALUE, RIS, MIS, PERIPHID0, 0x100, 0xf00] {
        let before = device.read32(offset);
        device.write32(offset, 0x1234_5678);
        assert_eq!(device.read32(offset), before, "{offset:#x}");
    }
    device.write32(CONTROL, 0xffff_fffc);
    assert_eq!(device.read32(CONTROL), 0);
    assert_eq!(device.load::<1>(LOAD), (Answer::Unsupported, [0xff]));
    assert_eq!(device.load::<8>(LOAD), (Answer::Unsupported, [0xff; 8]));
    assert_eq!(device.store(LOAD, &[1, 2]), Answer::Unsupported);
    for offset in [2, 0xfff, 0x1000, u64::MAX] {
        assert_eq!(device.load::<4>(offset), (Answer::Failed, [0xff; 4]), "{offset:#x}");
        assert_eq!(device.store(offset, &[0; 4]), Answer::Failed, "{offset:#x}");
    }
    // A period of a nanosecond, for ever: one interrupt, and the timer has nothing more to do.
    device.write32(LOAD, 0);
    device.write32(CONTROL, INTEN);
    until("it interrupts", || device.is_raised());
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((device.rises(), device.read32(VALUE)), (1, 0));
    let mut numbers = Numbers(805);
    for _ in 0..3000 {
        let register = [LOAD, VALUE, CONTROL, INTCLR, RIS, MIS, LOCK][numbers.next() as usize % 7];
        let number = numbers.next() as u32;
        // Not the bit that ends the guest.
        let number = if register == CONTROL { number & INTEN } else { number };
        device.write32(register, if register == LOCK { KEY } else { number });
        device.read32(register);
    }
    assert_eq!(device.ends(), []);
    device.finish();
}

fn options(edition: u32) {
    let library = library("wdt-sp805", edition);
    for clock in ["0", "-1", "1000000001", "99999999999999999999", "fast", "1MHz", "''", "0x"] {
        let text = Device::refusal(&library, &format!("vdev wdt-sp805 clock {clock}"));
        assert!(text.contains("clock") && text.contains("Invalid argument"), "{text}");
    }
    let text = Device::refusal(&library, "vdev wdt-sp805 clock");
    assert!(text.contains("clock"), "{text}");
    let text = Device::refusal(&library, "vdev wdt-sp805 loc io:0x80");
    assert!(text.contains("in memory"), "{text}");
}
