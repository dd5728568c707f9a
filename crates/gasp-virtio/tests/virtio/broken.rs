//! Drivers that break their queues: the device stops until it is reset, and works again then.

use gasp::{Access, DeviceAddr};
use gasp_virtio::Backing;
use gasp_virtio::block::{Block, Options};
use gasp_virtio::entropy::Entropy;

use crate::driver::{
    DATA, Driver, EVENT_IDX, IOVA, IS_INDIRECT, NEXT, Noise, RINGS, STARTED, WRITE,
};

const AVAILABLE: u64 = RINGS + 0x1000;
const USED: u64 = RINGS + 0x2000;

fn entropy() -> Driver {
    let mut driver = Driver::attach(Entropy::new());
    driver.start(0, 8);
    driver
}

/// After a reset it works.
fn works_again(driver: &mut Driver) {
    driver.start(EVENT_IDX, 8);
    assert_eq!(driver.run(0, &[(DATA, 64, true)]), 64);
}

#[test]
fn chains_that_do_not_end_break_the_device() {
    type Lay = fn(&Driver);
    let chains: [(&str, Lay); 10] = [
        ("a loop of one", |driver| driver.describe(RINGS, DATA + IOVA, 16, NEXT | WRITE, 0)),
        ("a loop of two", |driver| {
            driver.describe(RINGS, DATA + IOVA, 16, NEXT | WRITE, 1);
            driver.describe(RINGS + 16, DATA + IOVA, 16, NEXT | WRITE, 0);
        }),
        ("outside of the table", |driver| {
            driver.describe(RINGS, DATA + IOVA, 16, NEXT | WRITE, 8);
        }),
        ("a table of no descriptors", |driver| {
            driver.describe(RINGS, DATA + IOVA, 0, IS_INDIRECT, 0);
        }),
        ("a table of a part of a descriptor", |driver| {
            driver.describe(RINGS, DATA + IOVA, 17, IS_INDIRECT, 0);
        }),
        ("a table that cannot be read", |driver| {
            driver.describe(RINGS, u64::MAX - 15, 16, IS_INDIRECT, 0);
        }),
        ("a table in a table", |driver| {
            driver.describe(RINGS, DATA + IOVA, 32, IS_INDIRECT, 0);
            driver.describe(DATA, DATA + IOVA, 16, NEXT | WRITE, 1);
            driver.describe(DATA + 16, DATA + IOVA, 16, IS_INDIRECT, 0);
        }),
        ("a table longer than the queue", |driver| {
            driver.describe(RINGS, DATA + IOVA, 16 * 100, IS_INDIRECT, 0);
            for at in 0..100 {
                let flags = if at == 99 { WRITE } else { WRITE | NEXT };
                driver.describe(DATA + 16 * u64::from(at), DATA + IOVA, 1, flags, at + 1);
            }
        }),
        ("4 GiB and more", |driver| {
            driver.describe(RINGS, DATA + IOVA, u32::MAX, WRITE | NEXT, 1);
            driver.describe(RINGS + 16, DATA + IOVA, 1, WRITE, 0);
        }),
        ("to read after to write", |driver| {
            driver.describe(RINGS, DATA + IOVA, 16, WRITE | NEXT, 1);
            driver.describe(RINGS + 16, DATA + IOVA, 16, 0, 0);
        }),
    ];
    let mut driver = entropy();
    for (what, lay) in chains {
        driver.start(0, 8);
        lay(&driver);
        driver.offer(0, 0);
        driver.notify(0);
        driver.wait_broken();
        assert_eq!(driver.status(), STARTED | 64, "{what}");
        assert_eq!(driver.take(0), None, "{what}");
        works_again(&mut driver);
    }
}

#[test]
fn indices_that_are_impossible_break_the_device() {
    let mut driver = entropy();
    // More chains than the queue has entries; a head outside of the table.
    driver.bus.store(AVAILABLE + 2, &9_u16.to_le_bytes()).unwrap();
    driver.notify(0);
    driver.wait_broken();
    driver.start(0, 8);
    driver.offer(0, 8);
    driver.notify(0);
    driver.wait_broken();
    works_again(&mut driver);
}

#[test]
fn rings_that_the_iommu_refuses_break_the_device_whenever_that_is() {
    let mut driver = entropy();
    for page in [RINGS, AVAILABLE, USED] {
        // Already when it starts.
        driver.revoke(page);
        driver.reset();
        driver.set_status(3);
        driver.accept(1 << 32);
        driver.set_status(11);
        driver.write::<2>(driver.common + 0x10, 0);
        driver.set_up(0, 8);
        driver.set_status(STARTED);
        driver.wait_broken();
        driver.grant(page, Access::RW);
        works_again(&mut driver);
        // While it runs: first the page, as the device may still look for chains.
        driver.revoke(page);
        driver.put(0, &[(DATA, 16, true)]);
        driver.notify(0);
        driver.wait_broken();
        let faults = driver.bus.guest().take_faults();
        assert!(
            faults
                .records
                .iter()
                .all(|fault| { (page..page + 4096).contains(&(fault.addr.0 - IOVA)) })
        );
        assert!(!faults.records.is_empty());
        driver.grant(page, Access::RW);
        works_again(&mut driver);
    }
    // The used ring may only be read.
    driver.revoke(USED);
    driver.grant(USED, Access::READ);
    driver.put(0, &[(DATA, 16, true)]);
    let before = driver.bytes(USED, 64);
    driver.notify(0);
    driver.wait_broken();
    assert_eq!(driver.bytes(USED, 64), before);
}

#[test]
fn rings_at_impossible_places_break_the_device_as_it_starts() {
    let mut driver = entropy();
    let places = [
        (0x20, RINGS + IOVA + 8),
        (0x28, AVAILABLE + IOVA + 1),
        (0x30, USED + IOVA + 2),
        (0x20, u64::MAX - 15),
        (0x28, u64::MAX - 1),
        (0x30, u64::MAX - 3),
        (0x28, 0),
        (0x20, 0),
    ];
    for (field, place) in places {
        driver.reset();
        driver.set_status(3);
        driver.accept(1 << 32);
        driver.set_status(11);
        driver.write::<2>(driver.common + 0x10, 0);
        driver.write::<8>(driver.common + 0x20, RINGS + IOVA);
        driver.write::<8>(driver.common + 0x28, AVAILABLE + IOVA);
        driver.write::<8>(driver.common + 0x30, USED + IOVA);
        driver.write::<8>(driver.common + field, place);
        driver.write::<2>(driver.common + 0x1c, 1);
        driver.set_status(STARTED);
        driver.wait_broken();
    }
    works_again(&mut driver);
}

#[test]
fn a_device_that_is_not_bus_master_breaks_and_nothing_else() {
    let mut driver = entropy();
    driver.bus.shell().config_write(4, &[2, 0]).unwrap();
    driver.put(0, &[(DATA, 16, true)]);
    driver.notify(0);
    driver.wait_needs_reset();
    // Nor may it write a message until then.
    driver.bus.shell().config_write(4, &[6, 0]).unwrap();
    driver.wait_broken();
    works_again(&mut driver);
}

#[test]
fn what_is_no_request_of_a_disk_breaks_it() {
    let block = Block::new(&Backing::memory(1 << 20), Options::default()).unwrap();
    let mut driver = Driver::attach(block);
    let chains: [&[_]; 5] = [
        &[(DATA, 15, false), (DATA + 512, 1, true)],
        &[(DATA, 16, false)],
        &[(DATA, 16, false), (DATA + 512, 0, true)],
        &[(DATA, 16, true)],
        &[(DATA, 0, false)],
    ];
    for chain in chains {
        driver.start(0, 8);
        driver.put(0, chain);
        driver.notify(0);
        driver.wait_broken();
        assert_eq!(driver.take(0), None);
    }
    // A status that cannot be written.
    driver.start(0, 8);
    driver.revoke(DATA + 4096);
    driver.put(0, &[(DATA, 16, false), (DATA + 8192, 512, true), (DATA + 4096, 1, true)]);
    driver.notify(0);
    driver.wait_broken();
    assert_eq!(driver.take(0), None);
}

#[test]
fn no_request_is_carried_out_before_the_driver_has_started_the_device() {
    let mut driver = Driver::attach(Entropy::new());
    driver.reset();
    driver.set_status(3);
    driver.accept(1 << 32);
    driver.set_status(11);
    driver.set_up(0, 8);
    driver.put(0, &[(DATA, 16, true)]);
    driver.notify(0);
    // A later one, so that the first notification has surely been handled.
    driver.bus.detach();
    assert_eq!(driver.bytes(USED, 16), [0; 16]);
    assert_eq!(driver.bytes(DATA, 16), [0; 16]);
}

/// Rings and buffers of arbitrary bytes: the device ends each in bounded time, and writes only where
/// it may.
#[test]
fn hostile_rings_end_and_write_only_what_they_may() {
    for seed in 0..150 {
        let mut noise = Noise(seed);
        let mut driver = match seed % 2 {
            0 => Driver::attach(Entropy::new()),
            _ => {
                let block = Block::new(&Backing::memory(1 << 20), Options::default());
                Driver::attach(block.unwrap())
            }
        };
        driver.start(if noise.below(2) == 0 { EVENT_IDX } else { 0 }, 16);
        // A page that may only be read, in the middle of the data.
        let readonly = DATA + 0x3000;
        let kept = noise.bytes(4096);
        driver.bus.store(readonly, &kept).unwrap();
        driver.revoke(readonly);
        driver.grant(readonly, Access::READ);
        for _ in 0..6 {
            for at in 0..16 {
                let addr = match noise.below(8) {
                    0 => noise.next(),
                    1 => RINGS + noise.below(0x3000) + IOVA,
                    _ => DATA + noise.below(0x8000) + IOVA,
                };
                let len = match noise.below(6) {
                    0 => noise.next() as u32,
                    1 => 16,
                    _ => noise.below(2048) as u32,
                };
                let flags = noise.below(8) as u16;
                let place = if noise.below(3) == 0 { DATA + 0x8000 } else { RINGS };
                driver.describe(place + 16 * at, addr, len, flags, noise.below(17) as u16);
            }
            for _ in 0..1 + noise.below(8) {
                let head = noise.below(17) as u16;
                driver.offer(0, head);
            }
            driver.notify(0);
            if noise.below(4) == 0 {
                driver.bus.store(RINGS, &noise.bytes(0x3000)).unwrap();
                driver.notify(0);
            }
        }
        // Detaching waits for the work.
        driver.bus.detach();
        assert_eq!(driver.bytes(readonly, 4096), kept, "{seed}");
        let domain = driver.bus.domain().unwrap();
        let all = domain.revoke(DeviceAddr(IOVA), gasp_vdev::testbus::RAM).unwrap();
        assert!(all.wait().completed(), "nothing is held: {seed}");
    }
}
