//! Tables that a guest writes while they are walked.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use gasp::{Access, DeviceAddr, Guest, GuestPhys, MapFlags, MemoryObject};
use gasp_page_tables::vtd::{Capabilities, Fault, Levels, Table, walk};

const WALKS: usize = 200_000;

/// Walks `addr` while the entry at `at` is written, again and again, with each of `entries`.
/// Returns the different results: guest page and access, or the fault.
fn race(
    tables: &[(u64, u64)],
    addr: u64,
    (at, entries): (u64, &[u64]),
) -> BTreeSet<Result<(u64, u8), u8>> {
    let guest = Guest::builder().build().unwrap();
    guest.space().add_ram(None, &MemoryObject::ram(2 << 20).create().unwrap()).unwrap();
    for (at, entry) in tables {
        guest.write_firmware(GuestPhys(*at), &entry.to_le_bytes()).unwrap();
    }
    let (done, started) = (AtomicBool::new(false), AtomicBool::new(false));
    let table = Table { root: GuestPhys(0x1000), levels: Levels::Three };
    let mut results = BTreeSet::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let entry = guest.map_firmware(GuestPhys(at), 8, MapFlags::RW).unwrap();
            while !done.load(Ordering::Relaxed) {
                for value in entries {
                    entry.store(0, value.to_le(), Ordering::Release).unwrap();
                }
                started.store(true, Ordering::Release);
            }
        });
        while !started.load(Ordering::Acquire) {
            thread::yield_now();
        }
        // Until each has been seen, or for long enough that a wrong one would have been.
        let mut walks = 0;
        while walks < WALKS || walks < 100 * WALKS && results.len() < entries.len() {
            let unit = Capabilities::new(48);
            let found = walk(&guest, &unit, table, DeviceAddr(addr), Access::empty());
            let found = found.map(|found| (found.guest.0, found.access.bits()));
            results.insert(found.map_err(Fault::reason));
            walks += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
    results
}

#[test]
fn the_page_and_the_permission_are_of_one_entry() {
    let tables = [(0x1000, 0x2000 | 3), (0x2000, 0x3000 | 3)];
    // One that can be read, one that can be written, none, and one with a reserved bit.
    let entries = [0x8000 | 1, 0x9000 | 2, 0xa000, 1 << 62 | 0xb000 | 3];
    let found = race(&tables, 0x123, (0x3000, &entries));
    let valid = [Ok((0x8000, 5)), Ok((0x9000, 2)), Err(6), Err(0xc)];
    assert_eq!(found, BTreeSet::from(valid));
}

#[test]
fn a_table_that_is_replaced_is_the_old_one_or_the_new_one() {
    // The entry of the highest level leads to a table of either kind, to itself, and to nowhere.
    let tables = [(0x2000, 0x4000 | 3), (0x4000, 0x8000 | 1), (0x3000, 0x20_0000 | 0x80 | 2)];
    let entries = [0x2000 | 3, 0x3000 | 3, 1 << 40 | 3];
    let found = race(&tables, 0, (0x1000, &entries));
    let valid = [Ok((0x8000, 5)), Ok((0x20_0000, 2)), Err(7)];
    assert_eq!(found, BTreeSet::from(valid));
}
