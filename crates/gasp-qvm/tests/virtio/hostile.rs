//! What a driver does wrong, and how far that goes.

use gasp::Access as Allowed;
use gasp_qvm::vio::exports::{vio_reset, vio_setup_queues};

use crate::driver::{ACK, DATA, Driver, Event, INDIRECT, INTERRUPT, NEXT, STATUS, WRITE, rings};
use crate::vdev::{Converted, INVALID, InC, PLAIN};

fn started() -> (Driver, InC) {
    let driver = Driver::mmio(&PLAIN);
    driver.start(1 << 28);
    let vdev = driver.in_c();
    // SAFETY: the device lives.
    assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
    (driver, vdev)
}

/// The device needs a reset, which the driver is told; it has no requests, and works after it.
fn is_broken(driver: &mut Driver, vdev: InC, what: &str) {
    assert_eq!(vdev.take(0).0, INVALID, "{what}");
    assert_eq!(driver.status(), 15 | 64, "{what}");
    assert_eq!((driver.get(INTERRUPT) & 2, driver.events().pop()), (2, Some(Event::Line(true))));
    driver.chain(0, 7, &[(DATA, 1, WRITE)]);
    assert_eq!(vdev.take(0).0, INVALID, "{what}: nothing until the reset");
    driver.set(STATUS, 0);
    // SAFETY: the device lives.
    unsafe { vio_reset(vdev.vsp) };
    assert_eq!((driver.status(), driver.get(INTERRUPT)), (0, 0));
    assert_eq!(driver.events(), [Event::Line(false)]);
    driver.restart();
    driver.start(0);
    // SAFETY: as above.
    assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
    driver.chain(0, 7, &[(DATA, 1, WRITE)]);
    assert_eq!(vdev.take(0), (7, 7), "{what}: it works again");
}

type Entry = (u64, u32, u16, u16);

#[test]
fn chains_that_the_standard_forbids_break_the_device() {
    let table = DATA + 0x1000;
    let cases: &[(&str, &[Entry], &[Entry])] = &[
        ("a loop", &[(DATA, 1, NEXT, 1), (DATA, 1, NEXT, 0)], &[]),
        ("a loop of one", &[(DATA, 1, NEXT, 0)], &[]),
        ("a descriptor that there is not", &[(DATA, 1, NEXT, 8)], &[]),
        ("the last number", &[(DATA, 1, NEXT, 0xffff)], &[]),
        ("to read after to write", &[(DATA, 1, NEXT | WRITE, 1), (DATA, 1, 0, 0)], &[]),
        ("more than 4 GiB", &[(DATA, !0, NEXT, 1), (DATA, 2, 0, 0)], &[]),
        ("a table in a table", &[(table, 16, INDIRECT, 0)], &[(table, 16, INDIRECT, 0)]),
        ("a table in the middle", &[(table, 16, INDIRECT | NEXT, 1)], &[(DATA, 1, 0, 0)]),
        ("an empty table", &[(table, 0, INDIRECT, 0)], &[]),
        ("half an entry", &[(table, 24, INDIRECT, 0)], &[(DATA, 1, 0, 0)]),
        ("a loop in a table", &[(table, 32, INDIRECT, 0)], &[(DATA, 1, NEXT, 0)]),
        ("past the table", &[(table, 16, INDIRECT, 0)], &[(DATA, 1, NEXT, 1)]),
        ("a table that is nowhere", &[(0xdead_0000_0000, 16, INDIRECT, 0)], &[]),
        ("a table that wraps", &[(!0xf, 0x20, INDIRECT, 0)], &[]),
    ];
    for (what, direct, indirect) in cases {
        let (mut driver, vdev) = started();
        for (index, entry) in (0..).zip(*direct) {
            driver.descriptor(rings(0)[0], index, *entry);
        }
        for (index, entry) in (0..).zip(*indirect) {
            driver.descriptor(table, index, *entry);
        }
        driver.offer(0, 0);
        is_broken(&mut driver, vdev, what);
    }
}

#[test]
fn the_longest_chain_is_as_long_as_the_queue() {
    let table = DATA + 0x1000;
    for (len, is_ok) in [(8, true), (9, false)] {
        let (mut driver, vdev) = started();
        for index in 0..len {
            let more = if index + 1 == len { 0 } else { NEXT };
            driver.descriptor(table, index, (DATA, 1, more, index + 1));
        }
        driver.descriptor(rings(0)[0], 0, (table, u32::from(len) * 16, INDIRECT, 0));
        driver.offer(0, 0);
        match is_ok {
            true => assert_eq!(vdev.take(0).0, 0),
            false => is_broken(&mut driver, vdev, "nine descriptors in a queue of eight"),
        }
    }
}

#[test]
fn rings_that_are_no_rings_break_the_device() {
    let (mut driver, vdev) = started();
    driver.poke(rings(0)[1] + 2, &9_u16.to_le_bytes());
    is_broken(&mut driver, vdev, "more available than there are");

    let (mut driver, vdev) = started();
    driver.offer(0, 8);
    is_broken(&mut driver, vdev, "a head that there is not");

    let (mut driver, vdev) = started();
    driver.chain(0, 1, &[(DATA, 1, 0)]);
    driver.offer(0, 1);
    assert_eq!(vdev.take(0).0, 1);
    is_broken(&mut driver, vdev, "a request that is in progress, again");
}

#[test]
fn a_ring_that_the_iommu_takes_away_breaks_the_device() {
    for part in 0..3 {
        let mut driver = Driver::new(&PLAIN, "loc 0xfa000000 intr ioapic:5", true);
        for queue in 0..2 {
            driver.grant(rings(queue)[0], 0x3000, Allowed::RW);
        }
        driver.start(0);
        let vdev = driver.in_c();
        // SAFETY: the device lives.
        assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
        driver.chain(0, 0, &[(DATA, 1, WRITE)]);
        driver.chain(0, 1, &[(DATA, 1, WRITE)]);
        let id = vdev.take(0).0;
        assert_eq!(id, 0);
        let at = rings(0)[part];
        let domain = driver.domain.clone().unwrap();
        // Nothing of the rings is held between two calls.
        let mut drain = domain.revoke(gasp::DeviceAddr(at), 0x1000).unwrap();
        assert!(drain.poll().is_some(), "part {part}");
        if part == 2 {
            vdev.put(0, id, 1, true);
        }
        assert_eq!(vdev.take(0).0, INVALID, "part {part}");
        assert_eq!(driver.status(), 15 | 64, "part {part}");
    }
}

#[test]
fn a_queue_that_cannot_be_where_the_driver_says_breaks_the_device() {
    let [table, available, used] = rings(0);
    let places = [
        [0xdead_0000_0000, available, used],
        [table, 0xdead_0000_0000, used],
        [table, available, 0xdead_0000_0000],
        [table + 8, available, used],
        [table, available + 1, used],
        [table, available, used + 2],
        [!0xf, available, used],
        [table, 0, used],
    ];
    for place in places {
        let driver = Driver::mmio(&PLAIN);
        assert!(driver.negotiate(1 << 32));
        driver.queue_at(0, 8, place);
        driver.set(STATUS, 15);
        let vdev = driver.in_c();
        // SAFETY: the device lives.
        assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, libc::EIO, "{place:x?}");
        assert!(vdev.queue(0).is_null());
        assert_eq!((driver.status(), driver.events()), (15 | 64, vec![Event::Line(true)]));
    }
    // Sizes that are none change nothing.
    let driver = Driver::mmio(&PLAIN);
    for size in [0, 3, 16, 0x1_0004, !0] {
        driver.queue_at(0, size, rings(0));
        driver.set(0x44, 0);
    }
    assert!(driver.negotiate(1 << 32));
    driver.queue(1);
    driver.queue_at(0, 0x1_0004, rings(0));
    driver.set(STATUS, 15);
    let vdev = driver.in_c();
    // SAFETY: as above.
    assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
    // SAFETY: the device lives, and has two queues.
    let info = unsafe { &*(*vdev.vsp).qinfo };
    assert_eq!(info.size.load(std::sync::atomic::Ordering::Relaxed), 8);
}

/// A generator that is the same each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A driver that does anything, and a vdev that answers as it should: nothing crashes, nothing is
/// held in the end, and each request that is taken has an end.
#[test]
fn a_driver_that_does_anything_hurts_nobody() {
    let library = &*PLAIN;
    for seed in 1..=24 {
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut driver = Driver::mmio(library);
        let vdev = driver.in_c();
        let mut taken = 0;
        for _ in 0..600 {
            match noise.below(10) {
                // SAFETY: the device lives.
                0 => drop(unsafe { vio_setup_queues(vdev.vsp) }),
                1 => {
                    let queue = noise.below(2) as u16;
                    let (at, len) = (DATA + noise.below(0x1000), noise.below(64) as u32);
                    driver.chain(queue, noise.below(6) as u16, &[(at, len, 0), (at, 8, WRITE)]);
                }
                2 => {
                    let bytes = noise.next().to_le_bytes();
                    let len = 1 << noise.below(4);
                    driver.device.write(Driver::at(noise.below(0x120)), &bytes[..len]);
                }
                3 => {
                    let mut bytes = [0; 8];
                    let len = 1 << noise.below(4);
                    driver.device.read(Driver::at(noise.below(0x120)), &mut bytes[..len]);
                }
                4 => {
                    let place = rings(noise.below(2) as u16)[noise.below(3) as usize];
                    driver.poke(place + noise.below(64), &noise.next().to_le_bytes());
                }
                5 | 6 => {
                    let queue = noise.below(2) as u16;
                    let flags = noise.below(8) as u16;
                    let at = DATA + noise.below(0x1_0000);
                    let entry = (at, noise.below(64) as u32, flags, noise.below(9) as u16);
                    driver.descriptor(rings(queue)[0], noise.below(8) as u16, entry);
                    driver.offer(queue, noise.below(9) as u16);
                }
                7 | 8 => {
                    let queue = noise.below(2) as usize;
                    let (id, first) = vdev.take(queue);
                    if id == INVALID {
                        continue;
                    }
                    taken += 1;
                    let (mut number, mut steps) = (first, 0);
                    while number != INVALID {
                        number = vdev.descriptor(queue, number).next;
                        steps += 1;
                        assert!(steps <= 8, "a chain that does not end");
                    }
                    let mut request = Converted::new(noise.below(6) as usize + 1);
                    request.structure.iov.hdr_len = noise.below(40) as u32;
                    let bytes = vdev.get_iov(queue, first, &mut request);
                    if bytes >= 0 {
                        assert_eq!(request.lens().iter().sum::<usize>(), bytes as usize);
                        vdev.put_iov(&mut request);
                    }
                    vdev.put(queue, id, bytes.max(0) as u32, true);
                }
                _ => driver.set(ACK, 3),
            }
            if driver.status() != 15 && noise.below(2) == 0 {
                driver.device.write(Driver::at(STATUS), &[0; 4]);
                // SAFETY: as above.
                unsafe { vio_reset(vdev.vsp) };
                driver.restart();
                driver.start(1 << 28 | noise.below(2) << 29);
                // SAFETY: as above.
                assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
            }
        }
        assert_eq!(driver.vdev.held(), 0, "seed {seed}");
        assert!(taken > 20, "seed {seed}: {taken} requests");
    }
}
