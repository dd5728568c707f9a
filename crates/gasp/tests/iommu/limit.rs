//! The limit of a domain's table entries: what counts towards it, and that nothing exceeds it.

use gasp::{
    Access, DeviceAddr, DomainKind, DomainOptions, Guest, GuestPhys, Reason, Region, RegionKind,
    Unattached,
};

use crate::READ;
use crate::support::*;

#[test]
fn the_entry_limit_is_enospc_and_nothing_changes() {
    let (guest, _ram) = iommu_guest(4 * HUGE);
    let options = DomainOptions { limit: 8, ..DomainOptions::new(DomainKind::Identity) };
    let domain = guest.domain("small", options).unwrap();
    domain.grant_identity(GuestPhys(HUGE), HUGE, Access::READ).unwrap();
    assert_eq!(domain.entries(), 1, "an aligned 2 MiB is one entry");
    domain.grant_identity(GuestPhys(0), 7 * PAGE, Access::READ).unwrap();
    assert_eq!(domain.entries(), 8);
    let before = Picture::of(&guest);
    let refused = error(domain.grant_identity(GuestPhys(7 * PAGE), PAGE, Access::READ));
    assert_eq!(refused.errno_name(), "ENOSPC");
    assert!(matches!(refused.reason(), Reason::Limit { limit: 8, .. }));
    assert_eq!(errno(domain.grant_identity(GuestPhys(0), 8 * PAGE, Access::RW)), "ENOSPC");
    assert_eq!(Picture::of(&guest), before);
    domain.grant_identity(GuestPhys(0), 7 * PAGE, Access::RW).unwrap();
    domain.revoke(DeviceAddr(0), PAGE).unwrap().wait();
    domain.grant_identity(GuestPhys(7 * PAGE), PAGE, Access::READ).unwrap();
}

#[test]
fn the_entry_limit_counts_splits_by_access_and_by_regions() {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let domain = |name: &str| {
        let options = DomainOptions { limit: 10, ..DomainOptions::new(DomainKind::Identity) };
        guest.domain(name, options).unwrap()
    };
    let raised = domain("raised");
    raised.grant_identity(GuestPhys(0), 1 << 30, Access::READ).unwrap();
    assert_eq!(errno(raised.grant_identity(GuestPhys(PAGE), PAGE, Access::WRITE)), "ENOSPC");
    assert_eq!(raised.entries(), 1, "nothing changed");
    raised.grant_identity(GuestPhys(0), 1 << 30, Access::WRITE).unwrap();
    assert_eq!(raised.entries(), 1, "access is added to all of it without a split");
    // A hole is a hole, whether or not it is reserved.
    guest.space().add(Region::reserved(span(PAGE, PAGE))).unwrap();
    let whole = domain("whole");
    whole.grant_identity(GuestPhys(0), 1 << 30, Access::READ).unwrap();
    assert_eq!(whole.entries(), 1);
    guest.space().add_ram(Some(GuestPhys(2 * PAGE)), &ram(PAGE)).unwrap();
    let cut = domain("cut");
    assert_eq!(errno(cut.grant_identity(GuestPhys(0), 1 << 30, Access::READ)), "ENOSPC");
    assert_eq!(cut.entries(), 0);
}

#[test]
fn the_entry_limit_holds_wherever_a_chunk_of_the_grant_ends() {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let object = ram(2100 * PAGE);
    for page in (0..2100).step_by(2) {
        let (range, offset) = (span(page * PAGE, PAGE), page * PAGE);
        let region = Region::memory(RegionKind::Ram, range, &object, offset).unwrap();
        guest.space().add(region).unwrap();
    }
    let options = DomainOptions { limit: 100, ..DomainOptions::new(DomainKind::Identity) };
    let domain = guest.domain("limited", options).unwrap();
    // Memory and holes alternate, so each page is an entry of its own.
    for pages in (1000..1050).chain(2020..2080) {
        let refused = domain.grant_identity(GuestPhys(0), pages * PAGE, Access::READ);
        assert_eq!(errno(refused), "ENOSPC", "{pages} pages");
        assert_eq!(domain.entries(), 0, "{pages} pages");
    }
}

#[test]
fn grants_that_memory_is_removed_under_are_taken_back_wherever_a_chunk_ends() {
    const LARGE: u64 = 2 << 20;
    const GRANTS: u64 = 30_000;
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    guest.space().add_ram(Some(GuestPhys(0)), &ram(LARGE)).unwrap();
    let options = DomainOptions { limit: GRANTS, ..DomainOptions::new(DomainKind::Translate) };
    let domain = guest.domain("full", options).unwrap();
    let disk = guest.vdev("disk").unwrap();
    disk.attach(&domain).unwrap().wait();
    for grant in 0..GRANTS {
        domain.grant(DeviceAddr(grant * LARGE), GuestPhys(0), LARGE, Access::RW).unwrap();
    }
    assert_eq!(domain.entries(), GRANTS);
    assert!(guest.space().remove(span(LARGE / 2, PAGE)).unwrap().wait().completed());
    // Grants that are taken back make room for others to be cut. None is left as it was.
    assert!(domain.entries() < GRANTS);
    for grant in 0..GRANTS {
        let left = disk.map(DeviceAddr(grant * LARGE + LARGE / 2), 8, READ);
        assert!(["EFAULT", "ENXIO"].contains(&errno(left)), "grant {grant}");
    }
}

#[test]
fn a_span_that_is_revoked_twice_makes_room_once() {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let options = DomainOptions { limit: 600, ..DomainOptions::new(DomainKind::Identity) };
    let domain = guest.domain("limited", options).unwrap();
    domain.grant_identity(GuestPhys(1 << 30), 2 << 20, Access::READ).unwrap();
    for page in (0..200).step_by(2) {
        domain.grant_identity(GuestPhys(page * PAGE), PAGE, Access::READ).unwrap();
    }
    let before = domain.entries();
    let page = |addr: u64| gasp::Span::new(DeviceAddr(addr), PAGE).unwrap();
    // Revoking one page makes room for one entry, however often the page is named.
    let mut spans = vec![page(0); 500];
    spans.push(page((1 << 30) + PAGE));
    assert_eq!(errno(domain.revoke_all(&spans)), "ENOSPC");
    assert_eq!(domain.entries(), before, "nothing has changed");
    assert!(domain.revoke_all(&spans[..500]).unwrap().wait().completed());
    assert_eq!(domain.entries(), before - 1);
}

/// A revoke fits a limit of exactly the entries that it leaves, and no smaller one.
#[test]
fn a_revoke_needs_room_for_just_the_entries_that_it_leaves() {
    const LARGE: u64 = 2 << 20;
    let start = |page: u64| DeviceAddr((1 << 30) + page * PAGE);
    let pages = |first: u64, count: u64| gasp::Span::new(start(first), count * PAGE).unwrap();
    let cases: [Vec<gasp::Span<DeviceAddr>>; 10] = [
        vec![pages(1, 1), pages(262_144, 512)],
        vec![pages(1, 1)],
        vec![pages(0, 512)],
        vec![pages(0, 1), pages(511, 1)],
        (0..100).map(|page| pages(page * 2, 1)).collect(),
        vec![pages(10, 600), pages(700, 10), pages(1023, 2)],
        vec![pages(5, 1), pages(0, 512)],
        vec![pages(512, 512), pages(3, 4)],
        vec![pages(1030, 5000), pages(262_144 - 1, 10)],
        vec![pages(300, 1), pages(262_144, 1), pages(0, 1)],
    ];
    for spans in cases {
        let build = |limit: u64| {
            let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
            let options = DomainOptions { limit, ..DomainOptions::new(DomainKind::Identity) };
            let domain = guest.domain("domain", options).unwrap();
            // An entry of 1 GiB, and three of 2 MiB after it.
            let len = (1 << 30) + 3 * LARGE;
            domain.grant_identity(GuestPhys(1 << 30), len, Access::READ).unwrap();
            domain
        };
        let free = build(1 << 20);
        drop(free.revoke_all(&spans).unwrap());
        let left = free.entries();
        let just = build(left.max(4));
        drop(just.revoke_all(&spans).unwrap());
        assert_eq!(just.entries(), left, "{spans:?}");
        if left > 4 {
            let short = build(left - 1);
            assert_eq!(errno(short.revoke_all(&spans)), "ENOSPC", "{spans:?}");
            assert_eq!(short.entries(), 4, "nothing has changed");
        }
    }
}

#[test]
fn a_grant_that_is_being_added_and_memory_that_changes_do_not_use_the_same_room() {
    const REGIONS: u64 = 1 << 14;
    const LARGE: u64 = 2 << 20;
    const CUTS: u64 = 20;
    let object = ram(REGIONS * 2 * PAGE);
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    for index in 0..REGIONS {
        let addr = index * 2 * PAGE;
        let region = Region::memory(RegionKind::Ram, span(addr, PAGE), &object, addr).unwrap();
        guest.space().add(region).unwrap();
    }
    let limit = 2 * REGIONS + CUTS;
    let options = DomainOptions { limit, ..DomainOptions::new(DomainKind::Identity) };
    let domain = guest.domain("domain", options).unwrap();
    let high = 1 << 32;
    for round in 0..20 {
        let large = ram(CUTS * LARGE);
        guest.space().add_ram(Some(GuestPhys(high)), &large).unwrap();
        domain.grant_identity(GuestPhys(high), CUTS * LARGE, Access::READ).unwrap();
        std::thread::scope(|scope| {
            let adding = scope.spawn(|| {
                domain.grant_identity(GuestPhys(0), REGIONS * 2 * PAGE, Access::READ).unwrap();
            });
            // The whole grant has been checked, and its first part is in place.
            while domain.entries() == CUTS && !adding.is_finished() {
                std::hint::spin_loop();
            }
            for cut in 0..CUTS {
                let page = span(high + cut * LARGE + PAGE, PAGE);
                assert!(guest.space().remove(page).unwrap().wait().completed());
            }
        });
        assert!(domain.entries() <= limit, "round {round}: {} of {limit}", domain.entries());
        assert!(guest.space().remove(span(high, CUTS * LARGE)).unwrap().wait().completed());
        assert!(domain.revoke(DeviceAddr(0), 1 << 40).unwrap().wait().completed());
    }
}
