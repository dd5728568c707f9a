//! Decisions 13 to 17: who may access memory, and until when.

use std::thread;
use std::time::Duration;

use gasp::{
    Access, DeviceAddr, DomainKind, DomainOptions, Guest, GuestPhys, MapFlags, Reason, Refusal,
    Unattached,
};

use crate::RW;
use crate::support::*;

#[test]
fn decision_13_without_an_iommu_all_ram_is_allowed() {
    let (guest, _ram) = plain_guest(2 * PAGE);
    let disk = guest.vdev("disk").unwrap();
    for flags in all_flags() {
        assert!(disk.map(DeviceAddr(0), 2 * PAGE, flags).is_ok(), "{flags:?}");
    }
    assert_eq!(errno(guest.domain("d", DomainOptions::new(DomainKind::Bypass))), "EINVAL");
}

#[test]
fn decision_14_unattached_devices_are_denied_or_bypass_as_configured() {
    let (guest, _ram) = iommu_guest(PAGE);
    let disk = guest.vdev("disk").unwrap();
    let refused = error(disk.map(DeviceAddr(0), 8, RW));
    let refusal = Refusal::Unattached;
    assert_eq!(refused.reason(), Reason::Refused { addr: DeviceAddr(0), refusal });
    let guest = Guest::builder().iommu(Unattached::Bypass).build().unwrap();
    guest.space().add_ram(None, &ram(PAGE)).unwrap();
    let disk = guest.vdev("disk").unwrap();
    assert!(disk.map(DeviceAddr(0), 8, RW).is_ok());
    let deny = guest.domain("deny", DomainOptions::new(DomainKind::Deny)).unwrap();
    disk.attach(&deny).unwrap().wait();
    assert_eq!(errno(disk.map(DeviceAddr(0), 8, RW)), "EFAULT");
    disk.detach().wait();
    assert!(disk.map(DeviceAddr(0), 8, RW).is_ok(), "unattached again");
}

#[test]
fn decision_15_a_revoke_refuses_at_once_and_completes_when_the_last_holder_is_gone() {
    let (guest, ram) = iommu_guest(PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), PAGE, Access::RW).unwrap();
    let held = disk.map(DeviceAddr(0), PAGE, RW).unwrap();
    let mut drain = domain.revoke(DeviceAddr(0), PAGE).unwrap();
    assert_eq!(errno(disk.map(DeviceAddr(0), 1, MapFlags::READ)), "EFAULT");
    assert_eq!(drain.pending(), 1);
    let waiter = thread::spawn(move || drain.wait());
    thread::sleep(Duration::from_millis(20));
    assert!(!waiter.is_finished(), "the holder is waited for");
    held.write_at(0, b"in flight").unwrap();
    assert!(!held.is_revoked(), "it may continue while the revoke waits");
    drop(held);
    let drained = waiter.join().unwrap();
    assert_eq!((drained.holders, drained.detached, drained.completed()), (1, 0, true));
    assert!(drained.waited >= Duration::from_millis(20));
    let mut bytes = [0; 9];
    ram.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"in flight");
}

#[test]
fn decision_15_with_detach_the_deadline_ends_the_wait_and_the_handle_says_so() {
    let (guest, _ram) = iommu_guest(PAGE);
    let deadline = Duration::from_millis(30);
    let drain = Some(detach_after(deadline));
    let options = DomainOptions { drain, ..DomainOptions::new(DomainKind::Identity) };
    let domain = guest.domain("disk", options).unwrap();
    let disk = guest.vdev("disk").unwrap();
    disk.attach(&domain).unwrap().wait();
    domain.grant_identity(GuestPhys(0), PAGE, Access::RW).unwrap();
    let held = disk.map(DeviceAddr(0), PAGE, RW).unwrap();
    let drained = domain.revoke(DeviceAddr(0), 1).unwrap().wait();
    assert_eq!((drained.holders, drained.detached, drained.completed()), (1, 1, false));
    assert!(drained.waited >= deadline);
    assert!(held.is_revoked());
    held.write_at(0, b"still its memory").unwrap();
    domain.grant_identity(GuestPhys(0), PAGE, Access::RW).unwrap();
    assert!(held.is_revoked(), "a new grant is for new maps");
    assert!(!disk.map(DeviceAddr(0), PAGE, RW).unwrap().is_revoked());
}

#[test]
fn decision_16_memory_that_is_removed_stays_for_whoever_holds_it() {
    let guest = Guest::builder().drain(patient()).build().unwrap();
    let ram = ram(PAGE);
    ram.write_at(0, b"here").unwrap();
    guest.space().add_ram(None, &ram).unwrap();
    let file = inode(&ram);
    drop(ram);
    let disk = guest.vdev("disk").unwrap();
    let held = disk.map(DeviceAddr(0), PAGE, RW).unwrap();
    let mut drain = guest.space().remove(span(0, PAGE)).unwrap();
    assert_eq!(errno(disk.map(DeviceAddr(0), 1, RW)), "ENXIO");
    assert_eq!(errno(guest.map_firmware(GuestPhys(0), 1, RW)), "ENXIO");
    assert_eq!(drain.pending(), 1);
    let mut bytes = [0; 4];
    held.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"here");
    assert_eq!(times_mapped(file), 1);
    drop(held);
    assert!(drain.wait().completed());
    assert_eq!(times_mapped(file), 0, "and then it is unmapped");
}

#[test]
fn decision_17_a_drop_releases_its_own_mapping_and_no_other() {
    let (guest, _ram) = iommu_guest(PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), PAGE, Access::RW).unwrap();
    let [first, second] = [(); 2].map(|()| disk.map(DeviceAddr(0), PAGE, RW).unwrap());
    drop(first);
    let third = disk.map(DeviceAddr(0), PAGE, RW).unwrap();
    let mut drain = domain.revoke(DeviceAddr(0), PAGE).unwrap();
    assert_eq!(drain.pending(), 2, "one release ends one mapping");
    drop(third);
    assert_eq!(drain.pending(), 1);
    drop(second);
    assert!(drain.wait().completed());
}
