//! A table's nodes are freed after the scan that waits for the look-ups which may be in them,
//! and not before. The only test of its program: it looks at the memory of all of it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use gasp::{Access, DeviceAddr, DomainKind, GuestPhys, MapFlags, Vdev};
use support::*;

/// The memory of this process that is there, in bytes.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * PAGE
}

#[test]
fn nodes_of_a_table_are_freed_only_when_no_look_up_can_be_in_them() {
    const PAGES: u64 = 1 << 19;
    let (guest, _ram) = iommu_guest(PAGES * PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    for page in (0..PAGES).step_by(2) {
        domain.allow(GuestPhys(page * PAGE), PAGE, Access::RW).unwrap();
    }
    let nodes = domain.table_bytes() as u64;
    assert!(nodes > 3 << 20, "{nodes} bytes of nodes");
    let (inside, go) = (AtomicBool::new(false), AtomicBool::new(false));
    let wait_until = |what: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !what() {
            assert!(started.elapsed() < LONG);
            thread::sleep(Duration::from_millis(1));
        }
    };
    let with = resident_bytes();
    thread::scope(|scope| {
        scope.spawn(|| {
            let find = || {
                inside.store(true, SeqCst);
                wait_until(&|| go.load(SeqCst));
                Some(&disk)
            };
            assert!(Vdev::map_page_of(find, DeviceAddr(0), 8, MapFlags::RW).is_none());
        });
        wait_until(&|| inside.load(SeqCst));
        let revoking = scope.spawn(|| domain.revoke(DeviceAddr(0), PAGES * PAGE).unwrap().wait());
        // The last page goes last; the scan comes next.
        let last = DeviceAddr((PAGES - 2) * PAGE);
        wait_until(&|| disk.map(last, 8, MapFlags::RW).is_err());
        thread::sleep(Duration::from_millis(100));
        let meanwhile = resident_bytes();
        assert!(!revoking.is_finished(), "the revoke does not wait for the look-up");
        go.store(true, SeqCst);
        revoking.join().unwrap();
        let after = resident_bytes();
        let freed = |now: u64| with.saturating_sub(now);
        assert!(freed(after) > nodes / 2, "{nodes} bytes of nodes, {} freed", freed(after));
        assert!(freed(meanwhile) < nodes / 4, "{} freed under a look-up", freed(meanwhile));
    });
}
