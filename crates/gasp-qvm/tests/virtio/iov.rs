//! Conversions of requests to arrays of `iov_t`.

use gasp::Access as Allowed;
use gasp_qvm::vio::exports::vio_setup_queues;
use gasp_qvm::vio::requests::{
    vio_append_iov, vio_append_iov_cap_710, vio_get_iov_710, vio_iov_set_flags, vio_prepare_iov,
    vio_put_iov_710,
};

use crate::driver::{DATA, Driver, WRITE, rings};
use crate::vdev::{Converted, InC, PLAIN, PLAIN_710};

/// The end of the first of two memory objects.
const SEAM: u64 = 0x28_0000;

fn started() -> (Driver, InC) {
    let driver = Driver::mmio(&PLAIN);
    driver.start(1 << 28);
    let vdev = driver.in_c();
    // SAFETY: the device lives.
    assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
    (driver, vdev)
}

#[test]
fn a_request_is_mapped_and_unmapped_without_a_copy() {
    let (mut driver, vdev) = started();
    driver.poke(DATA, b"a request");
    driver.chain(0, 0, &[(DATA, 9, 0), (DATA + 64, 0, 0), (DATA + 0x1ffc, 8, WRITE)]);
    let (_, first) = vdev.take(0);
    let mut request = Converted::new(4);
    assert_eq!(vdev.get_iov(0, first, &mut request), 17);
    assert_eq!((request.lens(), request.structure.iov.payload), (vec![9, 8], 0));
    assert_eq!(request.bytes(0), b"a request");
    request.bytes(1).copy_from_slice(b"response");
    assert_eq!(&driver.peek::<8>(DATA + 0x1ffc), b"response");
    assert_eq!(driver.vdev.held(), 2);
    // The vdev has moved on in its array.
    request.iov[1].iov_base = std::ptr::null_mut();
    vdev.put_iov(&mut request);
    assert_eq!((driver.vdev.held(), request.count()), (0, 0));
    vdev.put_iov(&mut request);
    assert_eq!(vdev.get_iov(0, first, &mut request), 17, "the request is still in progress");
    vdev.put_iov(&mut request);
    assert_eq!(driver.vdev.held(), 0);
}

#[test]
fn the_payload_begins_with_an_entry_of_its_own() {
    let (mut driver, vdev) = started();
    driver.chain(0, 0, &[(DATA, 10, 0), (DATA + 64, 20, 0), (DATA + 128, 1, WRITE)]);
    let (_, first) = vdev.take(0);
    let expected: [(u32, &[usize], i32); 7] = [
        (0, &[10, 20, 1], 0),
        (4, &[4, 6, 20, 1], 1),
        (10, &[10, 20, 1], 1),
        (16, &[10, 6, 14, 1], 2),
        (30, &[10, 20, 1], 2),
        (31, &[10, 20, 1], 3),
        (99, &[10, 20, 1], 3),
    ];
    for (header, lens, payload) in expected {
        let mut request = Converted::new(8);
        request.structure.iov.hdr_len = header;
        assert_eq!(vdev.get_iov(0, first, &mut request), 31);
        assert_eq!(request.lens(), lens, "a header of {header}");
        assert_eq!(request.structure.iov.payload, payload, "a header of {header}");
        let at = request.iov[0].iov_base.addr();
        if header == 4 {
            assert_eq!(request.iov[1].iov_base.addr(), at + 4);
            assert_eq!(request.mappings[1].reserved, [0; 3], "one mapping has both");
        }
        vdev.put_iov(&mut request);
        assert_eq!(driver.vdev.held(), 0, "a header of {header}");
    }
}

#[test]
fn the_vdevs_own_entries_stay_and_no_others_are_used() {
    let (mut driver, vdev) = started();
    driver.chain(0, 0, &[(DATA, 1, 0), (DATA + 64, 2, 0), (DATA + 128, 3, WRITE)]);
    let (_, first) = vdev.take(0);
    let mut request = Converted::new(6);
    request.iov.iter_mut().for_each(|entry| entry.iov_len = 77);
    request.structure.iov.reserved = 2;
    request.structure.iov.len = 5;
    assert_eq!(vdev.get_iov(0, first, &mut request), 6);
    assert_eq!((request.lens(), request.iov[5].iov_len), (vec![77, 77, 1, 2, 3], 77));
    assert_eq!(request.mappings[1].reserved, [7; 3]);
    vdev.put_iov(&mut request);
    assert_eq!(request.count(), 2);
    request.structure.iov.len = 4;
    assert_eq!(vdev.get_iov(0, first, &mut request), -libc::E2BIG as isize);
    assert_eq!((request.count(), request.iov[4].iov_len, driver.vdev.held()), (2, 3, 0));
}

#[test]
fn entries_end_where_memory_does() {
    let (mut driver, vdev) = started();
    driver.chain(0, 0, &[(SEAM - 0x800, 0x1800, WRITE)]);
    let (_, first) = vdev.take(0);
    let mut request = Converted::new(2);
    assert_eq!(vdev.get_iov(0, first, &mut request), 0x1800);
    assert_eq!(request.lens(), [0x800, 0x1000]);
    request.bytes(1)[0] = 0x55;
    assert_eq!(driver.peek::<1>(SEAM), [0x55]);
    assert_eq!(driver.vdev.held(), 2);
    vdev.put_iov(&mut request);
    assert_eq!(driver.vdev.held(), 0);
}

#[test]
fn host_physical_addresses_are_those_of_the_engine() {
    let (mut driver, vdev) = started();
    driver.chain(0, 0, &[(DATA + 0x10, 0x1_0000, WRITE), (SEAM - 0x10, 0x20, WRITE)]);
    let (_, first) = vdev.take(0);
    let mut request = Converted::new(40);
    request.structure();
    // SAFETY: the structure is valid.
    assert_eq!(unsafe { vio_iov_set_flags(&raw mut request.structure.iov, 1) }, 0);
    let got = vdev.get_iov(0, first, &mut request);
    if got == -(libc::EPERM as isize) {
        eprintln!("skipped: this process may not read host-physical addresses");
        return;
    }
    assert_eq!(got, 0x1_0020);
    let mut expected = Vec::new();
    for (mut at, len) in [(DATA + 0x10, 0x1_0000), (SEAM - 0x10, 0x20)] {
        let end = at + len;
        while at < end {
            let flags = gasp::MapFlags::WRITE;
            let mapped =
                driver.vdev.map_host_contig(gasp::DeviceAddr(at), end - at, flags).unwrap();
            expected.push((mapped.run().addr.0, mapped.run().len));
            at += mapped.run().len;
        }
    }
    let used = ..request.count() as usize;
    let found: Vec<_> = request.paddrs[used].iter().map(|run| (run.base, run.len)).collect();
    assert_eq!(found, expected);
    assert!(expected.len() >= 3, "the seam is one of the ends");
    let lens = request.paddrs[used].iter().map(|run| run.len as usize);
    assert_eq!(request.lens(), lens.collect::<Vec<_>>());
    vdev.put_iov(&mut request);
    assert_eq!(driver.vdev.held(), 0);
    // With a header, both halves have an address.
    request.structure.iov.hdr_len = 8;
    assert_eq!(vdev.get_iov(0, first, &mut request), 0x1_0020);
    let [header, rest, ..] = *request.paddrs else { panic!("two entries") };
    assert_eq!((header.len, rest.base), (8, header.base + 8));
    vdev.put_iov(&mut request);
}

#[test]
fn an_entry_that_is_taken_out_stays_mapped() {
    let (mut driver, vdev) = started();
    driver.chain(0, 0, &[(DATA, 8, 0), (DATA + 64, 8, 0)]);
    let (_, first) = vdev.take(0);
    let mut request = Converted::new(2);
    assert_eq!(vdev.get_iov(0, first, &mut request), 16);
    let mut kept = core::mem::take(&mut request.mappings[0]);
    vdev.put_iov(&mut request);
    assert_eq!(driver.vdev.held(), 1);
    // SAFETY: the handle is valid for reads.
    unsafe { gasp_capi::map::gasp_unmap_handle(&raw mut kept) };
    assert_eq!(driver.vdev.held(), 0);
}

#[test]
fn descriptors_are_appended_one_by_one() {
    let (mut driver, vdev) = started();
    driver.chain(0, 0, &[(DATA, 0x10, 0), (DATA + 64, 0x20, 0), (DATA + 128, 0x30, WRITE)]);
    let (_, first) = vdev.take(0);
    let mut request = Converted::new(4);
    request.structure.iov.hdr_len = 0x18;
    let place = request.structure();
    // SAFETY: the structure's arrays are as long as it says.
    let append =
        |number, cap| unsafe { vio_append_iov(vdev.vdp, vdev.queue(0), number, place, cap) };
    // SAFETY: the structure is valid; that of 8.0 begins with that of 7.x.
    assert_eq!(unsafe { vio_prepare_iov(vdev.vdp, place.cast()) }, 0);
    assert_eq!(append(first, usize::MAX), 0x10);
    let second = vdev.descriptor(0, first).next;
    assert_eq!(append(second, 0x1c), 0x1c);
    let third = vdev.descriptor(0, second).next;
    assert_eq!(append(third, 0), 0, "nothing is mapped");
    assert_eq!(append(third, 0x30), 0x30);
    assert_eq!(append(third, 1), -libc::E2BIG as isize);
    assert_eq!((request.lens(), request.structure.iov.payload), (vec![0x10, 8, 0x14, 0x30], 2));
    vdev.put_iov(&mut request);
    assert_eq!(driver.vdev.held(), 0);
}

#[test]
fn what_is_wrong_with_a_call_is_einval() {
    let (mut driver, vdev) = started();
    driver.chain(0, 0, &[(DATA, 8, 0)]);
    let (_, first) = vdev.take(0);
    let invalid = -libc::EINVAL as isize;
    let mut request = Converted::new(2);
    assert_eq!(vdev.get_iov(0, first + 1, &mut request), invalid, "no such descriptor");
    assert_eq!(vdev.get_iov(0, !0, &mut request), invalid);
    assert_eq!(vdev.get_iov(1, first, &mut request), invalid, "another queue");
    let place = request.structure();
    // SAFETY: the structure's arrays are as long as it says; any vdev and queue will do.
    let get =
        |vdp, vq, place| unsafe { gasp_qvm::vio::requests::vio_get_iov(vdp, vq, first, place) };
    let (vdp, vq, null) = (vdev.vdp, vdev.queue(0), std::ptr::null_mut::<std::ffi::c_void>());
    assert_eq!(get(null.cast(), vq, place), invalid);
    assert_eq!(get(vdev.vsp.cast(), vq, place), invalid);
    assert_eq!(get(vdp, null, place), invalid);
    assert_eq!(get(vdp, vq, null.cast()), invalid);
    let other = Driver::mmio(&PLAIN);
    assert_eq!(get(other.in_c().vdp, vq, place), invalid, "another vdev's queue");
    for change in 0..5 {
        let mut request = Converted::new(2);
        let place = request.structure();
        match change {
            0 => request.structure.iov.iov = std::ptr::null_mut(),
            1 => request.structure.iov.reserved = 3,
            2 => request.structure.iov.reserved = -1,
            3 => (request.structure.iov.flags, request.structure.iov.paddrs) = (1, null.cast()),
            _ => request.structure.iov.flags = 2,
        }
        assert_eq!(get(vdp, vq, place), invalid, "{change}");
    }
    assert_eq!(driver.vdev.held(), 0);
    let mut request = Converted::new(2);
    assert_eq!(vdev.get_iov(0, first, &mut request), 8);
    vdev.put_iov(&mut request);
}

#[test]
fn a_buffer_that_the_iommu_refuses_fails_its_request_alone() {
    let mut driver = Driver::new(&PLAIN, "loc 0xfa000000 intr ioapic:5", true);
    driver.grant(rings(0)[0], 0x3000, Allowed::RW);
    driver.grant(rings(1)[0], 0x3000, Allowed::RW);
    driver.grant(DATA, 0x1000, Allowed::READ);
    driver.grant(DATA + 0x1000, 0x1000, Allowed::WRITE);
    driver.start(0);
    let vdev = driver.in_c();
    // SAFETY: the device lives.
    assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
    driver.chain(0, 0, &[(DATA, 8, 0), (DATA + 0x1000, 8, WRITE)]);
    driver.chain(0, 2, &[(DATA, 8, 0), (DATA + 0x800, 8, WRITE)]);
    driver.chain(0, 4, &[(DATA, 8, 0), (0xffff_ffff_ffff_fff8, 16, WRITE)]);
    let mut request = Converted::new(4);
    let get = |request: &mut Converted| vdev.get_iov(0, vdev.take(0).1, request);
    assert_eq!(get(&mut request), 16);
    vdev.put_iov(&mut request);
    assert_eq!((get(&mut request), request.count()), (-libc::EFAULT as isize, 0));
    assert_eq!(get(&mut request), -libc::ENXIO as isize, "it wraps");
    assert_eq!((driver.vdev.held(), driver.status()), (0, 15));
    assert_eq!(driver.guest.take_faults().records[0].addr.0, DATA + 0x800);
}

#[test]
fn the_library_keeps_the_mappings_of_7x() {
    let mut driver = Driver::mmio(&PLAIN_710);
    driver.start(0);
    let vdev = driver.in_c();
    // SAFETY: the device lives.
    assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
    driver.chain(0, 0, &[(DATA, 8, 0), (SEAM - 4, 8, WRITE)]);
    let (_, first) = vdev.take(0);
    let (mut one, mut other) = (Converted::new(4), Converted::new(4));
    let (one_place, other_place) = (one.structure().cast(), other.structure().cast());
    let queue = vdev.queue(0);
    // SAFETY: the structures' arrays are as long as they say.
    let get = |place| unsafe { vio_get_iov_710(vdev.vdp, queue, first, place) };
    // SAFETY: as above.
    let put = |place| unsafe { vio_put_iov_710(vdev.vdp, place) };
    assert_eq!((get(one_place), get(other_place)), (16, 16));
    assert_eq!((one.lens(), driver.vdev.held()), (vec![8, 4, 4], 6));
    assert_eq!(one.mappings[0].reserved, [7; 3], "there is no such array");
    put(one_place);
    assert_eq!(driver.vdev.held(), 3);
    put(one_place);
    assert_eq!(driver.vdev.held(), 3, "those of the other structure");
    // SAFETY: as above.
    let appended = unsafe { vio_append_iov_cap_710(vdev.vdp, queue, first, other_place, 4) };
    assert_eq!((appended, other.lens()), (4, vec![8, 4, 4, 4]));
    // A vdev that ends without putting back what it has mapped.
    assert_eq!(driver.vdev.held(), 4);
    let engine = driver.vdev.clone();
    assert!(driver.device.terminate().is_empty());
    assert_eq!(engine.held(), 0);
}
