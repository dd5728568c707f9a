//! The documented errors of a map, for the three calls that map: host-contiguous, plain and
//! firmware.
//!
//! NULL pointers, and unmapping a handle twice, are tested with the C interface.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::unnecessary_literal_unwrap, reason = "one value is compared and asked")]

mod support;

use gasp::{
    Access, DeviceAddr, Domain, DomainKind, Errno, Guest, GuestPhys, HostMapping, MapFlags, Reason,
    Refusal, Region, Result, Unattached, Vdev,
};
use support::*;

const BASE: u64 = 0xf000_0000;
fn any() -> MapFlags {
    MapFlags::READ.any()
}

/// A guest whose memory is windows with known host addresses, and ROM, so that all three
/// calls can succeed without privilege.
///
/// | pages | |
/// |---|---|
/// | 0 to 7 | window |
/// | 8 to 15 | another window, elsewhere in the host |
/// | 16 to 19 | ROM |
/// | 20 to | nothing |
struct Matrix {
    guest: Guest,
    disk: Vdev,
    domain: Domain,
}

impl Matrix {
    fn new() -> Self {
        let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
        for (page, base) in [(0, BASE), (8, 2 * BASE)] {
            let region = Region::pass_through(GuestPhys(page * PAGE), &window(8 * PAGE, base));
            guest.space().add(region.unwrap()).unwrap();
        }
        guest.space().add_rom(Some(GuestPhys(16 * PAGE)), &ram(4 * PAGE)).unwrap();
        let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
        Self { guest, disk, domain }
    }

    fn allow(self, page: u64, pages: u64, access: Access) -> Self {
        self.domain.grant_identity(GuestPhys(page * PAGE), pages * PAGE, access).unwrap();
        self
    }

    /// The results of `map_host_contig`, `map` and `map_firmware`: a length or a reason.
    fn ask(&self, addr: u64, len: u64, flags: MapFlags) -> [core::result::Result<u64, Reason>; 3] {
        let len_of = |mapping: Result<gasp::Mapping>| match mapping {
            Ok(mapping) => Ok(mapping.len() as u64),
            Err(error) => Err(error.reason()),
        };
        [
            len_of(
                self.disk
                    .map_host_contig(DeviceAddr(addr), len, flags)
                    .map(HostMapping::into_mapping),
            ),
            len_of(self.disk.map(DeviceAddr(addr), len, flags)),
            len_of(self.guest.map_firmware(GuestPhys(addr), len, flags)),
        ]
    }
}

#[test]
fn success_returns_address_length_and_pointer() {
    let matrix = Matrix::new().allow(0, 8, Access::READ);
    assert_eq!(matrix.ask(PAGE, PAGE, any()), [Ok(PAGE); 3]);
    let mapping = matrix.disk.map_host_contig(DeviceAddr(PAGE + 4), 100, any()).unwrap();
    let run = mapping.host_run().unwrap();
    assert_eq!((run.addr.0, run.len, mapping.len()), (BASE + PAGE + 4, 100, 100));
    assert_eq!(mapping.device_addr(), DeviceAddr(PAGE + 4));
    assert_eq!(mapping.access(), Access::READ);
}

#[test]
fn a_range_that_the_iommu_does_not_make_available_is_efault_and_firmware_does_not_ask() {
    let matrix = Matrix::new();
    let refused = Err(Reason::Refused { addr: DeviceAddr(0), refusal: Refusal::NotGranted });
    assert_eq!(matrix.ask(0, PAGE, any()), [refused, refused, Ok(PAGE)]);
    assert_eq!(refused.unwrap_err().errno(), Errno::FAULT);
    assert_eq!(matrix.guest.take_faults().records.len(), 2);
    // Only the first part of it is available.
    let matrix = matrix.allow(0, 2, Access::READ);
    let at = DeviceAddr(2 * PAGE);
    let refused = Err(Reason::Refused { addr: at, refusal: Refusal::NotGranted });
    assert_eq!(matrix.ask(0, 3 * PAGE, any()), [refused, refused, Ok(3 * PAGE)]);
}

#[test]
fn an_access_type_that_the_iommu_does_not_permit_is_efault_and_firmware_does_not_ask() {
    let matrix = Matrix::new().allow(0, 8, Access::READ);
    let (allowed, requested) = (Access::READ, Access::RW);
    let refusal = Refusal::Access { allowed, requested };
    let refused = Err(Reason::Refused { addr: DeviceAddr(0), refusal });
    let rw = MapFlags::RW.any();
    assert_eq!(matrix.ask(0, PAGE, rw), [refused, refused, Ok(PAGE)]);
    assert_eq!(matrix.ask(0, PAGE, any()), [Ok(PAGE); 3], "a permitted type on the same range");
}

#[test]
fn each_device_has_a_result_of_its_own() {
    let matrix = Matrix::new().allow(0, 1, Access::READ);
    let (net, other) = device(&matrix.guest, "net", DomainKind::Identity);
    other.grant_identity(GuestPhys(PAGE), PAGE, Access::READ).unwrap();
    assert!(matrix.disk.map(DeviceAddr(0), 8, any()).is_ok());
    assert_eq!(errno(net.map(DeviceAddr(0), 8, any())), "EFAULT");
    assert_eq!(errno(matrix.disk.map(DeviceAddr(PAGE), 8, any())), "EFAULT");
    assert!(net.map(DeviceAddr(PAGE), 8, any()).is_ok());
}

#[test]
fn an_address_without_memory_is_enxio() {
    let matrix = Matrix::new().allow(0, 64, Access::RWX);
    let nothing = Err(Reason::NoMemory { addr: GuestPhys(20 * PAGE) });
    assert_eq!(matrix.ask(20 * PAGE, 8, any()), [nothing; 3]);
    assert_eq!(nothing.unwrap_err().errno(), Errno::NXIO);
    // So is one past the guest's address width, whatever was granted.
    let beyond = Err(Reason::BeyondWidth { bits: 48 });
    assert_eq!(matrix.ask(1 << 48, 8, any()), [beyond; 3]);
    assert_eq!(matrix.ask(u64::MAX, 1, any()), [beyond; 3]);
    assert_eq!(matrix.ask(u64::MAX, 2, any()), [Err(Reason::Wraps); 3]);
    assert_eq!(matrix.guest.take_faults().records, [], "structure is not policy");
}

#[test]
fn a_range_from_memory_to_beyond_the_address_width_is_enxio_for_every_call() {
    in_time(|| {
        let matrix = Matrix::new().allow(0, 64, Access::RWX);
        let beyond = Err(Reason::BeyondWidth { bits: 48 });
        assert_eq!(matrix.ask(0, (1 << 48) + 1, any()), [beyond; 3]);
        assert_eq!(matrix.ask(PAGE, u64::MAX - PAGE, any()), [beyond; 3]);
        assert_eq!(matrix.guest.take_faults().records, [], "a bad argument is no fault");
    });
}

#[test]
fn an_invalid_flag_combination_is_enxio_before_any_call_is_made() {
    for bits in [0, MapFlags::ANY_BIT, 8, 1 << 31, u32::MAX] {
        assert_eq!(MapFlags::from_bits(bits), Err(Reason::BadFlags(bits)));
    }
    assert_eq!(Reason::BadFlags(0).errno(), Errno::NXIO);
}

#[test]
fn memory_of_a_kind_that_the_flags_do_not_accept_is_enxio() {
    let matrix = Matrix::new().allow(0, 64, Access::RWX);
    assert_eq!(matrix.ask(0, 8, MapFlags::READ), [Err(Reason::NotRam { addr: GuestPhys(0) }); 3]);
    let rom = Err(Reason::NotRam { addr: GuestPhys(16 * PAGE) });
    assert_eq!(matrix.ask(16 * PAGE, 8, MapFlags::READ), [rom; 3]);
}

#[test]
fn a_range_that_is_not_consecutive_is_enxio_and_shortens_a_host_contiguous_map() {
    let matrix = Matrix::new().allow(0, 64, Access::RWX);
    let seam = Err(Reason::NotConsecutive { prefix: PAGE });
    assert_eq!(matrix.ask(7 * PAGE, 2 * PAGE, any()), [Ok(PAGE), seam, seam]);
    assert_eq!(seam.unwrap_err().errno(), Errno::NXIO);
    // Advancing by the returned lengths covers all of it.
    let mut addr = 0;
    while addr < 16 * PAGE {
        let rest = 16 * PAGE - addr;
        let mapping = matrix.disk.map_host_contig(DeviceAddr(addr), rest, any()).unwrap();
        addr += mapping.len() as u64;
    }
    assert_eq!(addr, 16 * PAGE);
}

#[test]
fn a_hole_inside_the_range_is_enxio_and_shortens_nothing() {
    let matrix = Matrix::new().allow(0, 64, Access::RWX);
    let hole = Err(Reason::NoMemory { addr: GuestPhys(20 * PAGE) });
    assert_eq!(matrix.ask(15 * PAGE, 6 * PAGE, any()), [hole; 3]);
}

#[test]
fn writing_to_memory_that_is_read_only_is_eacces() {
    let matrix = Matrix::new().allow(0, 64, Access::RWX);
    let (offered, requested) = (Access::READ | Access::EXEC, Access::WRITE);
    let forbidden = Err(Reason::Forbidden { addr: GuestPhys(16 * PAGE), offered, requested });
    assert_eq!(matrix.ask(16 * PAGE, 8, MapFlags::WRITE.any()), [forbidden; 3]);
    assert_eq!(forbidden.unwrap_err().errno(), Errno::ACCESS);
}

#[test]
fn a_length_of_zero_is_einval() {
    let matrix = Matrix::new();
    assert_eq!(matrix.ask(0, 0, any()), [Err(Reason::ZeroLength); 3]);
    assert_eq!(Reason::ZeroLength.errno(), Errno::INVAL);
}

#[test]
fn host_addresses_that_are_not_known_are_eperm_for_the_call_that_needs_them() {
    let matrix = Matrix::new().allow(0, 64, Access::RWX);
    let [host_contig, map, firmware] = matrix.ask(16 * PAGE, 8, any());
    assert_eq!(host_contig.unwrap_err().errno(), Errno::PERM);
    assert_eq!((map, firmware), (Ok(8), Ok(8)));
}

#[test]
fn an_error_of_mmap_is_returned() {
    // 16 TiB that are never touched, nine times side by side: more than the address space has.
    const SIZE: u64 = 16 << 40;
    let guest = Guest::builder().build().unwrap();
    let huge = gasp::MemoryObject::adopt(memfd(SIZE), whole(SIZE)).unwrap();
    for index in 0..9 {
        guest.space().add_ram(Some(GuestPhys(index * SIZE)), &huge).unwrap();
    }
    let disk = guest.vdev("disk").unwrap();
    let error = error(disk.map_stitched(DeviceAddr(0), 9 * SIZE, MapFlags::READ));
    assert_eq!(error.reason(), Reason::Os { what: "mmap", errno: Errno::NOMEM });
    assert_eq!((error.errno_name(), error.device()), ("ENOMEM", Some("disk")));
    assert!(disk.map(DeviceAddr(0), SIZE, MapFlags::READ).is_ok(), "plain maps call no mmap");
}

#[test]
fn every_error_names_its_operation_device_address_and_length() {
    let matrix = Matrix::new();
    let calls = [
        (matrix.disk.map(DeviceAddr(0x4321), 0x99, any()).map(drop), "map"),
        (matrix.disk.map_host_contig(DeviceAddr(0x4321), 0x99, any()).map(drop), "host-contiguous"),
        (matrix.disk.map_scatter(DeviceAddr(0x4321), 0x99, any()).map(drop), "scatter"),
        (matrix.disk.map_stitched(DeviceAddr(0x4321), 0x99, any()).map(drop), "stitched"),
        (matrix.disk.read(DeviceAddr(0x4321), &mut [0; 0x99]), "read of"),
        (matrix.disk.write(DeviceAddr(0x4321), &[0; 0x99]), "write of"),
    ];
    for (result, name) in calls {
        let text = error(result).to_string();
        for part in [name, "`disk`", "0x4321", "153 bytes", "EFAULT"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }
}
