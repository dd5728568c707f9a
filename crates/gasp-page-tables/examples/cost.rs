//! The cost of a walk with its tables in the processor's caches, and of a miss in a domain that
//! makes one.
//!
//! `cargo run --release -p gasp-page-tables --example cost`
#![allow(clippy::unwrap_used, reason = "a measurement may panic")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use gasp::{Access, DeviceAddr, DomainOptions, Guest, GuestPhys, MapFlags, MemoryObject};
use gasp::{Translator, Unattached};
use gasp_page_tables::{amd, vtd};

/// Tables lead to their successors by their first entries, and to 64 pages by those of the lowest.
const PAGES: u64 = 64;

fn main() {
    println!("ns, the best of 50 rounds");
    for levels in [vtd::Levels::Three, vtd::Levels::Four, vtd::Levels::Five] {
        let guest = guest();
        write_tables(&guest, levels as u64, |_| 0x3);
        let table = vtd::Table { root: GuestPhys(0x1000), levels };
        let tables = vtd::SecondLevel::new(vtd::Capabilities::new(48), table);
        show(&format!("VT-d, {} levels", levels as u64), &guest, tables);
    }
    for levels in [3, 4] {
        let guest = guest();
        write_tables(&guest, levels, |next| 3 << 61 | next << 9 | 1);
        let (levels, access) = (amd::Levels::from_mode(levels as u8).unwrap(), Access::RW);
        let table = amd::Table { root: GuestPhys(0x1000), levels, access };
        show(&format!("AMD-Vi, {levels:?}"), &guest, amd::HostTables::new(table));
    }
}

fn guest() -> Guest {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    guest.space().add_ram(None, &MemoryObject::ram(64 << 20).create().unwrap()).unwrap();
    guest
}

/// Tables from 0x1000 on, each 68 KiB after the one before it, and pages from 1 MiB on.
fn write_tables(guest: &Guest, levels: u64, bits: impl Fn(u64) -> u64) {
    let table = |depth| 0x1000 + depth * 0x11000;
    let write = |at: u64, entry: u64| {
        guest.write_firmware(GuestPhys(at), &entry.to_le_bytes()).unwrap();
    };
    for depth in 0..levels - 1 {
        write(table(depth), table(depth + 1) | bits(levels - 1 - depth));
    }
    for page in 0..PAGES {
        write(table(levels - 1) + page * 8, ((1 << 20) + page * 4096) | bits(0));
    }
}

fn show(what: &str, guest: &Guest, tables: impl Translator + 'static) {
    let page = |step: u64| DeviceAddr(step % PAGES * 4096);
    let walk = best(|step| {
        black_box(tables.translate(&guest.page_tables(), page(step), Access::READ)).unwrap();
    });
    // With room for fewer entries than the device uses in turn, every map misses.
    let options = DomainOptions { limit: PAGES / 2, ..DomainOptions::ask(Arc::new(tables)) };
    let domain = guest.domain("disk", options).unwrap();
    let disk = guest.vdev("disk").unwrap();
    disk.attach(&domain).unwrap().wait();
    let miss = best(|step| {
        black_box(disk.map(page(step), 512, MapFlags::READ)).unwrap();
    });
    let entry = best(|step| {
        black_box(guest.map_firmware(GuestPhys(page(step).0), 8, MapFlags::READ)).unwrap();
    });
    println!("{what:>20}: walk {walk:6.1}, miss {miss:6.1} (a look-up of the guest's {entry:.1})");
}

fn best(mut each: impl FnMut(u64)) -> f64 {
    const STEPS: u64 = 4096;
    let round = |_| {
        let started = Instant::now();
        (0..STEPS).for_each(&mut each);
        started.elapsed().as_nanos() as f64 / STEPS as f64
    };
    (0..50).map(round).fold(f64::MAX, f64::min)
}
