//! The largest numbers of everything that a guest has, exactly; and arguments at the edge of
//! what is allowed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use gasp::{
    Access, Adopt, DeviceAddr, DomainKind, DomainOptions, Guest, GuestPhys, MemoryObject, Reason,
    Region, Result,
};
use rustix::fs::OFlags;
use support::*;

/// Asserts that `make` succeeds from `have` to `limit`, then fails with this limit, and succeeds
/// once more after `free` has made room for one.
fn has_limit(
    (have, limit): (u64, u64),
    mut make: impl FnMut(u64) -> Result<()>,
    free: impl FnOnce(),
) {
    for index in have..limit {
        make(index).unwrap_or_else(|error| panic!("{index}: {error}"));
    }
    let refused = make(limit).unwrap_err();
    assert!(matches!(refused.reason(), Reason::Limit { limit: reported, .. } if reported == limit));
    assert_eq!(refused.errno_name(), "ENOSPC", "{refused}");
    assert!(refused.to_string().contains(&limit.to_string()), "{refused}");
    free();
    make(limit).unwrap();
    make(limit + 1).unwrap_err();
}

#[test]
fn a_guest_has_4096_domains() {
    let (guest, _ram) = iommu_guest(PAGE);
    let mut domains = Vec::new();
    let make = |index: u64| {
        let options = DomainOptions::new(DomainKind::Deny);
        guest.domain(&format!("domain {index}"), options).map(drop)
    };
    has_limit((0, 4096), make, || {
        domains = guest.domains();
        domains.pop().unwrap().remove().unwrap();
    });
    assert_eq!(guest.domains().len(), 4096);
}

#[test]
fn a_guest_has_65536_devices() {
    let guest = Guest::builder().build().unwrap();
    let make = |index: u64| guest.vdev(&format!("device {index}")).map(drop);
    has_limit((0, 65_536), make, || {
        guest.vdevs().pop().unwrap().remove().wait();
    });
}

/// A reserved region of one page, with a gap before the next.
fn reserved(index: u64) -> Region {
    Region::reserved(span(index * 2 * PAGE, PAGE))
}

#[test]
fn a_guest_has_65536_regions() {
    let guest = Guest::builder().build().unwrap();
    let space = guest.space();
    has_limit(
        (0, 65_536),
        |index| space.add(reserved(index)),
        || {
            space.remove(span(0, PAGE)).unwrap().wait();
        },
    );
}

#[test]
fn a_cut_past_65536_regions_is_refused_and_nothing_has_changed() {
    let guest = Guest::builder().build().unwrap();
    let space = guest.space();
    let ram = ram(4 * PAGE);
    // Above all other regions.
    let start = 65_536 * 2 * PAGE;
    space.add_ram(Some(GuestPhys(start)), &ram).unwrap();
    let last_but_one = 65_536 - 1;
    for index in 1..last_but_one {
        space.add(reserved(index)).unwrap();
    }
    // There is room for one more region, and a cut in the middle would need two.
    let middle = span(start + PAGE, PAGE);
    let refused = space.set_access(middle, Access::READ).map(drop).unwrap_err();
    assert!(matches!(refused.reason(), Reason::Limit { limit: 65_536, .. }), "{refused}");
    let refused = space.remove(middle).map(drop).unwrap_err();
    assert!(matches!(refused.reason(), Reason::Limit { limit: 65_536, .. }), "{refused}");
    let disk = guest.vdev("disk").unwrap();
    disk.write(DeviceAddr(start + PAGE), &[1]).unwrap();
    space.set_access(span(start, PAGE), Access::READ).unwrap().wait();
    let refused = space.remove(span(start + 3 * PAGE, PAGE)).map(drop).unwrap_err();
    assert!(matches!(refused.reason(), Reason::Limit { limit: 65_536, .. }), "{refused}");
}

#[test]
fn a_guest_has_1024_placed_memory_objects() {
    let guest = Guest::builder().build().unwrap();
    let objects: Vec<_> =
        (0..1026).map(|_| MemoryObject::adopt(memfd(PAGE), whole(PAGE)).unwrap()).collect();
    let make = |index: u64| {
        let start = GuestPhys(index * PAGE);
        guest.space().add_ram(Some(start), &objects[index as usize]).map(drop)
    };
    has_limit((0, 1024), make, || {
        guest.space().remove(span(7 * PAGE, PAGE)).unwrap().wait();
    });
}

#[test]
fn both_sides_of_a_grant_end_at_the_width_of_addresses() {
    let guest = Guest::builder().address_width(40).iommu(gasp::Unattached::Deny).build().unwrap();
    let (_, domain) = device(&guest, "disk", DomainKind::Translate);
    let end = 1_u64 << 40;
    let map = |device, from| domain.grant(DeviceAddr(device), GuestPhys(from), PAGE, Access::RW);
    map(end - PAGE, end - PAGE).unwrap();
    map(0, end - PAGE).unwrap();
    for (device, from) in [(PAGE, end), (end, PAGE), (PAGE, end - PAGE / 2), (PAGE, u64::MAX)] {
        let refused = map(device, from).unwrap_err();
        assert!(matches!(refused.errno_name(), "ENXIO" | "EINVAL"), "{device:#x}: {refused}");
    }
    assert_eq!(map(PAGE, end).unwrap_err().reason(), Reason::BeyondWidth { bits: 40 });
    assert_eq!(map(end, PAGE).unwrap_err().reason(), Reason::BeyondWidth { bits: 40 });
    assert_eq!(domain.grants().len(), 2);
}

#[test]
fn whole_pages_of_a_file_that_can_be_read_are_adopted() {
    let size = 8 * PAGE;
    let adopt = |offset, len| {
        let how = Adopt { offset, ..whole(len) };
        MemoryObject::adopt(memfd(size), how).map(|object| object.len())
    };
    assert_eq!(adopt(0, size).unwrap(), size);
    assert_eq!(adopt(size - PAGE, PAGE).unwrap(), PAGE);
    for (offset, len) in [(0, 0), (PAGE, 0), (1, PAGE), (PAGE, PAGE + 1), (PAGE / 2, PAGE)] {
        let error = adopt(offset, len).unwrap_err();
        assert_eq!(error.errno_name(), "EINVAL", "{len} bytes at {offset}");
        let ours = error.to_string();
        assert!(len == 0 || ours.contains("whole pages"), "{len} bytes at {offset}: {ours}");
    }
    for (offset, len) in [(PAGE, size), (size, PAGE), (u64::MAX - PAGE + 1, PAGE), (PAGE, !0)] {
        let error = adopt(offset, len).unwrap_err();
        let too_small =
            matches!(error.reason(), Reason::FileTooSmall { size: there } if there == size);
        assert!(too_small, "{len} bytes at {offset}: {error}");
    }
    let file = memfd(size);
    let written = reopened(&file, OFlags::WRONLY);
    let error = MemoryObject::adopt(written, whole(size)).unwrap_err();
    assert_eq!(error.errno_name(), "EINVAL");
    assert!(error.to_string().contains("write-only"), "{error}");
    let read = reopened(&file, OFlags::RDONLY);
    let error = MemoryObject::adopt(read, whole(size)).unwrap_err();
    assert_eq!(error.errno_name(), "EACCES", "{error}");
    assert!(error.to_string().contains("opened read-only"), "{error}");
}
