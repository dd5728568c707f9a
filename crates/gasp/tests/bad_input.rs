//! Bad input from a guest, a peer or a configuration: each is refused with a typed error, changes
//! nothing, and panics nowhere.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

#[path = "bad_input/world.rs"]
mod world;

use gasp::{
    Access, DeviceAddr, DomainKind, DomainOptions, Guest, GuestPhys, HostPhys, MapFlags,
    MemoryObject, Reason, Region, RegionKind, Search, Span, Walk,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::*;
use world::{EDGES, WIDTH, World};

#[test]
fn maps_at_every_edge_are_refused_or_right_and_change_nothing() {
    in_time(|| {
        let world = World::new();
        let before = Picture::of(&world.guest);
        for addr in EDGES {
            for len in EDGES {
                world.map_in_every_way(addr, len, MapFlags::READ);
                world.map_in_every_way(addr, len, MapFlags::RW.any());
            }
        }
        assert_eq!(Picture::of(&world.guest), before);
        assert!(world.guest.take_faults().records.len() <= 64);
    });
}

#[test]
fn a_map_of_nearly_all_addresses_is_refused_at_once() {
    // To walk 2^64 addresses would take minutes, even by the gigabyte, and a revoke would wait
    // for the look-up as long.
    in_time(|| {
        let world = World::new();
        let started = std::time::Instant::now();
        for (vdev, _) in &world.domains {
            let (addr, len) = (DeviceAddr(PAGE), u64::MAX - PAGE);
            let reason = Reason::BeyondWidth { bits: WIDTH };
            assert_eq!(error(vdev.map(addr, len, MapFlags::READ)).reason(), reason);
            assert_eq!(error(vdev.map_host_contig(addr, len, MapFlags::READ)).reason(), reason);
            assert_eq!(error(vdev.map_scatter(addr, len, MapFlags::READ)).reason(), reason);
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(1));
    });
}

#[test]
fn grants_at_every_edge_are_refused_and_change_nothing_or_can_be_revoked() {
    let world = World::new();
    let before = Picture::of(&world.guest);
    let (_, translate) = &world.domains[1];
    for addr in EDGES {
        for to in EDGES {
            for len in EDGES {
                let free = addr >= 10 * PAGE;
                let granted = translate.grant(DeviceAddr(addr), GuestPhys(to), len, Access::RW);
                match granted {
                    // Outside the first grant: revoke just this one.
                    Ok(()) if free => {
                        assert_ne!(Picture::of(&world.guest), before);
                        translate.revoke(DeviceAddr(addr), len).unwrap().wait();
                    }
                    Ok(()) => {
                        translate.revoke(DeviceAddr(0), 1 << 47).unwrap().wait();
                        let (addr, to) = (DeviceAddr(PAGE), GuestPhys(PAGE));
                        translate.grant(addr, to, 8 * PAGE, Access::READ).unwrap();
                    }
                    Err(_) => {}
                }
                assert_eq!(Picture::of(&world.guest), before, "{addr:#x} {to:#x} {len:#x}");
            }
        }
    }
}

#[test]
fn revokes_at_every_edge_do_not_panic() {
    for addr in EDGES {
        for len in EDGES {
            let world = World::new();
            for (_, domain) in &world.domains {
                let Ok(drain) = domain.revoke(DeviceAddr(addr), len) else {
                    assert!(len == 0 || addr.checked_add(len - 1).is_none(), "{addr:#x} {len:#x}");
                    continue;
                };
                assert!(drain.wait().completed());
                let left = domain.grants();
                let first = |page: u64| left.iter().any(|r| r.device.contains(DeviceAddr(page)));
                let revoked = Span::new(DeviceAddr(addr), len).unwrap();
                for page in (PAGE..9 * PAGE).step_by(PAGE as usize) {
                    let touched = revoked.overlaps(&device_span(page, PAGE));
                    assert_eq!(first(page), !touched, "{addr:#x} {len:#x} {page:#x}");
                }
            }
        }
    }
}

#[test]
fn regions_at_every_edge_are_refused_or_can_be_removed_and_change_nothing() {
    let world = World::new();
    let space = world.guest.space();
    let before = Picture::of(&world.guest);
    for addr in EDGES {
        for len in EDGES {
            let Ok(span) = Span::new(GuestPhys(addr), len) else { continue };
            for region in [Region::reserved(span), Region::device(span, "uart")] {
                if space.add(region).is_ok() {
                    assert!(addr >= 17 * PAGE);
                    space.remove(span).unwrap().wait();
                }
                assert_eq!(Picture::of(&world.guest), before, "{span}");
            }
            let part = Region::memory(RegionKind::Ram, span, &world.ram, addr);
            assert!(part.is_err() || (addr + len <= 16 * PAGE && addr % PAGE == 0));
            let inside = span.overlaps(&support::span(0, 17 * PAGE));
            if !inside {
                assert!(space.remove(span).is_err());
                assert!(space.set_access(span, Access::READ).is_err());
            }
            let cuts = |addr: u64| addr < 17 * PAGE && !addr.is_multiple_of(PAGE);
            if cuts(addr) || addr.checked_add(len).is_some_and(cuts) {
                assert_eq!(errno(space.remove(span)), "EINVAL");
                let refused = errno(space.set_access(span, Access::READ));
                assert!(refused == "EINVAL" || (refused == "ENXIO" && span.last().0 >= 17 * PAGE));
            }
            assert_eq!(Picture::of(&world.guest), before, "{span}");
        }
        if addr != 17 * PAGE {
            let added = space.add_ram(Some(GuestPhys(addr)), &world.ram);
            if added.is_ok() {
                space.remove(support::span(addr, 16 * PAGE)).unwrap().wait();
            }
        }
        assert_eq!(Picture::of(&world.guest), before);
    }
}

#[test]
fn overlapping_regions_are_eexist_and_change_nothing() {
    let world = World::new();
    let before = Picture::of(&world.guest);
    for (start, pages) in [(0, 1), (15, 1), (15, 2), (16, 1), (0, 17), (0, 100), (16, 2)] {
        let region = Region::reserved(span(start * PAGE, pages * PAGE));
        assert_eq!(errno(world.guest.space().add(region)), "EEXIST");
        assert_eq!(Picture::of(&world.guest), before);
    }
    let same = world.guest.space().add_ram(Some(GuestPhys(0)), &world.ram);
    assert_eq!(errno(same), "EEXIST");
}

#[test]
fn searches_at_every_edge_find_what_is_free_or_nothing() {
    let world = World::new();
    let space = world.guest.space();
    for size in EDGES {
        for align in EDGES {
            for min in EDGES {
                let search = Search::new(size, align).within(GuestPhys(min), GuestPhys(u64::MAX));
                let Ok(found) = space.find_free(search) else { continue };
                assert!(found.len() == size && found.start().0 >= min);
                assert!(found.start().is_aligned(align) && found.last().0 < 1 << WIDTH);
                assert!(found.start().0 >= 17 * PAGE);
            }
            if let Ok(claimed) = space.claim_free(Search::new(size, align)) {
                assert!(claimed.last().0 < 17 * PAGE);
            }
            if let Ok(span) = Span::new(GuestPhys(size), align) {
                let _ = space.claim(span);
            }
        }
        let inverted = Search::new(size, 1).within(GuestPhys(u64::MAX), GuestPhys(0));
        assert!(space.find_free(inverted).is_err() && space.claim_free(inverted).is_err());
    }
}

#[test]
fn walks_with_any_maximum_end() {
    let world = World::new();
    for max_len in EDGES.into_iter().filter(|&max_len| max_len != 1) {
        for host in [false, true] {
            let entries = world.guest.space().walk(Walk { max_len, host });
            let total: u64 = entries.iter().map(|entry| entry.guest.len()).sum();
            assert_eq!(total, 17 * PAGE);
        }
    }
}

#[test]
fn address_widths_are_32_to_52_bits() {
    for width in [0, 1, 30, 31, 53, 63, 64, 65, u32::MAX] {
        assert_eq!(errno(Guest::builder().address_width(width).build()), "EINVAL", "{width}");
    }
    for width in [32, 39, 52] {
        let guest = Guest::builder().address_width(width).build().unwrap();
        let end = 1_u64 << width;
        let top = guest.space().add_ram(Some(GuestPhys(end - PAGE)), &ram(PAGE)).unwrap();
        let disk = guest.vdev("disk").unwrap();
        assert!(disk.map(DeviceAddr(top.0), PAGE, MapFlags::RW).is_ok());
        let reason = Reason::BeyondWidth { bits: width };
        assert_eq!(error(disk.map(DeviceAddr(end), 1, MapFlags::RW)).reason(), reason);
        let beyond = guest.space().add(Region::reserved(span(end, PAGE)));
        assert_eq!(error(beyond).reason(), reason);
        let across = guest.space().add_ram(Some(GuestPhys(end - PAGE)), &ram(2 * PAGE));
        assert_eq!(errno(across), "ENXIO");
        assert_eq!(errno(guest.space().add_ram(None, &ram(PAGE))), "ENXIO", "after the last");
    }
}

#[test]
fn lengths_that_memory_cannot_have_are_refused() {
    use gasp::Backing;
    for len in [0, 1, 4095, PAGE + 1, u64::MAX, u64::MAX - 4095, 1 << 63, 1 << 62] {
        for backing in [&[Backing::Base][..], &Backing::PREFERENCE, &[]] {
            let error = error(MemoryObject::ram(len).prefer(backing).create());
            assert!(["EINVAL", "ENOMEM", "EFBIG"].contains(&error.errno_name()), "{error}");
        }
    }
    let window = |host, len| MemoryObject::pass_through(memfd(PAGE), HostPhys(host), whole(len));
    for number in EDGES {
        assert_eq!(
            window(number, PAGE).is_ok(),
            number % PAGE == 0 && number.checked_add(PAGE).is_some()
        );
        assert!(number == PAGE || window(0, number).is_err());
    }
}

#[test]
fn a_grant_outside_ram_is_accepted_and_leads_nowhere() {
    let world = World::new();
    let (vdev, domain) = &world.domains[0];
    domain.grant_identity(GuestPhys(1 << 35), 1 << 30, Access::RW).unwrap();
    assert_eq!(errno(vdev.map(DeviceAddr(1 << 35), 8, MapFlags::RW)), "ENXIO");
    domain.revoke(DeviceAddr(1 << 35), 1 << 30).unwrap().wait();
}

#[test]
fn ten_million_grants_end_at_the_limit_with_nothing_lost() {
    let (guest, _ram) = iommu_guest(PAGE);
    let options = DomainOptions { limit: 100_000, ..DomainOptions::new(DomainKind::Identity) };
    let domain = guest.domain("greedy", options).unwrap();
    // Every other page, so that no two grants are joined.
    let mut granted = 0_u64;
    for grant in 0..10_000_000_u64 {
        match domain.grant_identity(GuestPhys(2 * grant * PAGE), PAGE, Access::READ) {
            Ok(()) => granted += 1,
            Err(error) => {
                assert_eq!(error.errno_name(), "ENOSPC");
                break;
            }
        }
    }
    assert_eq!((granted, domain.entries()), (100_000, 100_000));
    assert!(domain.table_bytes() <= 64 * 100_000, "{}", domain.table_bytes());
}

fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        prop::sample::select(EDGES.to_vec()),
        0..20 * PAGE,
        (0_u64..64).prop_map(|bit| 1 << bit)
    ]
}

type Numbers = (u64, u64, u64, u32, u8);

#[test]
fn no_number_at_any_entry_point_panics() {
    in_time(|| {
        let numbers = (numbers(), numbers(), numbers(), any::<u32>(), 0_u8..8);
        let mut runner = TestRunner::new(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(512)
        });
        runner.run(&numbers, try_every_entry_point).unwrap();
    });
}

fn try_every_entry_point((a, b, c, bits, access): Numbers) -> Result<(), TestCaseError> {
    let world = World::new();
    let access = Access::from_bits_truncate(access);
    let before = Picture::of(&world.guest);
    let flags = MapFlags::from_bits(bits % 0x210).unwrap_or(MapFlags::READ);
    world.map_in_every_way(a, b, flags);
    prop_assert_eq!(&Picture::of(&world.guest), &before, "a map changes nothing");
    let space = world.guest.space();
    let _ = space.find_free(Search::new(a, b).within(GuestPhys(c), GuestPhys(b)));
    let _ = space.claim_free(Search::new(a, b).within(GuestPhys(c), GuestPhys(a)));
    let _ = space.region_at(GuestPhys(a));
    let _ = world.ram.host_run(a, b);
    let _ = world.ram.read_at(a, &mut vec![0; (b % (1 << 16)) as usize]);
    for (_, domain) in &world.domains {
        let before = Picture::of(&world.guest);
        let refused = domain.grant(DeviceAddr(a), GuestPhys(b), c, access).is_err();
        prop_assert!(!refused || Picture::of(&world.guest) == before);
        let _ = domain.grant_identity(GuestPhys(a), b, access);
        let _ = domain.revoke(DeviceAddr(c), a).map(|drain| drain.wait());
    }
    let before = Picture::of(&world.guest);
    if let Ok(span) = Span::new(GuestPhys(a), b) {
        let refused = space.claim(span).is_err();
        prop_assert!(!refused || Picture::of(&world.guest) == before);
        let refused = space.set_access(span, access).map(|drain| drain.wait()).is_err();
        prop_assert!(!refused || Picture::of(&world.guest) == before);
        let _ = space.add(Region::reserved(span));
        let part = Region::memory(RegionKind::Ram, span, &world.ram, c);
        let _ = part.map(|region| space.add(region));
        let _ = space.remove(span).map(|drain| drain.wait());
    }
    Ok(())
}
