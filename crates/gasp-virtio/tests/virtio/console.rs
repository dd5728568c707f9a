//! The console.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use gasp::Access;
use gasp_virtio::{Console, VirtioPci};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::driver::{DATA, Driver, EVENT_IDX, Noise, until};

/// A console on two pipes: what is typed, and what is seen.
fn console() -> (Driver, File, File) {
    let (input, typed) = rustix::pipe::pipe().unwrap();
    let (seen, output) = rustix::pipe::pipe().unwrap();
    let mut driver = Driver::attach(Console::new(Some(input), output));
    driver.start(EVENT_IDX, 16);
    (driver, File::from(typed), File::from(seen))
}

#[test]
fn what_is_typed_arrives_in_order_whenever_there_are_buffers_for_it() {
    let (mut driver, mut typed, _seen) = console();
    let text = Noise(5).bytes(30_000);
    let (send, mut arrived) = (text.clone(), Vec::new());
    let typist = std::thread::spawn(move || {
        for piece in send.chunks(700) {
            typed.write_all(piece).unwrap();
        }
        typed
    });
    let mut noise = Noise(6);
    while arrived.len() < text.len() {
        let len = 1 + noise.below(900) as u32;
        driver.put(0, &[(DATA, len / 2, true), (DATA + 4096, len - len / 2, true)]);
        driver.notify(0);
        let (_, written) = driver.wait(0);
        assert!((1..=len).contains(&written));
        let first = written.min(len / 2);
        arrived.extend(driver.bytes(DATA, first as usize));
        arrived.extend(driver.bytes(DATA + 4096, (written - first) as usize));
    }
    assert!(arrived == text);
    // Buffers wait for input.
    let mut typed = typist.join().unwrap();
    driver.put(0, &[(DATA, 100, true)]);
    driver.notify(0);
    assert_eq!(driver.take(0), None);
    typed.write_all(b"later").unwrap();
    assert_eq!(driver.wait(0).1, 5);
    assert_eq!(driver.bytes(DATA, 5), b"later");
    // After the end of the input there is no more, and the output works on.
    drop(typed);
    driver.put(0, &[(DATA, 100, true)]);
    driver.notify(0);
    driver.bus.store(DATA + 8192, b"out").unwrap();
    assert_eq!(driver.run(1, &[(DATA + 8192, 3, false)]), 0);
    assert_eq!(driver.take(0), None);
}

#[test]
fn a_buffer_that_cannot_be_written_is_returned_empty_and_the_input_goes_to_the_next() {
    let (mut driver, mut typed, _seen) = console();
    driver.revoke(DATA);
    driver.grant(DATA, Access::READ);
    driver.put(0, &[(DATA, 10, true)]);
    driver.put(0, &[(DATA + 4096, 0, true)]);
    driver.put(0, &[(DATA + 4096, 10, true)]);
    driver.notify(0);
    typed.write_all(b"text").unwrap();
    assert_eq!([driver.wait(0).1, driver.wait(0).1, driver.wait(0).1], [0, 0, 4]);
    assert_eq!(driver.bytes(DATA + 4096, 4), b"text");
}

#[test]
fn what_the_driver_writes_is_seen_in_order_however_slowly_it_is_read() {
    let (mut driver, _typed, mut seen) = console();
    let text = Noise(8).bytes(400_000);
    driver.bus.store(DATA, &text).unwrap();
    // Much more than the pipe takes, in chains of several buffers.
    let mut at = 0;
    for len in [100_000_u64, 1, 4095, 195_904, 100_000] {
        let first = len / 3;
        let buffers =
            [(DATA + at, first as u32, false), (DATA + at + first, (len - first) as u32, false)];
        driver.put(1, &buffers);
        at += len;
    }
    driver.notify(1);
    let mut arrived: Vec<u8> = Vec::new();
    while arrived.len() < text.len() {
        let mut bytes = [0; 5000];
        let count = seen.read(&mut bytes).unwrap();
        arrived.extend(&bytes[..count]);
    }
    assert!(arrived == text);
    for _ in 0..5 {
        assert_eq!(driver.wait(1).1, 0);
    }
}

#[test]
fn an_output_that_nobody_reads_holds_up_neither_input_nor_resets_nor_the_end() {
    let (mut driver, mut typed, seen) = console();
    driver.bus.store(DATA, &[7; 200_000]).unwrap();
    for _ in 0..3 {
        let full = driver.put(1, &[(DATA, 200_000, false)]);
        driver.notify(1);
        typed.write_all(b"in").unwrap();
        assert_eq!(driver.run(0, &[(DATA + 0x4_0000, 10, true)]), 2);
        assert_eq!((driver.take(1), full), (None, 0));
        driver.start(EVENT_IDX, 16);
    }
    driver.put(1, &[(DATA, 200_000, false)]);
    driver.notify(1);
    driver.bus.shell().reset();
    driver.bus.shell().config_write(4, &[6, 0]).unwrap();
    driver.start(EVENT_IDX, 16);
    // The reader goes away: what is written is lost, and the driver goes on.
    driver.put(1, &[(DATA, 200_000, false)]);
    driver.notify(1);
    drop(seen);
    driver.wait(1);
    assert_eq!(driver.run(1, &[(DATA, 100, false)]), 0);
}

/// A pseudoterminal: its master, and its other side.
fn terminal() -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (master, slave)
}

/// Has a console on a terminal write more than it takes, and resets and detaches it meanwhile. A
/// device's thread that waits for the terminal would never answer.
fn check_stalled(near: OwnedFd, far: OwnedFd) {
    let (ended, end) = channel();
    let input = near.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut driver = Driver::attach(Console::new(Some(input), near));
        driver.start(EVENT_IDX, 16);
        driver.bus.store(DATA, &[b'x'; 200_000]).unwrap();
        for _ in 0..2 {
            driver.put(1, &[(DATA, 200_000, false)]);
            driver.notify(1);
            driver.notify(0);
            // So that it is being written.
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(driver.take(1), None);
            driver.start(EVENT_IDX, 16);
        }
        driver.put(1, &[(DATA, 200_000, false)]);
        driver.notify(1);
        driver.bus.shell().reset();
        driver.bus.shell().config_write(4, &[6, 0]).unwrap();
        driver.start(EVENT_IDX, 16);
        driver.put(1, &[(DATA, 200_000, false)]);
        driver.notify(1);
        driver.bus.detach();
        ended.send(()).unwrap();
    });
    let ended = end.recv_timeout(Duration::from_secs(20));
    assert_eq!(ended, Ok(()), "the device's thread waits for the terminal");
    drop(far);
}

#[test]
fn a_terminal_that_nobody_reads_holds_up_neither_resets_nor_the_end() {
    let (master, slave) = terminal();
    check_stalled(slave, master);
    // A device at the master, of which a program has the other side.
    let (master, slave) = terminal();
    check_stalled(master, slave);
    // One that was stopped.
    let (master, slave) = terminal();
    rustix::io::write(&master, b"\x13").unwrap();
    check_stalled(slave, master);
}

#[test]
fn input_that_a_reset_overtakes_is_void_and_the_console_can_be_attached_again() {
    let (mut driver, mut typed, _seen) = console();
    typed.write_all(b"before").unwrap();
    // A buffer for a part of it.
    assert_eq!(driver.run(0, &[(DATA, 2, true)]), 2);
    driver.bus.detach();
    driver.bus.attach().unwrap();
    driver.start(0, 8);
    driver.put(0, &[(DATA, 64, true)]);
    driver.notify(0);
    typed.write_all(b"after").unwrap();
    assert_eq!(driver.wait(0).1, 5);
    assert_eq!(driver.bytes(DATA, 5), b"after");
}

#[test]
fn a_size_is_offered_if_there_is_one_and_its_change_interrupts() {
    let (near, _far) = UnixStream::pair().unwrap();
    let ours = || OwnedFd::from(near.try_clone().unwrap());
    let plain = Driver::attach(Console::new(None, ours()));
    assert_eq!(plain.offered() & 1, 0);
    let console = Console::new(Some(ours()), ours()).sized(80, 25);
    let shared = Arc::new(console);
    let mut driver = Driver::attach_to(VirtioPci::new(Arc::clone(&shared)), Default::default());
    assert_eq!(driver.offered() & 1, 1);
    driver.start(1, 8);
    let device = driver.device.unwrap();
    let size = |driver: &Driver| (driver.read::<2>(device), driver.read::<2>(device + 2));
    assert_eq!((size(&driver), driver.read::<4>(device + 4)), ((80, 25), 1));
    let generation = driver.read::<1>(driver.common + 0x15);
    shared.resize(132, 50);
    assert!(driver.bus.interrupt(0).unwrap());
    assert_eq!(size(&driver), (132, 50));
    assert_ne!(driver.read::<1>(driver.common + 0x15), generation);
    // A driver that has read it before its start hears of a change in between.
    driver.start(1, 8);
    driver.watch(0);
    driver.bus.store(DATA, b"x").unwrap();
    driver.run(1, &[(DATA, 1, false)]);
    assert!(!driver.has_interrupt());
    driver.reset();
    shared.resize(10, 10);
    driver.start(1, 8);
    until(|| driver.has_interrupt().then_some(()));
    assert_eq!(size(&driver), (10, 10));
}
