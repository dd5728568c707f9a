//! The guest's IOMMU: grants, domains, attachment and fault records.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "iommu/limit.rs"]
mod limit;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use gasp::{
    Access, DeviceAddr, Domain, DomainKind, DomainOptions, FAULTS_KEPT, Guest, GuestPhys, MapFlags,
    Reason, Refusal, Unattached,
};
use support::*;

const READ: MapFlags = MapFlags::READ;
const WRITE: MapFlags = MapFlags::WRITE;

/// The grants as device page, guest page, number of pages, access.
fn grants(domain: &Domain) -> Vec<(u64, u64, u64, String)> {
    let row = |grant: &gasp::Grant| {
        let (device, len) = (grant.device.start().0 / PAGE, grant.device.len() / PAGE);
        (device, grant.guest.0 / PAGE, len, grant.access.to_string())
    };
    domain.grants().iter().map(row).collect()
}

fn row(device: u64, guest: u64, pages: u64, access: &str) -> (u64, u64, u64, String) {
    (device, guest, pages, access.to_owned())
}

fn identity() -> (Guest, gasp::Vdev, Domain) {
    let (guest, _ram) = iommu_guest(16 * PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    (guest, disk, domain)
}

fn translate() -> (Guest, gasp::Vdev, Domain) {
    let (guest, ram) = iommu_guest(16 * PAGE);
    number_pages(&ram, 1);
    let (disk, domain) = device(&guest, "disk", DomainKind::Translate);
    (guest, disk, domain)
}

#[test]
fn grants_add_up_and_access_is_the_union() {
    let (_guest, disk, domain) = identity();
    domain.grant_identity(GuestPhys(0), 4 * PAGE, Access::READ).unwrap();
    domain.grant_identity(GuestPhys(2 * PAGE), 4 * PAGE, Access::WRITE).unwrap();
    assert_eq!(grants(&domain), [row(0, 0, 2, "r--"), row(2, 2, 2, "rw-"), row(4, 4, 2, "-w-")]);
    assert!(disk.map(DeviceAddr(2 * PAGE), 2 * PAGE, MapFlags::RW).is_ok());
    assert!(disk.map(DeviceAddr(0), 4 * PAGE, READ).is_ok(), "across two grants");
    assert_eq!(errno(disk.map(DeviceAddr(PAGE), PAGE, WRITE)), "EFAULT");
    assert_eq!(errno(disk.map(DeviceAddr(4 * PAGE), PAGE, READ)), "EFAULT");
    domain.grant_identity(GuestPhys(0), 6 * PAGE, Access::RW).unwrap();
    assert_eq!(grants(&domain), [row(0, 0, 6, "rw-")], "equal neighbours are joined");
    domain.grant_identity(GuestPhys(PAGE), PAGE, Access::READ).unwrap();
    assert_eq!(grants(&domain), [row(0, 0, 6, "rw-")], "a grant takes nothing away");
}

#[test]
fn a_revoke_splits_a_grant_and_skips_what_was_not_granted() {
    let (_guest, disk, domain) = identity();
    domain.grant_identity(GuestPhys(0), 8 * PAGE, Access::READ).unwrap();
    domain.revoke(DeviceAddr(2 * PAGE), 2 * PAGE).unwrap().wait();
    assert_eq!(grants(&domain), [row(0, 0, 2, "r--"), row(4, 4, 4, "r--")]);
    assert_eq!(errno(disk.map(DeviceAddr(PAGE), 2 * PAGE, READ)), "EFAULT");
    domain.revoke(DeviceAddr(0), 1 << 47).unwrap().wait();
    assert_eq!((grants(&domain), domain.entries(), domain.table_bytes()), (vec![], 0, 0));
    domain.revoke(DeviceAddr(0), PAGE).unwrap().wait();
}

#[test]
fn several_ranges_are_revoked_together() {
    let (_guest, disk, domain) = identity();
    domain.grant_identity(GuestPhys(0), 8 * PAGE, Access::READ).unwrap();
    let held: Vec<_> = [0, 3, 6].map(|page| disk.map(DeviceAddr(page * PAGE), 1, READ)).into();
    let spans = [device_span(0, PAGE), device_span(6 * PAGE, 2 * PAGE)];
    let mut drain = domain.revoke_all(&spans).unwrap();
    assert_eq!(drain.pending(), 2, "the one between is not affected");
    assert_eq!(grants(&domain), [row(1, 1, 5, "r--")]);
    drop(held);
    assert!(drain.wait().completed());
    assert!(domain.revoke_all(&[]).unwrap().wait().completed());
}

#[test]
fn ranges_are_rounded_outward_to_whole_granules() {
    let (_guest, disk, domain) = identity();
    domain.grant_identity(GuestPhys(PAGE + 0xfff), 2, Access::READ).unwrap();
    assert_eq!(grants(&domain), [row(1, 1, 2, "r--")]);
    assert!(disk.map(DeviceAddr(PAGE), 2 * PAGE, READ).is_ok());
    domain.revoke(DeviceAddr(2 * PAGE + 0x800), 1).unwrap().wait();
    assert_eq!(grants(&domain), [row(1, 1, 1, "r--")]);
    let (_guest, disk, domain) = translate();
    domain.grant(DeviceAddr(0x7234), GuestPhys(0x3234), 0x1000, Access::READ).unwrap();
    assert_eq!(grants(&domain), [row(7, 3, 2, "r--")]);
    assert_eq!(word(&disk.map(DeviceAddr(0x8000), 8, READ).unwrap()), numbered(1, 4));
    let error = error(domain.grant(DeviceAddr(0x1200), GuestPhys(0x1201), 8, Access::READ));
    assert_eq!(error.errno_name(), "EINVAL", "the offsets in the page differ");
}

#[test]
fn a_translation_that_is_there_with_another_target_is_eexist_and_nothing_changes() {
    let (guest, disk, domain) = translate();
    domain.grant(DeviceAddr(8 * PAGE), GuestPhys(2 * PAGE), 2 * PAGE, Access::READ).unwrap();
    let before = Picture::of(&guest);
    let refused = error(domain.grant(DeviceAddr(6 * PAGE), GuestPhys(PAGE), 4 * PAGE, Access::RW));
    let (at, to) = (DeviceAddr(8 * PAGE), 2 * PAGE);
    assert_eq!(refused.reason(), Reason::GrantedElsewhere { addr: at, to: GuestPhys(to) });
    assert_eq!(refused.errno_name(), "EEXIST");
    assert_eq!(Picture::of(&guest), before);
    assert_eq!(errno(disk.map(DeviceAddr(6 * PAGE), 8, READ)), "EFAULT");
    // The same target adds access; two device addresses may lead to one page.
    domain.grant(DeviceAddr(9 * PAGE), GuestPhys(3 * PAGE), PAGE, Access::WRITE).unwrap();
    domain.grant(DeviceAddr(0), GuestPhys(3 * PAGE), PAGE, Access::READ).unwrap();
    let want = [row(0, 3, 1, "r--"), row(8, 2, 1, "r--"), row(9, 3, 1, "rw-")];
    assert_eq!(grants(&domain), want);
    for page in [0, 9] {
        let mapping = disk.map(DeviceAddr(page * PAGE), 8, READ).unwrap();
        assert_eq!(word(&mapping), numbered(1, 3));
    }
}

#[test]
fn only_identity_and_translating_domains_have_grants_and_identity_does_not_translate() {
    let (guest, _ram) = iommu_guest(PAGE);
    for kind in [DomainKind::Bypass, DomainKind::Deny] {
        let domain = guest.domain(kind.name(), DomainOptions::new(kind)).unwrap();
        assert_eq!(errno(domain.grant_identity(GuestPhys(0), PAGE, Access::READ)), "EINVAL");
        assert_eq!(errno(domain.revoke(DeviceAddr(0), PAGE)), "EINVAL");
        assert_eq!((domain.grants(), domain.entries()), (vec![], 0));
    }
    let domain = guest.domain("identity", DomainOptions::new(DomainKind::Identity)).unwrap();
    let moved = domain.grant(DeviceAddr(0), GuestPhys(PAGE), PAGE, Access::READ);
    assert_eq!(errno(moved), "EINVAL");
    assert_eq!(errno(domain.grant_identity(GuestPhys(0), PAGE, Access::empty())), "ENXIO");
}

#[test]
fn a_device_of_one_owner_is_busy_for_another_until_it_is_detached() {
    let (guest, disk, _domain) = identity();
    let owner = Arc::from("firmware");
    let options = DomainOptions { owner, ..DomainOptions::new(DomainKind::Bypass) };
    let foreign = guest.domain("foreign", options).unwrap();
    assert_eq!(errno(disk.attach(&foreign)), "EBUSY");
    assert_eq!(disk.domain().unwrap().name(), "disk", "it has not moved");
    disk.detach().wait();
    disk.attach(&foreign).unwrap().wait();
    assert!(disk.map(DeviceAddr(0), PAGE, READ).is_ok());
    let (other, _ram) = iommu_guest(PAGE);
    assert_eq!(errno(other.vdev("disk").unwrap().attach(&foreign)), "EINVAL", "another guest's");
}

#[test]
fn a_move_drains_the_mappings_of_the_moved_device_only() {
    let (guest, disk, domain) = identity();
    let net = guest.vdev("net").unwrap();
    net.attach(&domain).unwrap().wait();
    domain.grant_identity(GuestPhys(0), PAGE, Access::RW).unwrap();
    let other = guest.domain("other", DomainOptions::new(DomainKind::Identity)).unwrap();
    let held = disk.map(DeviceAddr(0), PAGE, READ).unwrap();
    let neighbour = net.map(DeviceAddr(0), PAGE, READ).unwrap();
    let mut drain = disk.attach(&other).unwrap();
    assert_eq!(drain.pending(), 1);
    assert_eq!(errno(disk.map(DeviceAddr(0), PAGE, READ)), "EFAULT", "the new domain's grants");
    assert!(net.map(DeviceAddr(0), PAGE, READ).is_ok());
    drop(held);
    assert!(drain.wait().completed());
    assert!(!neighbour.is_revoked());
    let mut same = net.attach(&domain).unwrap();
    assert_eq!(same.pending(), 0, "it is there already: nothing is revoked");
}

#[test]
fn a_domain_that_has_devices_is_busy_and_one_that_was_removed_is_gone() {
    let (guest, disk, domain) = identity();
    let text = domain.clone().remove().unwrap_err().to_string();
    assert!(text.starts_with("removal of `") && text.ends_with("(EBUSY)"), "{text}");
    assert!(guest.find_domain("disk").is_some());
    disk.detach().wait();
    let gone = domain.clone();
    domain.remove().unwrap();
    assert!(guest.find_domain("disk").is_none());
    assert_eq!(errno(disk.attach(&gone)), "ENOENT");
    assert_eq!(errno(gone.grant_identity(GuestPhys(0), PAGE, Access::READ)), "ENOENT");
    assert!(guest.domain("disk", DomainOptions::new(DomainKind::Deny)).is_ok(), "a free name");
}

#[test]
fn a_removed_domain_has_no_grants_left_that_could_lead_to_removed_memory() {
    let (guest, disk, domain) = identity();
    domain.grant_identity(GuestPhys(0), PAGE, Access::READ).unwrap();
    disk.detach().wait();
    let gone = domain.clone();
    domain.remove().unwrap();
    // Changes of the guest's regions no longer reach the domain's table, so no word in it
    // may name memory any more. (Otherwise the calls below would follow the number of a
    // segment that is gone.)
    assert_eq!((grants(&gone), gone.entries()), (vec![], 0));
    guest.space().remove(span(0, 16 * PAGE)).unwrap().wait();
    assert_eq!(grants(&gone), []);
    assert_eq!(gone.revoke(DeviceAddr(0), PAGE).unwrap().pending(), 0);
}

#[test]
fn a_removed_device_is_attached_to_nothing_any_more() {
    let (_guest, disk, domain) = identity();
    domain.grant_identity(GuestPhys(0), PAGE, Access::READ).unwrap();
    let clone = disk.clone();
    disk.remove().wait();
    assert!(clone.domain().is_none());
    assert_eq!(errno(clone.map(DeviceAddr(0), PAGE, READ)), "EFAULT");
    // If it could be attached, the domain could be removed under it.
    assert_eq!(errno(clone.attach(&domain)), "ENOENT");
    domain.remove().unwrap();
}

#[test]
fn names_are_used_once() {
    let (guest, disk, _domain) = identity();
    assert_eq!(errno(guest.vdev("disk")), "EEXIST");
    assert_eq!(errno(guest.domain("disk", DomainOptions::new(DomainKind::Deny))), "EEXIST");
    assert_eq!((guest.vdevs().len(), guest.domains().len()), (1, 1));
    disk.remove().wait();
    assert!(guest.find_vdev("disk").is_none());
    assert!(guest.vdev("disk").is_ok());
}

#[test]
fn sixty_four_faults_are_kept_and_the_others_counted() {
    let (guest, disk, _domain) = identity();
    for page in 0..100 {
        assert_eq!(errno(disk.map(DeviceAddr(page * PAGE), 8, READ)), "EFAULT");
    }
    let faults = guest.take_faults();
    assert_eq!((faults.records.len(), faults.dropped), (FAULTS_KEPT, 36));
    for (page, fault) in (0..).zip(&faults.records) {
        assert_eq!((&*fault.device, fault.addr.0), ("disk", page * PAGE), "the oldest are kept");
        assert_eq!((fault.access, fault.refusal), (Access::READ, Refusal::NotGranted));
    }
    let none = guest.take_faults();
    assert_eq!((none.records.len(), none.dropped), (0, 0), "reading removes them");
    assert!(disk.write(DeviceAddr(5), b"x").is_err());
    assert_eq!(guest.take_faults().records.len(), 1, "copies leave records, too");
}

#[test]
fn an_identity_grant_over_the_full_address_width_is_quick() {
    let (guest, disk, domain) = identity();
    for page in 0..512 {
        domain.grant_identity(GuestPhys((1 << 40) + 3 * page * PAGE), PAGE, Access::WRITE).unwrap();
    }
    let started = Instant::now();
    domain.grant_identity(GuestPhys(0), 1 << 48, Access::READ).unwrap();
    assert!(disk.map(DeviceAddr(0), 16 * PAGE, READ).is_ok());
    assert_eq!(errno(disk.map(DeviceAddr(1 << 47), 8, READ)), "ENXIO", "allowed, and a hole");
    guest.space().add_ram(Some(GuestPhys(1 << 47)), &ram(PAGE)).unwrap();
    assert!(disk.map(DeviceAddr(1 << 47), 8, READ).is_ok());
    assert_eq!(grants(&domain).len(), 2 * 512 + 1);
    domain.revoke(DeviceAddr(0), 1 << 48).unwrap().wait();
    assert_eq!(grants(&domain), []);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn without_an_iommu_there_are_no_domains_and_unattached_is_configured_per_guest() {
    let (guest, _ram) = plain_guest(PAGE);
    assert_eq!(errno(guest.domain("d", DomainOptions::new(DomainKind::Identity))), "EINVAL");
    let guest = Guest::builder().iommu(Unattached::default()).build().unwrap();
    assert_eq!(errno(guest.vdev("disk").unwrap().map(DeviceAddr(0), 1, READ)), "EFAULT");
}

#[test]
fn a_removed_device_reaches_nothing_even_if_unattached_means_bypass() {
    for guest in [
        Guest::builder().build().unwrap(),
        Guest::builder().iommu(Unattached::Bypass).build().unwrap(),
    ] {
        guest.space().add_ram(Some(GuestPhys(0)), &ram(PAGE)).unwrap();
        let disk = guest.vdev("disk").unwrap();
        let clone = disk.clone();
        let held = clone.map(DeviceAddr(0), PAGE, READ).unwrap();
        let mut drain = disk.remove();
        assert_eq!(drain.pending(), 1, "the drain waits for its mappings");
        assert_eq!(errno(clone.map(DeviceAddr(0), PAGE, READ)), "EFAULT");
        drop(held);
        assert!(drain.wait().completed());
        clone.detach().wait();
        clone.clone().remove().wait();
        assert_eq!(errno(clone.map(DeviceAddr(0), PAGE, READ)), "EFAULT", "for good");
    }
}

#[test]
fn a_drain_that_still_waits_is_not_overtaken_by_the_removal_of_its_domain() {
    let (_guest, disk, domain) = identity();
    domain.grant_identity(GuestPhys(0), PAGE, Access::READ).unwrap();
    let held = disk.map(DeviceAddr(0), PAGE, READ).unwrap();
    let mut drain = disk.detach();
    domain.remove().unwrap();
    assert!(!held.is_revoked(), "its drain has not ended");
    assert_eq!(drain.pending(), 1);
    drop(held);
    assert!(drain.wait().completed());
}
