//! The cost of a miss, from the root table to a page, and of an invalidation with its wait descriptor.
//!
//! `cargo run --release -p gasp-vtd --example cost`
#![allow(clippy::unwrap_used, reason = "a measurement may panic")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use gasp::{
    DeviceAddr, DomainOptions, Guest, GuestPhys, MapFlags, MemoryObject, Translator, Unattached,
    Vdev,
};
use gasp_page_tables::vtd::{Capabilities, Levels, SecondLevel, Table};
use gasp_vtd::{RequesterId, Unit};

/// As many pages have their entries in 8 tables.
const PAGES: u64 = 4096;
const DISK: RequesterId = RequesterId(0x0020);
const ROOT: u64 = 0x1000;
const CONTEXT: u64 = 0x2000;
const QUEUE: u64 = 0x3000;
const STATUS: u64 = 0x5000;
const TABLES: u64 = 0x1_0000;

fn main() {
    println!("ns, the best of 50 rounds");
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    guest.space().add_ram(None, &MemoryObject::ram(64 << 20).create().unwrap()).unwrap();
    write_tables(&guest);

    // The walk alone, without what leads to it.
    let table = Table { root: GuestPhys(TABLES), levels: Levels::Four };
    let walk: Arc<dyn Translator> = Arc::new(SecondLevel::new(Capabilities::new(48), table));
    let domain = guest.domain("walk", DomainOptions::ask(walk)).unwrap();
    let plain = guest.vdev("plain").unwrap();
    plain.attach(&domain).unwrap().wait();
    let invalidate = || assert!(domain.invalidate_all().unwrap().wait().completed());
    println!("a miss, four levels                        {:7.1}", misses(&plain, invalidate));

    let unit = Unit::new(&guest, |_| ()).unwrap();
    let disk = guest.vdev("disk").unwrap();
    unit.connect(DISK, &disk).unwrap().wait();
    start(&unit);
    let invalidate = || unit.write(0x508, &(1_u64 << 63 | 1 << 60).to_le_bytes());
    println!("a miss, root, context and four levels      {:7.1}", misses(&disk, invalidate));
    let hit = best(1 << 16, || (), |step| touch(&disk, step % PAGES));
    println!("a hit                                      {hit:7.1}");

    // Each page is used, and taken away by a page-selective invalidation and a wait descriptor.
    let ring = guest.map_firmware(GuestPhys(QUEUE), 4096, MapFlags::WRITE).unwrap();
    let (mut tail, mut stamp) = (0, 0_u64);
    let mut invalidate = |page: u64| {
        stamp += 1;
        let pages = [2 | 3 << 4 | 3 << 6 | 1 << 16, page << 12];
        let wait = [5 | 1 << 5 | (stamp & 0xffff_ffff) << 32, STATUS];
        for quad in [pages, wait].as_flattened() {
            ring.store(tail, quad.to_le(), Ordering::Release).unwrap();
            tail = (tail + 8) % 4096;
        }
        unit.write(0x88, &(tail as u64).to_le_bytes());
    };
    let all = || (0..PAGES).for_each(|page| touch(&disk, page));
    let one = best(PAGES, all, &mut invalidate);
    println!("an invalidation of a page, with its wait   {one:7.1}");
    let unit_all = || unit.write(0x508, &(1_u64 << 63 | 2 << 60 | 1 << 32).to_le_bytes());
    let few = best(
        64,
        || (),
        |page| {
            touch(&disk, page);
            unit_all();
        },
    );
    println!("one of a domain with one page, and a miss  {few:7.1}");
    let plain = best(
        PAGES,
        || (0..PAGES).for_each(|page| touch(&plain, page)),
        |page| {
            let drain = domain.invalidate(DeviceAddr(page << 12), 4096).unwrap();
            assert!(drain.wait().completed());
        },
    );
    println!("that of the domain alone                   {plain:7.1}");
    let status = guest.page_tables().entry(GuestPhys(STATUS)).unwrap();
    assert_eq!(status as u32, stamp as u32, "all have completed");
}

/// A root entry, a context entry, and tables of four levels.
fn write_tables(guest: &Guest) {
    let write = |at: u64, entry: u64| {
        guest.write_firmware(GuestPhys(at), &entry.to_le_bytes()).unwrap();
    };
    write(ROOT, CONTEXT | 1);
    write(CONTEXT + u64::from(DISK.0) * 16, TABLES | 1);
    write(CONTEXT + u64::from(DISK.0) * 16 + 8, 1 << 8 | 2);
    for level in 0..2 {
        write(TABLES + level * 4096, (TABLES + (level + 1) * 4096) | 3);
    }
    for table in 0..PAGES / 512 {
        write(TABLES + 0x2000 + table * 8, (TABLES + 0x3000 + table * 4096) | 3);
    }
    for page in 0..PAGES {
        write(TABLES + 0x3000 + page * 8, ((16 << 20) + (page << 12)) | 3);
    }
}

fn start(unit: &Unit) {
    unit.write(0x20, &ROOT.to_le_bytes());
    unit.write(0x90, &QUEUE.to_le_bytes());
    for command in [1_u32 << 30, 1 << 31, 1 << 31 | 1 << 26] {
        unit.write(0x18, &command.to_le_bytes());
    }
}

fn touch(vdev: &Vdev, page: u64) {
    black_box(vdev.map(DeviceAddr(page << 12), 512, MapFlags::READ)).unwrap();
}

fn misses(vdev: &Vdev, invalidate: impl FnMut()) -> f64 {
    best(PAGES, invalidate, |page| touch(vdev, page))
}

/// The shortest of 50 rounds, each after `prepare`.
fn best(steps: u64, mut prepare: impl FnMut(), mut each: impl FnMut(u64)) -> f64 {
    let round = |_| {
        prepare();
        let started = Instant::now();
        (0..steps).for_each(&mut each);
        started.elapsed().as_nanos() as f64 / steps as f64
    };
    (0..50).map(round).fold(f64::MAX, f64::min)
}
