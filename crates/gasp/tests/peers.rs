//! Defects of peers, as tests of the engine.
//!
//! 1. vm-memory: an empty IOTLB lets a range at the end of the address space through.
//! 2. libvfio-user: a wrapping length passes once a lookup is warm.
//! 3. DPDK: adjacent device addresses are joined although their memory is not adjacent.
//! 4. QEMU: a write map of a read-only address returns a copy, and an unmap revokes nothing.
//! 5. cloud-hypervisor: the direction is not checked, and a translation goes stale.
//! 7. Frame number 0 is returned as an address; locked pages are taken for pinned ones.
//!
//! 6. A live server: revoking a grant panics, and memory without a descriptor cannot be used.
//! 8. vfio_user: errors are answered with errno 0.
//!
//! 6 and 8 are about servers of the vfio-user protocol; the tests here are of the engine's part.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::thread;
use std::time::Duration;

use gasp::{
    Access, DeviceAddr, DomainKind, Errno, GuestPhys, MapFlags, Reason, Region, Span, Stability,
};
use support::*;

const READ: MapFlags = MapFlags::READ;
const TOP: u64 = u64::MAX - 3;

#[test]
fn peer_6_revoking_what_was_or_was_not_granted_does_not_panic() {
    let (guest, _ram) = iommu_guest(4 * PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Translate);
    domain.grant(DeviceAddr(PAGE), GuestPhys(PAGE), PAGE, Access::RW).unwrap();
    for (page, pages) in [(0, 1), (0, 4), (1, 1), (1, 1), (1 << 30, 1 << 10)] {
        assert!(domain.revoke(DeviceAddr(page * PAGE), pages * PAGE).unwrap().wait().completed());
    }
    assert_eq!(errno(disk.map(DeviceAddr(PAGE), 8, READ)), "EFAULT");
    // A region without memory is granted like a hole, and its maps are refused.
    let nothing = Span::new(GuestPhys(64 * PAGE), PAGE).unwrap();
    guest.space().add(Region::device(nothing, "disk")).unwrap();
    domain.grant(DeviceAddr(0), GuestPhys(64 * PAGE), PAGE, Access::RW).unwrap();
    assert_eq!(errno(disk.map(DeviceAddr(0), 8, READ.any())), "ENXIO");
}

#[test]
fn peer_8_no_refusal_has_errno_0() {
    let (guest, _ram) = iommu_guest(PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    let refusals = [
        error(disk.map(DeviceAddr(0), 0, READ)),
        error(disk.map(DeviceAddr(TOP), 64, READ)),
        error(disk.map(DeviceAddr(0), 8, READ)),
        error(domain.revoke(DeviceAddr(0), 0)),
        error(domain.grant_identity(GuestPhys(0), PAGE, Access::empty())),
        error(guest.vdev("disk")),
        error(domain.clone().remove()),
        error(guest.map_firmware(GuestPhys(64 * PAGE), 8, READ)),
    ];
    for refused in refusals {
        assert!(refused.errno().raw_os_error() > 0, "{refused}");
        assert_ne!(refused.errno_name(), "E?", "{refused}");
    }
}

#[test]
fn peer_1_an_empty_domain_lets_nothing_through_at_the_end_of_the_address_space() {
    let (guest, _ram) = iommu_guest(PAGE);
    for kind in [DomainKind::Identity, DomainKind::Translate] {
        let (disk, domain) = device(&guest, kind.name(), kind);
        assert_eq!(errno(disk.map(DeviceAddr(TOP), 4096, READ)), "ENXIO");
        assert_eq!(errno(disk.map(DeviceAddr(TOP), 4, READ)), "ENXIO", "without a wrap");
        assert_eq!(errno(disk.read(DeviceAddr(TOP), &mut [0; 64])), "ENXIO");
        assert_eq!(errno(disk.map(DeviceAddr(0), 1, READ)), "EFAULT");
        // Grants of length 0, and grants that wrap.
        let grant = |addr, len| domain.grant(DeviceAddr(addr), GuestPhys(addr), len, Access::READ);
        assert_eq!(errno(grant(0, 0)), "EINVAL");
        assert_eq!(errno(grant(TOP, 4096)), "ENXIO");
        assert_eq!(errno(grant(TOP, u64::MAX)), "ENXIO");
        assert_eq!(errno(domain.revoke(DeviceAddr(0), 0)), "EINVAL");
        assert_eq!(errno(domain.revoke(DeviceAddr(TOP), 4096)), "ENXIO");
        assert!(domain.revoke(DeviceAddr(TOP), 4).unwrap().wait().completed());
        assert_eq!(domain.grants(), []);
    }
}

#[test]
fn peer_2_a_warm_lookup_lets_no_wrapping_length_through() {
    in_time(|| {
        let (guest, _ram) = plain_guest(16 * PAGE);
        let disk = guest.vdev("disk").unwrap();
        let addr = PAGE + 0x10;
        for _ in 0..1000 {
            assert!(disk.map(DeviceAddr(addr), 8, READ).is_ok());
        }
        for len in [u64::MAX, u64::MAX - addr, u64::MAX - addr + 1, 0xffff_ffff_ffff_f010, 1 << 63]
        {
            let wraps = addr.checked_add(len - 1).is_none();
            let want = if wraps { Reason::Wraps } else { Reason::BeyondWidth { bits: 48 } };
            assert_eq!(error(disk.map(DeviceAddr(addr), len, READ)).reason(), want);
            assert_eq!(error(disk.map_scatter(DeviceAddr(addr), len, READ)).reason(), want);
            assert_eq!(error(disk.map_host_contig(DeviceAddr(addr), len, READ)).reason(), want);
            assert_eq!(error(guest.map_firmware(GuestPhys(addr), len, READ)).reason(), want);
        }
    });
}

#[test]
fn peer_3_adjacent_device_addresses_are_not_joined_if_memory_is_not_adjacent() {
    let (guest, ram) = iommu_guest(16 * PAGE);
    number_pages(&ram, 1);
    let (disk, domain) = device(&guest, "disk", DomainKind::Translate);
    for (device, memory) in [(0, 5), (1, 9), (2, 10), (3, 0)] {
        let (device, memory) = (DeviceAddr(device * PAGE), GuestPhys(memory * PAGE));
        domain.grant(device, memory, PAGE, Access::READ).unwrap();
    }
    let refused = error(disk.map(DeviceAddr(0), 4 * PAGE, READ));
    assert_eq!(refused.reason(), Reason::NotConsecutive { prefix: PAGE });
    let joined = disk.map(DeviceAddr(PAGE), 2 * PAGE, READ).unwrap();
    assert_eq!(word(&joined), numbered(1, 9), "these are adjacent on both sides");
    let scatter = disk.map_scatter(DeviceAddr(0), 4 * PAGE, READ).unwrap();
    let lens: Vec<u64> = scatter.pieces().map(|piece| piece.len() as u64 / PAGE).collect();
    assert_eq!(lens, [1, 2, 1]);
    let mut word = [0; 8];
    for (page, memory) in [(0, 5), (1, 9), (2, 10), (3, 0)] {
        scatter.read_at(page * PAGE as usize, &mut word).unwrap();
        assert_eq!(u64::from_le_bytes(word), numbered(1, memory));
    }
}

#[test]
fn peer_4_a_write_map_of_a_read_only_address_is_refused_and_no_map_is_a_copy() {
    let (guest, ram) = iommu_guest(PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), PAGE, Access::READ).unwrap();
    assert_eq!(errno(disk.map(DeviceAddr(0), 8, MapFlags::WRITE)), "EFAULT");
    assert_eq!(errno(disk.map(DeviceAddr(0), 8, MapFlags::RW)), "EFAULT");
    domain.grant_identity(GuestPhys(0), PAGE, Access::WRITE).unwrap();
    let mapping = disk.map(DeviceAddr(0), 8, MapFlags::RW).unwrap();
    let alias = ram.alias().unwrap();
    let mut bytes = [0; 8];
    mapping.write_at(0, b"at once!").unwrap();
    alias.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"at once!", "while it is mapped, not when it is unmapped");
}

#[test]
fn peer_4_an_address_that_is_unmapped_by_the_guest_is_revoked() {
    let (guest, _ram) = iommu_guest(PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), PAGE, Access::RW).unwrap();
    let held = disk.map(DeviceAddr(0), 8, MapFlags::RW).unwrap();
    let drain = domain.revoke(DeviceAddr(0), PAGE).unwrap();
    let waiter = thread::spawn(move || drain.wait());
    thread::sleep(Duration::from_millis(10));
    assert!(!waiter.is_finished());
    drop(held);
    assert!(waiter.join().unwrap().completed());
}

#[test]
fn peer_5_the_direction_is_checked() {
    let (guest, _ram) = iommu_guest(8 * PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    for bits in 0..8 {
        let allowed = Access::from_bits_truncate(bits);
        let addr = u64::from(bits) * PAGE;
        if !allowed.is_empty() {
            domain.grant_identity(GuestPhys(addr), PAGE, allowed).unwrap();
        }
        for flags in all_flags() {
            let mapped = disk.map(DeviceAddr(addr), 8, flags);
            assert_eq!(mapped.is_ok(), allowed.contains(flags.access()), "{allowed} {flags:?}");
            assert!(mapped.is_ok() || errno(mapped) == "EFAULT");
        }
    }
}

#[test]
fn peer_5_what_was_translated_before_a_revoke_is_not_found_after_it() {
    let (guest, ram) = iommu_guest(8 * PAGE);
    number_pages(&ram, 1);
    let (disk, domain) = device(&guest, "disk", DomainKind::Translate);
    for round in 0..1000 {
        let page = round % 8;
        domain.grant(DeviceAddr(0), GuestPhys(page * PAGE), PAGE, Access::READ).unwrap();
        assert_eq!(word(&disk.map(DeviceAddr(0), 8, READ).unwrap()), numbered(1, page));
        domain.revoke(DeviceAddr(0), PAGE).unwrap().wait();
        assert_eq!(errno(disk.map(DeviceAddr(0), 8, READ)), "EFAULT");
    }
}

#[test]
fn peer_7_no_address_is_0_and_pages_that_can_move_are_not_called_pinned() {
    let (guest, demand) = plain_guest(16 * PAGE);
    let resident = resident(16 * PAGE);
    assert_eq!(resident.stability(), Stability::Unpinned, "in memory is not pinned");
    assert!(resident.not_pinned_because().is_some());
    guest.space().add_ram(None, &resident).unwrap();
    let disk = guest.vdev("disk").unwrap();
    for page in 0..32 {
        match disk.map_host_contig(DeviceAddr(page * PAGE), PAGE, READ) {
            Ok(mapping) => panic!("{mapping:?}"),
            Err(error) => assert!(matches!(error.errno(), Errno::PERM | Errno::AGAIN), "{error}"),
        }
    }
    for object in [&demand, &resident] {
        assert!(object.host_extents().all(|extent| extent.addr != Some(gasp::HostPhys(0))));
    }
}
