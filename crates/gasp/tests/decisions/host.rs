//! Decisions 19 to 21: host-physical addresses, and memory that is not consecutive.

use gasp::{
    DeviceAddr, Guest, GuestPhys, HostExtent, HostPhys, HostRun, MapFlags, Reason, Region,
    Stability, Vdev,
};

use crate::RW;
use crate::support::*;

#[test]
fn decision_19_without_host_addresses_map_host_contig_is_eperm_and_map_works() {
    let (guest, ram) = plain_guest(PAGE);
    let disk = guest.vdev("disk").unwrap();
    let refused = error(disk.map_host_contig(DeviceAddr(0), 8, RW));
    assert_eq!(refused.errno_name(), "EPERM");
    assert!(matches!(refused.reason(), Reason::HostUnknown(why) if !why.is_empty()));
    let mapping = disk.map(DeviceAddr(0), 8, RW).unwrap();
    assert_eq!(errno(mapping.host_run()), "EPERM", "never an address of 0");
    let unknown = HostExtent { offset: 0, len: 8, addr: None };
    assert_eq!(mapping.host_extents().collect::<Vec<_>>(), [unknown]);
    assert_eq!(errno(ram.host_run(0, 8)), "EPERM");
}

#[test]
fn decision_20_addresses_that_can_move_are_refused_unless_configured() {
    for allowed in [false, true] {
        let guest = Guest::builder().allow_unpinned(allowed).build().unwrap();
        let ram = resident(2 * HUGE);
        guest.space().add_ram(None, &ram).unwrap();
        let disk = guest.vdev("disk").unwrap();
        let mapping = disk.map(DeviceAddr(0), 8, RW).unwrap();
        assert_eq!(mapping.stability(), Stability::Unpinned);
        let known = mapping.host_run().is_ok();
        let expected = match (known, allowed) {
            (false, _) => Some("EPERM"),
            (true, false) => Some("EAGAIN"),
            (true, true) => None,
        };
        // In one page of the table, and across two of them.
        for (start, len) in [(8, 16), (HUGE - 8, 16)] {
            let addr = DeviceAddr(start);
            for mapped in [
                disk.map_host_contig(addr, len, RW),
                disk.map_host_contig_truncated(addr, len, RW),
                Vdev::map_host_contig_page_of(|| Some(&disk), addr, len, RW)
                    .map_or_else(|| disk.map_host_contig(addr, len, RW), Ok),
            ] {
                match mapped {
                    Ok(mapped) => {
                        assert_eq!(expected, None);
                        assert_eq!(mapped.run(), mapped.host_run().unwrap());
                        assert_eq!(mapped.run().len, mapped.len() as u64);
                    }
                    Err(error) => assert_eq!(Some(error.errno_name()), expected, "{error}"),
                }
            }
        }
    }
}

#[test]
fn decision_20_a_window_is_pinned_by_its_nature() {
    let guest = Guest::builder().build().unwrap();
    guest.space().add(Region::pass_through(GuestPhys(0), &window(PAGE, PAGE)).unwrap()).unwrap();
    let disk = guest.vdev("disk").unwrap();
    let mapping = disk.map_host_contig(DeviceAddr(0), 8, MapFlags::READ.any()).unwrap();
    assert_eq!(mapping.stability(), Stability::Pinned);
    assert_eq!(mapping.run(), HostRun { addr: HostPhys(PAGE), len: 8 });
}

#[test]
fn decision_21_scattered_memory_is_enxio_with_the_prefix_and_scatter_and_stitched_map_it() {
    let (guest, first) = plain_guest(2 * PAGE);
    let second = ram(2 * PAGE);
    guest.space().add_ram(None, &second).unwrap();
    let disk = guest.vdev("disk").unwrap();
    let (addr, len) = (DeviceAddr(PAGE + 8), 2 * PAGE);
    let refused = error(disk.map(addr, len, RW));
    assert_eq!(refused.errno_name(), "ENXIO");
    assert_eq!(refused.reason(), Reason::NotConsecutive { prefix: PAGE - 8 });
    let scatter = disk.map_scatter(addr, len, RW).unwrap();
    let pieces: Vec<_> = scatter.pieces().map(|p| (p.device_addr().0, p.len())).collect();
    assert_eq!(pieces, [(PAGE + 8, PAGE as usize - 8), (2 * PAGE, PAGE as usize + 8)]);
    let stitched = disk.map_stitched(addr, len, RW).unwrap();
    assert_eq!(stitched.as_ptr().addr() as u64 % PAGE, 8);
    // What is written piece by piece is read back through the consecutive pointer.
    let text: Vec<u8> = (0..2 * PAGE).map(|i| (i % 253) as u8).collect();
    scatter.write_at(0, &text).unwrap();
    let mut parts = (vec![0; PAGE as usize - 8], vec![0; PAGE as usize + 8]);
    first.read_at(PAGE + 8, &mut parts.0).unwrap();
    second.read_at(0, &mut parts.1).unwrap();
    assert_eq!([parts.0, parts.1].concat(), text);
    assert_eq!(bytes_at(&stitched), text);
}

#[test]
fn decision_21_a_scattered_map_is_accessible_within_its_length_and_access() {
    let (guest, _first) = plain_guest(2 * PAGE);
    guest.space().add_ram(None, &ram(2 * PAGE)).unwrap();
    let disk = guest.vdev("disk").unwrap();
    let (addr, len) = (DeviceAddr(PAGE + 8), 2 * PAGE as usize);
    let text: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
    disk.write(addr, &text).unwrap();
    let mut bytes = vec![0; len];
    disk.read(addr, &mut bytes).unwrap();
    assert_eq!(bytes, text, "copies go across pieces");

    let reader = disk.map_scatter(addr, len as u64, MapFlags::READ).unwrap();
    for offset in [0, 1, PAGE as usize - 9, PAGE as usize - 8, PAGE as usize - 7, len - 2] {
        let mut two = [0; 2];
        reader.read_at(offset, &mut two).unwrap();
        assert_eq!(two, text[offset..offset + 2], "{offset}");
    }
    assert_eq!(errno(reader.read_at(len - 1, &mut [0; 2])), "EINVAL");
    assert_eq!(errno(reader.read_at(usize::MAX, &mut [0; 2])), "EINVAL");
    assert_eq!(errno(reader.write_at(0, b"x")), "EACCES");
    let refused = error(reader.pieces().nth(1).unwrap().as_mut_ptr());
    assert_eq!(refused.errno_name(), "EACCES");
    assert!(refused.to_string().contains("at device address 0x2000:"), "{refused}");
    let stitched = disk.map_stitched(addr, len as u64, MapFlags::READ).unwrap();
    assert_eq!(errno(stitched.as_mut_ptr()), "EACCES");
    let writer = disk.map_scatter(addr, len as u64, MapFlags::WRITE).unwrap();
    assert_eq!(errno(writer.write_at(len, b"x")), "EINVAL");
    assert_eq!(errno(writer.read_at(0, &mut [0])), "EACCES");
}

#[test]
fn decision_21_mappings_and_pieces_have_the_host_addresses_of_their_own_bytes() {
    let guest = Guest::builder().build().unwrap();
    for (page, base) in [(0, 0xf000_0000), (2, 0xfa00_0000)] {
        let region = Region::pass_through(GuestPhys(page * PAGE), &window(2 * PAGE, base));
        guest.space().add(region.unwrap()).unwrap();
    }
    let disk = guest.vdev("disk").unwrap();
    let run = |len, addr| [HostExtent { offset: 0, len, addr: Some(HostPhys(addr)) }];
    let (addr, flags) = (DeviceAddr(PAGE + 8), MapFlags::READ.any());
    let mapping = disk.map(addr, 16, flags).unwrap();
    assert_eq!(mapping.host_extents().collect::<Vec<_>>(), run(16, 0xf000_1008));
    let scatter = disk.map_scatter(addr, 2 * PAGE, flags).unwrap();
    let pieces: Vec<Vec<_>> =
        scatter.pieces().map(|piece| piece.host_extents().collect()).collect();
    assert_eq!(pieces, [run(PAGE - 8, 0xf000_1008), run(PAGE + 8, 0xfa00_0000)]);
}

/// All bytes of a stitched map, by its pointer.
#[allow(unsafe_code, reason = "the pointer is what is tested")]
fn bytes_at(stitched: &gasp::Stitched) -> Vec<u8> {
    let byte = |at| {
        // SAFETY: `at` is less than `stitched.len()`, and the bytes from `as_ptr` on are one
        // mapping of that length while `stitched` is borrowed; an offset in it fits `isize`.
        let pointer = unsafe { stitched.as_ptr().add(at) };
        // SAFETY: `pointer` is inside that mapping, so it is valid for reads; any bits are a `u8`;
        // and no thread writes to the memory meanwhile.
        unsafe { pointer.read_volatile() }
    };
    (0..stitched.len()).map(byte).collect()
}
