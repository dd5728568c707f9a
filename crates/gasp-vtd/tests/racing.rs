//! Devices that miss in several threads, while the guest takes away what they use.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gasp::{DeviceAddr, GuestPhys, MapFlags};
use support::*;

const PAGES: u64 = 8;
const TARGET: u64 = 0x20_0000;

/// Ends the threads, also if the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A guest's way to take pages away, and to give them back.
struct Way {
    what: &'static str,
    take: fn(&Machine, Tables, u64) -> Vec<[u64; 2]>,
    give: fn(&Machine, Tables, u64),
    /// Whether it is one page only.
    is_one: bool,
}

const WAYS: [Way; 5] = [
    Way {
        what: "a page",
        take: |machine, tables, page| {
            machine.unmap(tables, page << 12);
            vec![iotlb_pages(tables.id, page << 12, 0)]
        },
        give: |machine, tables, page| machine.map(tables, page << 12, TARGET + (page << 12), R | W),
        is_one: true,
    },
    Way {
        what: "a page, by domain",
        take: |machine, tables, page| {
            machine.unmap(tables, page << 12);
            vec![iotlb_domain(tables.id)]
        },
        give: |machine, tables, page| machine.map(tables, page << 12, TARGET + (page << 12), R | W),
        is_one: true,
    },
    Way {
        what: "a table",
        take: |machine, tables, _| {
            let entry = machine.entry(tables, 0, 2);
            machine.write(entry, machine.word(entry) & !3);
            vec![iotlb_pages(tables.id, 0, 9)]
        },
        give: |machine, tables, _| {
            let at = tables.root;
            let entry = machine.word(at) & !0xfff;
            machine.write(entry, machine.word(entry) | 3);
        },
        is_one: false,
    },
    Way {
        what: "the contexts",
        take: |machine, tables, _| {
            for id in [DISK, NET] {
                let at = machine.context(id);
                machine.write(at, 0);
            }
            let device = |id: gasp_vtd::RequesterId| context_device(tables.id, id.0, 0);
            vec![device(DISK), device(NET), iotlb_domain(tables.id)]
        },
        give: |machine, tables, _| {
            [DISK, NET].map(|id| machine.set_context(id, tables)).map(drop).into_iter().collect()
        },
        is_one: false,
    },
    Way {
        what: "the root",
        take: |machine, tables, _| {
            let _ = tables;
            machine.set64(RTADDR, STATUS + 0x1000);
            machine.command(QIE | TE | SRTP, SRTP);
            vec![]
        },
        give: |machine, _, _| {
            machine.set64(RTADDR, ROOT);
            machine.command(QIE | TE | SRTP, SRTP);
        },
        is_one: false,
    },
];

#[test]
fn what_was_taken_away_is_never_written_again() {
    let (machine, tables) = Machine::started();
    machine.set_context(NET, tables);
    machine.guest.write_firmware(GuestPhys(STATUS + 0x1000), &[0; 4096]).unwrap();
    (0..PAGES).for_each(|page| machine.map(tables, page << 12, TARGET + (page << 12), R | W));
    let (ends, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let is_clear = |page: u64| {
        let mut bytes = [0; 8];
        machine.guest.read_firmware(GuestPhys(TARGET + (page << 12)), &mut bytes).unwrap();
        bytes == [0; 8]
    };
    std::thread::scope(|scope| {
        let _end = End(&ends);
        for (number, vdev) in [&machine.disk, &machine.disk, &machine.net].into_iter().enumerate() {
            let (ends, written) = (&ends, &written);
            scope.spawn(move || {
                let mut page = number as u64;
                while !ends.load(Ordering::Relaxed) {
                    page = (page * 5 + 3) % PAGES;
                    let addr = DeviceAddr(page << 12);
                    if let Ok(mapping) = vdev.map(addr, 8, MapFlags::WRITE) {
                        if number == 1 {
                            std::thread::yield_now();
                        }
                        mapping.write_at(0, &[0xff; 8]).unwrap();
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let start = Instant::now();
        let mut turn = 0;
        while turn < 100 && start.elapsed() < Duration::from_secs(5) {
            let way = &WAYS[turn as usize % WAYS.len()];
            let page = turn * 7 % PAGES;
            let stamp = machine.post(&(way.take)(&machine, tables, page));
            wait_until(way.what, || machine.is_complete(stamp));
            let taken = if way.is_one { page..page + 1 } else { 0..PAGES };
            for page in taken.clone() {
                let addr = GuestPhys(TARGET + (page << 12));
                machine.guest.write_firmware(addr, &[0; 8]).unwrap();
            }
            std::thread::sleep(Duration::from_micros(50));
            assert!(taken.clone().all(is_clear), "turn {turn}: {} was taken away", way.what);
            (way.give)(&machine, tables, page);
            let before = written.load(Ordering::Relaxed);
            wait_until("devices go on", || written.load(Ordering::Relaxed) > before);
            turn += 1;
        }
        assert!(turn >= 2 * WAYS.len() as u64, "{turn} turns");
    });
}

#[test]
fn domain_ids_and_contexts_that_change_all_the_time_end_in_what_was_set_last() {
    let (machine, first) = Machine::started();
    let second = Tables { id: 2, ..machine.tables(3, 2) };
    machine.map(first, 0, TARGET, R | W);
    machine.map(second, 0, TARGET + 0x1000, R | W);
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End(&ends);
        for _ in 0..2 {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    assert!(machine.reached(&machine.disk, 0, RW).is_ok());
                    machine.disk.domain().unwrap().invalidate_all().unwrap().wait();
                }
            });
        }
        for turn in 0..300 {
            let (old, new) = if turn % 2 == 0 { (first, second) } else { (second, first) };
            // As a driver switches without a moment in between; the entry has two halves.
            machine.set_context(DISK, new);
            let stamp = machine.post(&[context_device(old.id, DISK.0, 0), iotlb_domain(old.id)]);
            wait_until("it completes", || machine.is_complete(stamp));
            let expected = if turn % 2 == 0 { TARGET + 0x1000 } else { TARGET };
            assert_eq!(machine.reached(&machine.disk, 0, RW).unwrap(), expected, "turn {turn}");
        }
    });
}

#[test]
fn tables_that_are_scribbled_over_while_they_are_walked_do_no_harm() {
    let (machine, tables) = Machine::started();
    machine.set_context(NET, Tables { levels: 4, ..tables });
    (0..PAGES).for_each(|page| machine.map(tables, page << 12, TARGET + (page << 12), R | W));
    let last = machine.table();
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End(&ends);
        for vdev in [&machine.disk, &machine.net] {
            scope.spawn(|| {
                let mut addr = 1_u64;
                while !ends.load(Ordering::Relaxed) {
                    addr = addr.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    let held = vdev.map_scatter(DeviceAddr(addr >> 40), 1 + (addr & 0x3fff), READ);
                    drop(held);
                }
            });
        }
        scope.spawn(|| {
            // Any table may lead to any other, or to itself, or nowhere.
            let mut word = 1_u64;
            let mut random = || {
                word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                word >> 16
            };
            while !ends.load(Ordering::Relaxed) {
                let at = ROOT + random() % (last - ROOT) / 8 * 8;
                let in_queue = (QUEUE..STATUS + 8).contains(&at);
                let to = match random() % 4 {
                    0 => random() << 12,
                    _ => (ROOT + random() % (last - ROOT)) & !0xfff,
                };
                if !in_queue {
                    machine.write(at, to | [0, 1, 3, 0x83][(random() % 4) as usize]);
                }
            }
        });
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(400) {
            for descriptor in [iotlb_pages(1, 0, 9), iotlb_domain(1), context_all(), iotlb_all()] {
                let stamp = machine.post(&[descriptor]);
                wait_until("it completes", || machine.is_complete(stamp));
            }
        }
    });
    assert_eq!(machine.get32(FSTS) & IQE, 0);
    machine.guest.write_firmware(GuestPhys(ROOT), &[0; 4096]).unwrap();
    let tables = machine.tables(3, 1);
    machine.set_context(DISK, tables);
    machine.map(tables, 0x5000, TARGET, R);
    machine.submit(&[context_all(), iotlb_all()]);
    assert_eq!(machine.reached(&machine.disk, 0x5000, READ).unwrap(), TARGET);
}
