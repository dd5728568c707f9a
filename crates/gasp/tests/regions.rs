//! The address space: regions are added, removed, split and merged while the guest runs; the
//! lock; free space; walks.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use gasp::{
    Access, DeviceAddr, DomainKind, Guest, GuestPhys, MapFlags, Reason, Region, RegionKind, Search,
    Walk,
};
use support::*;

/// The regions as kind, first page, number of pages, access.
fn shape(guest: &Guest) -> Vec<(RegionKind, u64, u64, String)> {
    let shape = |region: &Region| {
        let span = region.span();
        let (start, len) = (span.start().0 / PAGE, span.len() / PAGE);
        (region.kind(), start, len, region.access().to_string())
    };
    guest.space().regions().iter().map(shape).collect()
}

#[test]
fn removing_the_middle_splits_a_region_and_its_memory_stays_where_it_was() {
    let (guest, ram) = plain_guest(8 * PAGE);
    number_pages(&ram, 1);
    guest.space().remove(span(2 * PAGE, 3 * PAGE)).unwrap().wait();
    let rwx = || "rwx".to_owned();
    let ram = RegionKind::Ram;
    assert_eq!(shape(&guest), [(ram, 0, 2, rwx()), (ram, 5, 3, rwx())]);
    let disk = guest.vdev("disk").unwrap();
    for page in [0, 1, 5, 6, 7] {
        let mapping = disk.map(DeviceAddr(page * PAGE), PAGE, MapFlags::READ).unwrap();
        assert_eq!(word(&mapping), numbered(1, page));
    }
    for page in [2, 3, 4] {
        assert_eq!(errno(disk.map(DeviceAddr(page * PAGE), 1, MapFlags::READ)), "ENXIO");
    }
}

#[test]
fn the_file_of_a_region_has_its_bytes_from_its_offset_on() {
    let (guest, ram) = plain_guest(8 * PAGE);
    number_pages(&ram, 1);
    guest.space().remove(span(2 * PAGE, 3 * PAGE)).unwrap().wait();
    for (region, page) in guest.space().regions().iter().zip([0, 5]) {
        let (fd, offset) = region.file().unwrap();
        let mut bytes = [0; 8];
        rustix::io::pread(fd, &mut bytes, offset).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), numbered(1, page));
    }
    assert!(Region::reserved(span(0, PAGE)).file().is_none());
}

#[test]
fn memory_that_is_added_again_merges_and_maps_as_one() {
    let (guest, ram) = plain_guest(8 * PAGE);
    guest.space().remove(span(2 * PAGE, PAGE)).unwrap().wait();
    let part = |page| {
        let addr = page * PAGE;
        Region::memory(RegionKind::Ram, span(addr, PAGE), &ram, addr).unwrap()
    };
    guest.space().add(part(2)).unwrap();
    assert_eq!(shape(&guest).len(), 1);
    let disk = guest.vdev("disk").unwrap();
    assert!(disk.map(DeviceAddr(0), 8 * PAGE, MapFlags::RW).is_ok());
    // Another page of the same object in the hole is a region of its own, with seams.
    guest.space().remove(span(2 * PAGE, PAGE)).unwrap().wait();
    let other = Region::memory(RegionKind::Ram, span(2 * PAGE, PAGE), &ram, 7 * PAGE).unwrap();
    guest.space().add(other).unwrap();
    assert_eq!(shape(&guest).len(), 3);
    let refused = error(disk.map(DeviceAddr(0), 8 * PAGE, MapFlags::RW));
    assert_eq!(refused.reason(), Reason::NotConsecutive { prefix: 2 * PAGE });
}

#[test]
fn one_removal_takes_regions_of_every_kind() {
    let (guest, _ram) = plain_guest(2 * PAGE);
    guest.space().add_rom(None, &ram(2 * PAGE)).unwrap();
    guest.space().add(Region::reserved(span(4 * PAGE, PAGE))).unwrap();
    guest.space().add(Region::device(span(6 * PAGE, PAGE), "uart")).unwrap();
    assert_eq!(guest.space().region_at(GuestPhys(6 * PAGE)).unwrap().owner(), Some("uart"));
    guest.space().remove(span(PAGE, 16 * PAGE)).unwrap().wait();
    assert_eq!(shape(&guest), [(RegionKind::Ram, 0, 1, "rwx".to_owned())]);
    assert_eq!(errno(guest.space().remove(span(PAGE, PAGE))), "ENOENT");
    assert!(guest.space().region_at(GuestPhys(PAGE)).is_none());
}

#[test]
fn registers_have_any_length_and_leave_a_hole_of_whole_pages() {
    const AT: u64 = 0xe000_0000;
    let (guest, _ram) = iommu_guest(2 * PAGE);
    let space = guest.space();
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    let (other, translating) = device(&guest, "other", DomainKind::Translate);
    domain.grant_identity(GuestPhys(AT), 2 * PAGE, Access::RW).unwrap();
    translating.grant(DeviceAddr(0), GuestPhys(AT), 2 * PAGE, Access::RW).unwrap();
    let maps = |page: u64| {
        let one = disk.map(DeviceAddr(AT + page * PAGE), PAGE, MapFlags::RW).map(drop);
        let two = other.map(DeviceAddr(page * PAGE), PAGE, MapFlags::RW).map(drop);
        let three = guest.map_firmware(GuestPhys(AT + page * PAGE), PAGE, MapFlags::RW).map(drop);
        let all = [one, two, three].map(|result| result.map_err(|error| error.errno_name()));
        assert_eq!(all[0], all[1]);
        assert_eq!(all[0], all[2]);
        all[0]
    };
    let registers = [(AT + 0x10, 0x20), (AT + 0x30, 1), (AT + 0xffc, 8)];
    for (start, len) in registers {
        space.add(Region::device(span(start, len), "uart")).unwrap();
        let there = space.region_at(GuestPhys(start + len - 1)).unwrap();
        assert_eq!((there.kind(), there.owner()), (RegionKind::Device, Some("uart")));
        assert_eq!((maps(0), maps(1)), (Err("ENXIO"), Err("ENXIO")));
    }
    assert!(space.region_at(GuestPhys(AT + 0x31)).is_none());
    assert_eq!(errno(space.add(Region::reserved(span(AT + 0x2f, 2)))), "EEXIST");
    let search = Search::new(4, 1).within(GuestPhys(AT + 0x10), GuestPhys(AT + PAGE));
    assert_eq!(space.find_free(search).unwrap().start().0, AT + 0x31);
    // Memory may not share a page with them.
    let ram = ram(PAGE);
    for page in [0, 1] {
        let there = space.add_ram(Some(GuestPhys(AT + page * PAGE)), &ram);
        assert_eq!(errno(there), "EEXIST", "{page}");
    }
    // A cut in the middle, and a tag on a part.
    space.remove(span(AT + 0x18, 4)).unwrap().wait();
    assert!(space.region_at(GuestPhys(AT + 0x1a)).is_none());
    assert_eq!(space.region_at(GuestPhys(AT + 0x1c)).unwrap().span().start().0, AT + 0x1c);
    space.set_tag(span(AT + 0x1e, 2), 7, Some("uart")).unwrap();
    assert_eq!(space.region_at(GuestPhys(AT + 0x1f)).unwrap().tag(), 7);
    assert_eq!(space.region_at(GuestPhys(AT + 0x20)).unwrap().tag(), 0);
    assert_eq!(errno(space.set_access(span(AT + 0x17, 2), Access::READ)), "ENXIO");
    // Once every byte of the second page is free, memory can be there.
    space.remove(span(AT + PAGE, 4)).unwrap().wait();
    space.add_ram(Some(GuestPhys(AT + PAGE)), &ram).unwrap();
    assert_eq!((maps(0), maps(1)), (Err("ENXIO"), Ok(())));
    // Two ranges that end inside that page, and then one that covers all of it.
    for odd in [span(AT + 0xffc, 8), span(AT + 0x10, PAGE)] {
        assert_eq!(errno(space.remove(odd)), "EINVAL", "{odd}");
        assert_eq!((maps(0), maps(1)), (Err("ENXIO"), Ok(())));
        assert!(space.region_at(GuestPhys(AT + 0xffc)).is_some());
    }
    space.remove(span(AT + 0x10, 2 * PAGE)).unwrap().wait();
    assert_eq!((maps(0), maps(1)), (Err("ENXIO"), Err("ENXIO")));
    assert!(space.region_at(GuestPhys(AT + 0x10)).is_none());
    space.add_ram(Some(GuestPhys(AT)), &ram).unwrap();
    assert_eq!((maps(0), maps(1)), (Ok(()), Err("ENXIO")));
}

#[test]
fn memory_without_a_start_goes_after_the_highest_ram_or_rom() {
    let guest = Guest::builder().build().unwrap();
    let space = guest.space();
    assert_eq!(space.add_ram(None, &ram(PAGE)).unwrap(), GuestPhys(0));
    assert_eq!(space.add_rom(None, &ram(PAGE)).unwrap(), GuestPhys(PAGE));
    // Windows, reserved ranges and devices do not count.
    space.add(Region::reserved(span(16 * PAGE, PAGE))).unwrap();
    let high = Region::pass_through(GuestPhys(32 * PAGE), &window(PAGE, PAGE)).unwrap();
    space.add(high).unwrap();
    assert_eq!(space.add_ram(None, &ram(PAGE)).unwrap(), GuestPhys(2 * PAGE));
    space.add_rom(Some(GuestPhys(64 * PAGE)), &ram(PAGE)).unwrap();
    assert_eq!(space.add_ram(None, &ram(PAGE)).unwrap(), GuestPhys(65 * PAGE));
}

#[test]
fn the_lock_is_refused_to_the_thread_that_has_it() {
    let (guest, _ram) = plain_guest(PAGE);
    let lock = guest.space().lock().unwrap();
    assert_eq!(errno(guest.space().lock()), "EBUSY");
    assert_eq!(errno(guest.space().add_ram(None, &ram(PAGE))), "EBUSY");
    assert_eq!(errno(guest.space().remove(span(0, PAGE))), "EBUSY");
    assert_eq!(errno(guest.space().set_access(span(0, PAGE), Access::READ)), "EBUSY");
    lock.add_ram(None, &ram(PAGE)).unwrap();
    assert!(guest.vdev("disk").unwrap().map(DeviceAddr(0), 1, MapFlags::RW).is_ok());
    drop(lock);
    guest.space().add_ram(None, &ram(PAGE)).unwrap();
    let (other, _ram) = plain_guest(PAGE);
    let _lock = guest.space().lock().unwrap();
    assert!(other.space().lock().is_ok(), "each guest has a lock of its own");
}

#[test]
fn another_thread_waits_for_the_lock() {
    let (guest, _ram) = plain_guest(PAGE);
    let lock = guest.space().lock().unwrap();
    let (done, finished) = mpsc::channel();
    let other = thread::spawn({
        let guest = guest.clone();
        move || {
            let start = guest.space().add_ram(None, &ram(PAGE)).unwrap();
            done.send(start).unwrap();
        }
    });
    assert!(finished.recv_timeout(Duration::from_millis(20)).is_err(), "it waits");
    lock.add_ram(None, &ram(PAGE)).unwrap();
    drop(lock);
    assert_eq!(
        finished.recv_timeout(LONG).unwrap(),
        GuestPhys(2 * PAGE),
        "it added its RAM second"
    );
    other.join().unwrap();
}

#[test]
fn free_space_is_found_and_not_kept() {
    let (guest, _ram) = plain_guest(2 * PAGE);
    guest.space().add(Region::reserved(span(3 * PAGE, PAGE))).unwrap();
    let find = |size, align| guest.space().find_free(Search::new(size, align));
    assert_eq!(find(PAGE, 0).unwrap(), span(2 * PAGE, PAGE));
    assert_eq!(find(PAGE, 0).unwrap(), span(2 * PAGE, PAGE), "it is not claimed");
    assert_eq!(find(2 * PAGE, HUGE).unwrap(), span(HUGE, 2 * PAGE));
    let low = Search::new(PAGE, 0).within(GuestPhys(0), GuestPhys(3 * PAGE - 1));
    assert_eq!(guest.space().find_free(low).unwrap(), span(2 * PAGE, PAGE));
    let none = Search::new(PAGE, 0).within(GuestPhys(0), GuestPhys(3 * PAGE - 2));
    assert_eq!(errno(guest.space().find_free(none)), "ENOSPC");
    assert_eq!(errno(find(1 << 48, 0)), "ENOSPC");
    assert_eq!(errno(find(0, 0)), "EINVAL");
    assert_eq!(errno(find(1, 12)), "EINVAL");
}

#[test]
fn space_inside_ram_is_claimed_once_and_released_with_the_ram() {
    let (guest, ram) = plain_guest(4 * PAGE);
    let claim = || guest.space().claim_free(Search::new(PAGE, PAGE));
    guest.space().claim(span(PAGE, PAGE)).unwrap();
    assert_eq!(errno(guest.space().claim(span(PAGE + 8, 8))), "EEXIST");
    assert_eq!(errno(guest.space().claim(span(4 * PAGE - 8, 16))), "ENXIO");
    let starts: Vec<u64> = [(); 3].map(|()| claim().unwrap().start().0 / PAGE).into();
    assert_eq!(starts, [0, 2, 3]);
    assert_eq!(errno(claim()), "ENOSPC");
    guest.space().remove(span(0, 4 * PAGE)).unwrap().wait();
    guest.space().add_ram(Some(GuestPhys(0)), &ram).unwrap();
    assert_eq!(claim().unwrap(), span(0, PAGE));
}

#[test]
fn a_walk_with_host_addresses_tiles_ram_and_rom_and_nothing_else() {
    let guest = Guest::builder().build().unwrap();
    guest.space().add_ram(Some(GuestPhys(PAGE)), &resident(64 * PAGE)).unwrap();
    guest.space().add(Region::reserved(span(65 * PAGE, PAGE))).unwrap();
    guest.space().add_rom(Some(GuestPhys(66 * PAGE)), &window(4 * PAGE, 0xf000_0000)).unwrap();
    for max_len in [0, 3 * PAGE, 1000] {
        for host in [false, true] {
            let mut next = PAGE;
            for entry in guest.space().walk(Walk { max_len, host }) {
                let (start, len) = (entry.guest.start().0, entry.guest.len());
                next = if next == 65 * PAGE { 66 * PAGE } else { next };
                assert_eq!(start, next, "no gap and no overlap");
                assert!(max_len == 0 || len <= max_len);
                let rom = start >= 66 * PAGE;
                assert_eq!(entry.kind, if rom { RegionKind::Rom } else { RegionKind::Ram });
                assert!(host || entry.host.is_none());
                if rom && host {
                    assert_eq!(entry.host.unwrap().0, 0xf000_0000 + (start - 66 * PAGE));
                }
                assert_ne!(entry.host.map(|host| host.0), Some(0));
                next += len;
            }
            assert_eq!(next, 70 * PAGE);
        }
    }
}

#[test]
fn memory_added_under_an_existing_grant_becomes_mappable() {
    let (guest, _ram) = iommu_guest(PAGE);
    let (disk, identity) = device(&guest, "disk", DomainKind::Identity);
    let (net, translate) = device(&guest, "net", DomainKind::Translate);
    identity.grant_identity(GuestPhys(0), 4 * HUGE, Access::READ).unwrap();
    translate.grant(DeviceAddr(16 * HUGE), GuestPhys(0), 4 * HUGE, Access::READ).unwrap();
    let addr = HUGE + 3 * PAGE;
    assert_eq!(errno(disk.map(DeviceAddr(addr), 8, MapFlags::READ)), "ENXIO");
    assert_eq!(errno(net.map(DeviceAddr(16 * HUGE + addr), 8, MapFlags::READ)), "ENXIO");
    let grants = (identity.grants(), translate.grants());
    let added = ram(2 * HUGE);
    number_pages(&added, 7);
    guest.space().add_ram(Some(GuestPhys(HUGE)), &added).unwrap();
    for mapping in [
        disk.map(DeviceAddr(addr), 8, MapFlags::READ).unwrap(),
        net.map(DeviceAddr(16 * HUGE + addr), 8, MapFlags::READ).unwrap(),
    ] {
        assert_eq!(word(&mapping), numbered(7, 3));
    }
    assert_eq!(errno(disk.map(DeviceAddr(addr), 8, MapFlags::WRITE)), "EFAULT");
    assert_eq!((identity.grants(), translate.grants()), grants, "the grants are as they were");
}

#[test]
fn removed_memory_can_be_added_again_or_replaced() {
    let (guest, ram) = iommu_guest(4 * PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), 4 * PAGE, Access::RW).unwrap();
    number_pages(&ram, 1);
    let map = || disk.map(DeviceAddr(2 * PAGE), PAGE, MapFlags::RW);
    for round in 0..2000_u64 {
        guest.space().remove(span(0, 4 * PAGE)).unwrap().wait();
        assert_eq!(errno(map()), "ENXIO");
        guest.space().add_ram(Some(GuestPhys(0)), &ram).unwrap();
        assert_eq!(word(&map().unwrap()), numbered(1, 2), "round {round}");
    }
    let other = support::ram(4 * PAGE);
    number_pages(&other, 2);
    guest.space().remove(span(0, 4 * PAGE)).unwrap().wait();
    guest.space().add_ram(Some(GuestPhys(0)), &other).unwrap();
    assert_eq!(word(&map().unwrap()), numbered(2, 2));
}

#[test]
fn reducing_access_revokes_and_restoring_it_does_not() {
    let (guest, _ram) = plain_guest(4 * PAGE);
    let disk = guest.vdev("disk").unwrap();
    let map = |page: u64, flags| disk.map(DeviceAddr(page * PAGE), PAGE, flags);
    let (held, elsewhere) = (map(1, MapFlags::RW).unwrap(), map(3, MapFlags::RW).unwrap());
    let mut drain = guest.space().set_access(span(PAGE, PAGE), Access::READ).unwrap();
    assert_eq!(drain.pending(), 1, "the mapping inside");
    assert_eq!(errno(map(1, MapFlags::RW)), "EACCES");
    assert!(map(1, MapFlags::READ).is_ok());
    drop(held);
    assert!(drain.wait().completed());
    assert_eq!(shape(&guest).len(), 3);
    let reader = map(1, MapFlags::READ).unwrap();
    let mut drain = guest.space().set_access(span(PAGE, PAGE), Access::RWX).unwrap();
    assert_eq!(drain.pending(), 0, "nothing is taken away");
    drop(reader);
    assert!(map(1, MapFlags::RW).is_ok());
    assert_eq!(shape(&guest).len(), 1, "merged again");
    assert!(!elsewhere.is_revoked());
}

#[test]
fn access_never_rises_above_what_kind_and_memory_offer() {
    let (guest, _ram) = plain_guest(PAGE);
    guest.space().add_rom(None, &ram(PAGE)).unwrap();
    let readable = Access::READ | Access::EXEC;
    guest.space().set_access(span(0, 2 * PAGE), Access::RWX).unwrap().wait();
    let offered = |addr| guest.space().region_at(GuestPhys(addr)).unwrap().access();
    assert_eq!((offered(0), offered(PAGE)), (Access::RWX, readable));
    assert_eq!(errno(guest.space().set_access(span(0, 3 * PAGE), Access::READ)), "ENXIO");
    assert_eq!((offered(0), offered(PAGE)), (Access::RWX, readable), "nothing changed");
}

#[test]
fn a_change_needs_regions_in_all_of_its_range_and_a_region_its_object() {
    let (guest, ram) = plain_guest(2 * PAGE);
    let before = shape(&guest);
    let tagged = guest.space().set_tag(span(PAGE, 2 * PAGE), 7, None);
    assert_eq!(errno(tagged), "ENXIO");
    assert_eq!(errno(guest.space().set_tag(span(0, PAGE / 2), 7, None)), "EINVAL");
    assert_eq!(shape(&guest), before, "nothing changed");
    assert_eq!(guest.space().region_at(GuestPhys(PAGE)).unwrap().tag(), 0);
    // Different tags keep neighbours apart.
    guest.space().set_tag(span(PAGE, PAGE), 7, None).unwrap();
    assert_eq!(shape(&guest).len(), 2);
    guest.space().set_tag(span(PAGE, PAGE), 0, Some("disk")).unwrap();
    assert_eq!(shape(&guest).len(), 2, "and so do owners");
    guest.space().set_tag(span(PAGE, PAGE), 0, None).unwrap();
    assert_eq!(shape(&guest), before);
    let part = |kind, offset, len| Region::memory(kind, span(0, len), &ram, offset);
    assert!(part(RegionKind::Ram, PAGE, PAGE).is_ok());
    for refused in [
        part(RegionKind::Ram, PAGE, 2 * PAGE),
        part(RegionKind::Ram, 2 * PAGE, PAGE),
        part(RegionKind::Ram, u64::MAX - PAGE + 1, PAGE),
        part(RegionKind::Ram, PAGE / 2, PAGE),
        part(RegionKind::Reserved, 0, PAGE),
        part(RegionKind::Device, 0, PAGE),
    ] {
        assert!(refused.is_err(), "{refused:?}");
    }
}
