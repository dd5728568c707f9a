//! The decisions of docs/decisions.md, each by its number.
//!
//! Three rows are about C: NULL pointers (12), handles that are unmapped twice (17) and
//! handles that are stale or forged (18). In Rust there is no NULL, and a mapping is moved,
//! not copied: 17 becomes "a drop releases once, and only its own", and 18 has no
//! counterpart, since the borrow checker refuses a pointer's owner after its drop. The C
//! handles are tested in `gasp-capi`; row 22 is in `own_mappings.rs`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

#[path = "decisions/host.rs"]
mod host;
#[path = "decisions/lifetime.rs"]
mod lifetime;

use gasp::{
    Access, DeviceAddr, DomainKind, Errno, Guest, GuestPhys, MapFlags, Reason, Refusal, Region,
    RegionKind, Unattached,
};
use support::*;

const RW: MapFlags = MapFlags::RW;

#[test]
fn decision_01_arguments_are_checked_before_the_iommu() {
    let (guest, _ram) = iommu_guest(4 * PAGE);
    let denied = guest.vdev("denied").unwrap();
    assert_eq!(error(denied.map(DeviceAddr(0), 0, RW)).reason(), Reason::ZeroLength);
    assert_eq!(error(denied.map(DeviceAddr(u64::MAX), 2, RW)).reason(), Reason::Wraps);
    let beyond = error(denied.map_host_contig(DeviceAddr(1 << 48), 1, RW));
    assert_eq!(beyond.reason(), Reason::BeyondWidth { bits: 48 });
    assert_eq!(guest.take_faults().records, [], "a bad argument is no fault of the device");
}

#[test]
fn decision_01_the_iommu_is_asked_before_memory() {
    let (guest, _ram) = iommu_guest(PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    assert_eq!(errno(disk.map(DeviceAddr(0x10_0000), PAGE, RW)), "EFAULT", "refused, and a hole");
    // A hole that is allowed, followed by a page that is refused.
    domain.grant_identity(GuestPhys(0), 2 * PAGE, Access::RW).unwrap();
    let error = error(disk.map(DeviceAddr(PAGE), 2 * PAGE, RW));
    let refusal = Refusal::NotGranted;
    assert_eq!(error.reason(), Reason::Refused { addr: DeviceAddr(2 * PAGE), refusal });
    assert_eq!(errno(disk.map(DeviceAddr(PAGE), PAGE, RW)), "ENXIO", "only a hole");
}

#[test]
fn decision_01_memory_is_looked_at_before_host_addresses() {
    let (guest, _ram) = plain_guest(PAGE);
    let disk = guest.vdev("disk").unwrap();
    assert_eq!(errno(disk.map_host_contig(DeviceAddr(0), PAGE, RW)), "EPERM");
    assert_eq!(errno(disk.map_host_contig(DeviceAddr(0), PAGE + 1, RW)), "ENXIO");
}

#[test]
fn decision_02_a_length_of_zero_is_einval_at_every_entry() {
    let (guest, _ram) = plain_guest(PAGE);
    let disk = guest.vdev("disk").unwrap();
    for start in [0, 5, PAGE, 1 << 47, u64::MAX] {
        let addr = DeviceAddr(start);
        assert_eq!(errno(disk.map(addr, 0, RW)), "EINVAL");
        assert_eq!(errno(disk.map_host_contig(addr, 0, RW)), "EINVAL");
        assert_eq!(errno(disk.map_host_contig_truncated(addr, 0, RW)), "EINVAL");
        assert_eq!(errno(disk.map_scatter(addr, 0, RW)), "EINVAL");
        assert_eq!(errno(disk.map_stitched(addr, 0, RW)), "EINVAL");
        assert_eq!(errno(guest.map_firmware(GuestPhys(start), 0, RW)), "EINVAL");
        assert_eq!(errno(disk.read(addr, &mut [])), "EINVAL");
        assert_eq!(errno(disk.write(addr, &[])), "EINVAL");
    }
}

#[test]
fn decision_03_a_range_that_wraps_or_passes_the_address_width_is_enxio() {
    let guest = Guest::builder().address_width(40).build().unwrap();
    guest.space().add_ram(Some(GuestPhys((1 << 40) - PAGE)), &ram(PAGE)).unwrap();
    let disk = guest.vdev("disk").unwrap();
    let top = DeviceAddr((1 << 40) - PAGE);
    assert!(disk.map(top, PAGE, RW).is_ok(), "up to the last byte");
    let beyond = Reason::BeyondWidth { bits: 40 };
    assert_eq!(error(disk.map(top, PAGE + 1, RW)).reason(), beyond);
    assert_eq!(error(disk.map_scatter(top, PAGE + 1, RW)).reason(), beyond);
    assert_eq!(error(disk.map_host_contig(top, PAGE + 1, RW)).reason(), beyond);
    assert_eq!(error(disk.map(DeviceAddr(1 << 40), 1, RW)).reason(), beyond);
    assert_eq!(error(disk.map(top, u64::MAX, RW)).reason(), Reason::Wraps);
    for reason in [beyond, Reason::Wraps] {
        assert_eq!(reason.errno(), Errno::NXIO);
    }
}

#[test]
fn decision_04_flags_need_an_access_and_no_unknown_bit() {
    assert_eq!(MapFlags::from_bits(0).unwrap_err().errno(), Errno::NXIO);
    assert_eq!(MapFlags::from_bits(MapFlags::ANY_BIT).unwrap_err().errno(), Errno::NXIO);
    for unknown in (3..32).map(|bit| 1 << bit).filter(|&bit| bit != MapFlags::ANY_BIT) {
        assert_eq!(MapFlags::from_bits(1 | unknown), Err(Reason::BadFlags(1 | unknown)));
    }
    for flags in all_flags() {
        assert_eq!(MapFlags::from_bits(flags.bits()), Ok(flags));
    }
}

#[test]
fn decision_04_write_alone_maps_and_cannot_be_read() {
    let (guest, ram) = plain_guest(PAGE);
    let disk = guest.vdev("disk").unwrap();
    let mapping = disk.map(DeviceAddr(0), 8, MapFlags::WRITE).unwrap();
    mapping.write_at(0, b"written!").unwrap();
    assert_eq!(errno(mapping.read_at(0, &mut [0; 8])), "EACCES");
    let mut bytes = [0; 8];
    ram.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"written!");
}

#[test]
fn decision_05_rom_and_windows_are_mapped_only_with_map_any() {
    let (guest, _ram) = plain_guest(PAGE);
    guest.space().add_rom(Some(GuestPhys(PAGE)), &ram(PAGE)).unwrap();
    let window = Region::pass_through(GuestPhys(2 * PAGE), &window(PAGE, 0xf000_0000)).unwrap();
    guest.space().add(window).unwrap();
    let disk = guest.vdev("disk").unwrap();
    for addr in [PAGE, 2 * PAGE] {
        let refused = error(disk.map(DeviceAddr(addr), 8, MapFlags::READ));
        assert_eq!(
            (refused.reason(), refused.errno()),
            (Reason::NotRam { addr: GuestPhys(addr) }, Errno::NXIO)
        );
        assert!(disk.map(DeviceAddr(addr), 8, MapFlags::READ.any()).is_ok());
        assert_eq!(errno(guest.map_firmware(GuestPhys(addr), 8, MapFlags::READ)), "ENXIO");
        assert!(guest.map_firmware(GuestPhys(addr), 8, MapFlags::READ.any()).is_ok());
    }
    assert!(disk.map(DeviceAddr(0), 8, MapFlags::READ.any()).is_ok(), "RAM is accepted, too");
}

#[test]
fn decision_05_map_any_never_widens_what_the_iommu_allows() {
    let (guest, _ram) = iommu_guest(PAGE);
    guest.space().add_rom(Some(GuestPhys(PAGE)), &ram(PAGE)).unwrap();
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), PAGE, Access::READ).unwrap();
    assert_eq!(errno(disk.map(DeviceAddr(0), 8, MapFlags::WRITE.any())), "EFAULT");
    assert_eq!(errno(disk.map(DeviceAddr(PAGE), 8, MapFlags::READ.any())), "EFAULT");
}

#[test]
fn decision_06_writing_to_rom_is_eacces() {
    let (guest, _ram) = plain_guest(PAGE);
    let rom = guest.space().add_rom(None, &ram(PAGE)).unwrap();
    let disk = guest.vdev("disk").unwrap();
    for flags in [MapFlags::WRITE.any(), RW.any()] {
        let refused = error(disk.map(DeviceAddr(rom.0), 8, flags));
        assert_eq!(refused.errno_name(), "EACCES");
        assert!(matches!(refused.reason(), Reason::Forbidden { addr, .. } if addr == rom));
        assert_eq!(errno(disk.map_host_contig(DeviceAddr(rom.0), 8, flags)), "EACCES");
        assert_eq!(errno(guest.map_firmware(rom, 8, flags)), "EACCES");
    }
    assert_eq!(errno(guest.write_firmware(rom, b"x")), "EACCES");
}

#[test]
fn decision_07_a_host_discontinuity_shortens() {
    // Two windows that are adjacent in the guest, and far apart in the host.
    let guest = Guest::builder().build().unwrap();
    let bases = [0x10_0000_0000, 0x20_0000_0000];
    for (index, base) in (0..).zip(bases) {
        let region = Region::pass_through(GuestPhys(index * HUGE), &window(HUGE, base)).unwrap();
        guest.space().add(region).unwrap();
    }
    let disk = guest.vdev("disk").unwrap();
    let any = MapFlags::READ.any();
    let first = disk.map_host_contig(DeviceAddr(0x123), 2 * HUGE - 0x123, any).unwrap();
    assert_eq!(first.len() as u64, HUGE - 0x123, "up to the seam and no further");
    let run = first.host_run().unwrap();
    assert_eq!((run.addr.0, run.len), (bases[0] + 0x123, HUGE - 0x123));
    let second = disk.map_host_contig(DeviceAddr(HUGE), HUGE, any).unwrap();
    assert_eq!((second.len() as u64, second.host_run().unwrap().addr.0), (HUGE, bases[1]));
    let last = disk.map_host_contig(DeviceAddr(HUGE - 1), HUGE, any).unwrap();
    assert_eq!(last.len(), 1, "shortened, but never to 0");
}

#[test]
fn decision_07_a_shortened_mapping_is_held_for_its_length_and_not_for_the_requested_one() {
    let guest = Guest::builder().drain(patient()).build().unwrap();
    for (index, base) in (0..).zip([0x10_0000_0000, 0x20_0000_0000]) {
        let region = Region::pass_through(GuestPhys(index * HUGE), &window(HUGE, base)).unwrap();
        guest.space().add(region).unwrap();
    }
    let disk = guest.vdev("disk").unwrap();
    let held = disk.map_host_contig(DeviceAddr(PAGE), 2 * HUGE - PAGE, MapFlags::READ.any());
    assert_eq!(held.as_ref().map(|held| held.len() as u64), Ok(HUGE - PAGE));
    let mut beyond = guest.space().remove(span(HUGE, HUGE)).unwrap();
    assert_eq!(beyond.pending(), 0, "it does not reach there");
    let mut under = guest.space().remove(span(HUGE - PAGE, PAGE)).unwrap();
    assert_eq!(under.pending(), 1, "its last page");
    drop(held);
    assert!(under.wait().completed());
}

#[test]
fn decision_08_a_hole_inside_the_request_is_enxio_for_all_of_it() {
    let (guest, _ram) = plain_guest(2 * PAGE);
    guest.space().add_ram(Some(GuestPhys(3 * PAGE)), &ram(PAGE)).unwrap();
    let disk = guest.vdev("disk").unwrap();
    let hole = Reason::NoMemory { addr: GuestPhys(2 * PAGE) };
    assert_eq!(error(disk.map(DeviceAddr(0), 4 * PAGE, RW)).reason(), hole);
    assert_eq!(error(disk.map_host_contig(DeviceAddr(0), 4 * PAGE, RW)).reason(), hole);
    assert_eq!(error(disk.map_scatter(DeviceAddr(0), 4 * PAGE, RW)).reason(), hole);
    assert_eq!(error(guest.map_firmware(GuestPhys(0), 4 * PAGE, RW)).reason(), hole);
    assert_eq!(
        error(disk.map(DeviceAddr(0), 2 * PAGE + 1, RW)).reason(),
        hole,
        "one byte is enough"
    );
}

#[test]
fn decision_09_a_prefix_is_efault_unless_truncation_is_requested() {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let region = Region::pass_through(GuestPhys(0), &window(4 * PAGE, 0xf000_0000)).unwrap();
    guest.space().add(region).unwrap();
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), 2 * PAGE, Access::READ).unwrap();
    let any = MapFlags::READ.any();
    let refused = error(disk.map_host_contig(DeviceAddr(8), 3 * PAGE, any));
    let refusal = Refusal::NotGranted;
    assert_eq!(refused.reason(), Reason::Refused { addr: DeviceAddr(2 * PAGE), refusal });
    let part = disk.map_host_contig_truncated(DeviceAddr(8), 3 * PAGE, any).unwrap();
    assert_eq!(part.len() as u64, 2 * PAGE - 8);
    assert_eq!(part.host_run().unwrap().addr.0, 0xf000_0008);
    assert_eq!(errno(disk.map_host_contig_truncated(DeviceAddr(2 * PAGE), 8, any)), "EFAULT");
}

#[test]
fn decision_10_a_refusal_changes_nothing_and_leaves_a_fault_record() {
    let (guest, _ram) = iommu_guest(4 * PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), PAGE, Access::READ).unwrap();
    let before = Picture::of(&guest);
    assert_eq!(errno(disk.map(DeviceAddr(0x10), 8, MapFlags::WRITE)), "EFAULT");
    assert_eq!(errno(disk.map(DeviceAddr(0x10), PAGE, MapFlags::READ)), "EFAULT");
    assert_eq!(Picture::of(&guest), before);
    let faults = guest.take_faults();
    assert_eq!((faults.records.len(), faults.dropped), (2, 0));
    let [write, read] = &faults.records[..] else { unreachable!() };
    assert_eq!((&*write.device, write.addr.0, write.access), ("disk", 0x10, Access::WRITE));
    let (allowed, requested) = (Access::READ, Access::WRITE);
    assert_eq!(write.refusal, Refusal::Access { allowed, requested });
    assert_eq!((read.addr.0, read.access), (PAGE, Access::READ), "the first refused address");
    assert_eq!(read.refusal, Refusal::NotGranted);
    assert_eq!(errno(disk.map(DeviceAddr(0x10_0000), 8, RW)), "EFAULT");
    assert_eq!(domain.revoke(DeviceAddr(0), 4 * PAGE).unwrap().pending(), 0, "nothing is held");
}

#[test]
fn decision_11_unaligned_requests_keep_their_offset_in_the_page() {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let window = window(4 * PAGE, 0xf000_0000);
    number_pages(&window, 1);
    guest.space().add(Region::pass_through(GuestPhys(0), &window).unwrap()).unwrap();
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0x1ff8), 0x10, Access::READ).unwrap();
    assert_eq!(domain.grants()[0].device, device_span(PAGE, 2 * PAGE), "rounded outward");
    let mapping = disk.map_host_contig(DeviceAddr(0x1fff), 0x1001, MapFlags::READ.any()).unwrap();
    assert_eq!(mapping.len(), 0x1001);
    assert_eq!(mapping.as_ptr().addr() as u64 % PAGE, 0xfff);
    assert_eq!(mapping.host_run().unwrap().addr.0, 0xf000_1fff);
    let mut bytes = [0; 8];
    mapping.read_at(1, &mut bytes).unwrap();
    assert_eq!(u64::from_le_bytes(bytes), numbered(1, 2));
}

#[test]
fn decision_12_firmware_calls_take_no_vdev_and_meet_no_iommu() {
    let (guest, _ram) = iommu_guest(PAGE);
    assert!(guest.map_firmware(GuestPhys(0), PAGE, RW).is_ok());
    let error = error(guest.map_firmware(GuestPhys(PAGE), 1, RW));
    assert_eq!((error.device(), error.errno_name()), (None, "ENXIO"));
    assert_eq!(guest.take_faults().records, []);
}

#[test]
fn decisions_04_to_06_offered_access_follows_the_kind_of_region() {
    let object = ram(PAGE);
    let offers = |kind| Region::memory(kind, span(0, PAGE), &object, 0).unwrap().access();
    assert_eq!(offers(RegionKind::Ram), Access::RWX);
    assert_eq!(offers(RegionKind::PassThrough), Access::RWX);
    assert_eq!(offers(RegionKind::Rom), Access::READ | Access::EXEC);
}
