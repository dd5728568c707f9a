//! Waits for the calling thread itself are detected before anything changes (decision 22): for
//! its own mappings, and for the look-up that it is in.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::thread;

use gasp::{
    Access, DeviceAddr, Domain, DomainKind, DomainOptions, Guest, GuestPhys, MapFlags, Mapping,
    Region, Vdev,
};
use support::*;

fn map(vdev: &Vdev, page: u64) -> Mapping {
    vdev.map(DeviceAddr(page * PAGE), PAGE, MapFlags::RW).unwrap()
}

fn page(page: u64) -> gasp::Span<GuestPhys> {
    span(page * PAGE, PAGE)
}

#[test]
fn own_mappings_of_guest_memory_are_found_through_every_kind_of_domain() {
    let (guest, _ram) = iommu_guest(32 * PAGE);
    let (identity, grants) = device(&guest, "identity", DomainKind::Identity);
    grants.grant_identity(GuestPhys(0), 32 * PAGE, Access::RW).unwrap();
    let (translated, translating) = device(&guest, "translated", DomainKind::Translate);
    // Device pages 100 to 103 lead to guest pages 3, 2, 1, 0.
    for index in 0..4 {
        let device = DeviceAddr((100 + index) * PAGE);
        translating.grant(device, GuestPhys((3 - index) * PAGE), PAGE, Access::RW).unwrap();
    }
    let (bypass, _) = device(&guest, "bypass", DomainKind::Bypass);
    let space = guest.space();
    let held = |number| space.held_by_this_thread(page(number));
    assert_eq!((0..32).map(held).sum::<usize>(), 0);

    let first = map(&identity, 1);
    assert_eq!([held(0), held(1), held(2)], [0, 1, 0]);
    let second = map(&translated, 101);
    assert_eq!([held(1), held(2), held(3), held(101)], [1, 1, 0, 0]);
    let scattered =
        translated.map_scatter(DeviceAddr(102 * PAGE), 2 * PAGE, MapFlags::READ).unwrap();
    assert_eq!([held(0), held(1), held(2), held(3)], [1, 2, 1, 0]);
    let third = map(&bypass, 3);
    let firmware = guest.map_firmware(GuestPhys(3 * PAGE), 1, MapFlags::READ).unwrap();
    assert_eq!([held(2), held(3), held(4)], [1, 2, 0]);
    assert_eq!(space.lock().unwrap().held_by_this_thread(span(0, 32 * PAGE)), 5);

    assert_eq!(grants.held_by_this_thread(device_span(PAGE + 7, 1)), 1);
    assert_eq!(grants.held_by_this_thread(device_span(2 * PAGE, PAGE)), 0);
    assert_eq!(translating.held_by_this_thread(device_span(0, 102 * PAGE)), 1);
    assert_eq!(translating.held_by_this_thread(device_span(0, u64::MAX)), 2);
    let of = |vdev: &Vdev| vdev.held_by_this_thread();
    assert_eq!([of(&identity), of(&translated), of(&bypass)], [1, 2, 1]);
    drop((first, second, scattered, third, firmware));
    assert_eq!((0..32).map(held).sum::<usize>(), 0);
    assert_eq!([of(&identity), of(&translated), of(&bypass)], [0; 3]);
}

#[test]
fn mappings_of_other_threads_and_guests_do_not_count() {
    let (guest, _ram) = plain_guest(4 * PAGE);
    let (other, _more) = plain_guest(4 * PAGE);
    let disk = guest.vdev("disk").unwrap();
    let elsewhere = other.vdev("disk").unwrap();
    // Its lane may well go to the next thread.
    let left = thread::spawn({
        let disk = disk.clone();
        move || map(&disk, 0)
    });
    let left = left.join().unwrap();
    thread::spawn(move || {
        let held = || guest.space().held_by_this_thread(page(0));
        let foreign = map(&elsewhere, 0);
        assert_eq!((held(), disk.held_by_this_thread()), (0, 0));
        let own = map(&disk, 0);
        assert_eq!((held(), disk.held_by_this_thread()), (1, 1));
        assert_eq!((disk.held(), elsewhere.held()), (2, 1), "on any thread");
        drop((foreign, left));
        assert_eq!(held(), 1);
        let token = own.into_token();
        assert_eq!(held(), 1, "a token is a mapping");
        token.unmap();
        assert_eq!((held(), disk.held()), (0, 0));
    })
    .join()
    .unwrap();
}

#[test]
fn a_drain_counts_the_mappings_that_this_thread_has_made() {
    let (guest, _ram) = iommu_guest(4 * PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), 4 * PAGE, Access::RW).unwrap();
    let mine = [map(&disk, 0), map(&disk, 1)];
    let theirs = thread::spawn({
        let disk = disk.clone();
        move || map(&disk, 0)
    });
    let theirs = theirs.join().unwrap();
    let mut drain = domain.revoke(DeviceAddr(0), PAGE).unwrap();
    assert_eq!((drain.pending(), drain.held_by_this_thread()), (2, 1));
    let [first, _second] = mine;
    drop(first);
    assert_eq!((drain.pending(), drain.held_by_this_thread()), (1, 0));
    drop(theirs);
    in_time(move || assert!(drain.wait().completed()));
}

#[test]
fn a_drain_does_not_count_what_an_earlier_thread_has_left_in_this_ones_lane() {
    let (guest, _ram) = iommu_guest(4 * PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    // Other tests take lanes meanwhile: not every round uses the same one twice.
    for _ in 0..16 {
        domain.grant_identity(GuestPhys(0), 4 * PAGE, Access::RW).unwrap();
        let earlier = disk.clone();
        let left = thread::spawn(move || map(&earlier, 0)).join().unwrap();
        let drain = domain.revoke(DeviceAddr(0), PAGE).unwrap();
        let later = disk.clone();
        let drain = thread::spawn(move || {
            let _own = map(&later, 1);
            assert_eq!(drain.held_by_this_thread(), 0);
            drain
        });
        let drain = drain.join().unwrap();
        drop(left);
        in_time(move || assert!(drain.wait().completed()));
    }
}

/// The errno of every change that can be refused.
fn changes(guest: &Guest, disk: &Vdev, domain: &Domain, spare: &Domain) -> [&'static str; 12] {
    let space = guest.space();
    [
        errno(domain.grant_identity(GuestPhys(2 * PAGE), PAGE, Access::RW)),
        errno(domain.revoke(DeviceAddr(0), PAGE)),
        errno(domain.revoke_all(&[device_span(0, PAGE)])),
        errno(spare.clone().remove()),
        errno(disk.attach(spare)),
        errno(guest.vdev("new").map(drop)),
        errno(guest.domain("new", DomainOptions::new(DomainKind::Deny)).map(drop)),
        errno(space.lock().map(drop)),
        errno(space.add(Region::reserved(span(8 * PAGE, PAGE)))),
        errno(space.set_access(page(1), Access::READ)),
        errno(space.set_tag(page(1), 7, None)),
        errno(space.remove(page(1))),
    ]
}

#[test]
fn a_change_inside_a_look_up_is_refused_and_changes_nothing() {
    in_time(|| {
        let (guest, ram) = iommu_guest(4 * PAGE);
        let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
        let spare = guest.domain("spare", DomainOptions::new(DomainKind::Identity)).unwrap();
        domain.grant_identity(GuestPhys(0), 2 * PAGE, Access::RW).unwrap();
        let regions = format!("{:?}", guest.space().regions());
        let grants = domain.grants();
        let lock = guest.space().lock().unwrap();
        let inside = || {
            assert_eq!(changes(&guest, &disk, &domain, &spare), ["EDEADLK"; 12]);
            assert_eq!(errno(lock.add_rom(None, &ram)), "EDEADLK");
            assert_eq!(errno(lock.set_access(page(1), Access::READ)), "EDEADLK");
            assert_eq!(errno(lock.set_tag(page(1), 7, None)), "EDEADLK");
            assert_eq!(errno(lock.remove(page(1))), "EDEADLK");
            Some(&disk)
        };
        let look_up = |find: &dyn Fn() -> Option<&'static Vdev>| {
            Vdev::map_page_of(find, DeviceAddr(0), 8, MapFlags::RW)
        };
        let found = Vdev::map_page_of(inside, DeviceAddr(0), 8, MapFlags::RW);
        assert!(found.is_some(), "the look-up itself continues");
        // Inside another look-up, whose slot is not the last one taken; and after the inner one
        // has ended, with or without a mapping.
        let nested = || {
            assert!(look_up(&|| inside().and(None)).is_none());
            inside();
            let more: Vec<_> = (0..200).map(|_| map(&disk, 1)).collect();
            inside();
            drop(more);
            inside()
        };
        let held = Vdev::map_page_of(nested, DeviceAddr(0), 8, MapFlags::RW);
        assert!(held.is_some());
        assert_eq!((format!("{:?}", guest.space().regions()), domain.grants()), (regions, grants));
        assert_eq!((guest.vdevs().len(), guest.domains().len()), (1, 2));
        // Outside the look-up, everything works as before.
        drop((lock, found, held));
        guest.space().set_tag(page(1), 7, None).unwrap();
        domain.revoke(DeviceAddr(0), PAGE).unwrap().wait();
        disk.attach(&spare).unwrap().wait();
    });
}
