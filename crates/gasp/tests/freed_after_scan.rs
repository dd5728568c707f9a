//! A table's nodes are freed after the scan that waits for the look-ups which may be in them,
//! and not before.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use gasp::{Access, DeviceAddr, DomainKind, GuestPhys, MapFlags, Vdev};
use support::*;

/// Takes `len` bytes of single pages back while a look-up is in progress, which may be in any
/// node of the table.
fn revoke_under_a_look_up(len: u64) {
    const PAGES: u64 = 1 << 17;
    let (guest, _ram) = iommu_guest(PAGES * PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    for page in (0..PAGES).step_by(2) {
        domain.allow(GuestPhys(page * PAGE), PAGE, Access::RW).unwrap();
    }
    let before = domain.table_bytes();
    let (inside, go) = (AtomicBool::new(false), AtomicBool::new(false));
    let wait_until = |what: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !what() {
            assert!(started.elapsed() < LONG);
            thread::sleep(Duration::from_millis(1));
        }
    };
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
        let revoking = scope.spawn(|| domain.revoke(DeviceAddr(0), len).unwrap().wait());
        wait_until(&|| disk.map(DeviceAddr(0), 8, MapFlags::RW).is_err());
        thread::sleep(Duration::from_millis(100));
        let meanwhile = (revoking.is_finished(), domain.table_bytes());
        go.store(true, SeqCst);
        revoking.join().unwrap();
        assert_eq!(meanwhile, (false, before), "what a look-up may be in was freed");
    });
    assert!(domain.table_bytes() < before, "{before} bytes of nodes, and none was freed");
}

#[test]
fn nodes_of_one_revoke_are_freed_only_when_no_look_up_can_be_in_them() {
    revoke_under_a_look_up(2 << 20);
}

#[test]
fn nodes_of_a_revoke_in_many_chunks_are_freed_only_when_no_look_up_can_be_in_them() {
    revoke_under_a_look_up(512 << 20);
}
