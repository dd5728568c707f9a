//! A table's nodes are freed after the scan that waits for the look-ups that may be in them, and
//! not before.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use gasp::{
    Access, DeviceAddr, Domain, DomainKind, DomainOptions, Guest, GuestPhys, MapFlags, Unattached,
    Vdev,
};
use support::*;

/// Makes a change that removes nodes from the domain's table, while a look-up is in progress that
/// may be in any of them. The change begins with the grant at `addr`.
fn change_under_a_look_up(
    disk: &Vdev,
    domain: &Domain,
    addr: DeviceAddr,
    change: impl Fn() + Sync,
) {
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
                Some(disk)
            };
            assert!(Vdev::map_page_of(find, addr, 8, MapFlags::RW).is_none());
        });
        wait_until(&|| inside.load(SeqCst));
        let changing = scope.spawn(&change);
        wait_until(&|| disk.map(addr, 8, MapFlags::RW).is_err());
        thread::sleep(Duration::from_millis(100));
        let meanwhile = (changing.is_finished(), domain.table_bytes());
        go.store(true, SeqCst);
        changing.join().unwrap();
        assert_eq!(meanwhile, (false, before), "a node that a look-up may be in was freed");
    });
    assert!(domain.table_bytes() < before, "{before} bytes of nodes, and none was freed");
}

/// Revokes `len` bytes of single pages.
fn revoke_under_a_look_up(len: u64) {
    const PAGES: u64 = 1 << 17;
    let (guest, _ram) = iommu_guest(PAGES * PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    for page in (0..PAGES).step_by(2) {
        domain.grant_identity(GuestPhys(page * PAGE), PAGE, Access::RW).unwrap();
    }
    change_under_a_look_up(&disk, &domain, DeviceAddr(0), || {
        assert!(domain.revoke(DeviceAddr(0), len).unwrap().wait().completed());
    });
}

#[test]
fn nodes_of_one_revoke_are_freed_only_when_no_look_up_can_be_in_them() {
    revoke_under_a_look_up(HUGE);
}

#[test]
fn nodes_of_a_revoke_in_many_chunks_are_freed_only_when_no_look_up_can_be_in_them() {
    revoke_under_a_look_up(512 << 20);
}

#[test]
fn nodes_of_grants_that_a_change_of_memory_takes_back_are_freed_only_when_no_look_up_can_be_in_them()
 {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    guest.space().add_ram(Some(GuestPhys(0)), &ram(HUGE)).unwrap();
    // There is no room to cut the grant, so it is taken back, and its node is removed.
    let options = DomainOptions { limit: 1, ..DomainOptions::new(DomainKind::Identity) };
    let domain = guest.domain("full", options).unwrap();
    let disk = guest.vdev("disk").unwrap();
    disk.attach(&domain).unwrap().wait();
    domain.grant_identity(GuestPhys(0), HUGE, Access::RW).unwrap();
    change_under_a_look_up(&disk, &domain, DeviceAddr(HUGE / 2), || {
        let drain = guest.space().remove(span(HUGE / 2, PAGE)).unwrap();
        assert!(drain.wait().completed());
    });
}
