//! Devices behind the unit: what they reach.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;

use gasp::DeviceAddr;
use support::*;

#[test]
fn devices_in_front_of_a_disabled_unit_reach_all_memory() {
    let machine = Machine::new();
    let fetch = gasp::MapFlags::new(gasp::Access::EXEC).unwrap();
    for flags in [READ, WRITE, RW, fetch] {
        assert_eq!(machine.reached(&machine.disk, 0x12_3000, flags).unwrap(), 0x12_3000);
    }
    let error = machine.reached(&machine.disk, RAM, READ).unwrap_err();
    assert_eq!(error.errno_name(), "ENXIO", "where there is memory");
    assert_eq!(machine.get32(FSTS), 0);
}

#[test]
fn a_device_reaches_what_its_tables_say_and_a_map_needs_no_register() {
    let (machine, tables) = Machine::started();
    machine.assert_refused(&machine.disk, 0x5000, READ);
    machine.map(tables, 0x5000, 0x20_0000, R);
    assert_eq!(machine.reached(&machine.disk, 0x5010, READ).unwrap(), 0x20_0010);
    machine.assert_refused(&machine.disk, 0x5000, WRITE);
    // More access needs no invalidation either.
    machine.map(tables, 0x5000, 0x20_0000, R | W);
    assert_eq!(machine.reached(&machine.disk, 0x5010, RW).unwrap(), 0x20_0010);
}

#[test]
fn tables_have_three_or_four_levels_and_five_in_wide_guests() {
    for width in [39, 48, 52] {
        let machine = Machine::with(Default::default(), width);
        machine.start();
        let has = |levels: u64| machine.get64(CAP) >> (8 + levels - 2) & 1 != 0;
        for levels in 3..=5 {
            assert_eq!(has(levels), levels < 5 || width > 48, "{levels} levels of {width} bits");
            let tables = machine.tables(levels, 1);
            machine.map(tables, 0x1f_f000, 0x20_0000, R);
            machine.set_context(DISK, tables);
            let reached = machine.reached(&machine.disk, 0x1f_f000, READ);
            assert_eq!(reached.is_ok(), has(levels), "{levels} levels of {width} bits");
            machine.submit(&[context_all(), iotlb_all()]);
        }
        assert_eq!(machine.get64(CAP) >> 8 & 0x11, 0, "no widths of 30 and 66 bits");
    }
}

#[test]
fn large_pages_are_one_entry_and_any_part_of_their_range_takes_them_out() {
    let (machine, tables) = Machine::started();
    machine.write(machine.entry(tables, 0x20_0000, 2), 0x40_0000 | 0x80 | R);
    machine.write(machine.entry(tables, 1 << 30, 3), 0x80 | R | W);
    for page in 0..512 {
        let addr = 0x20_0000 + page * 4096;
        assert_eq!(machine.reached(&machine.disk, addr, READ).unwrap(), addr + 0x20_0000);
    }
    let domain = machine.disk.domain().unwrap();
    assert_eq!(domain.entries(), 1);
    // A gigabyte of which the first megabytes are RAM.
    let addr = (1 << 30) + 0x12_3000;
    assert_eq!(machine.reached(&machine.disk, addr, RW).unwrap(), 0x12_3000);
    machine.write(machine.entry(tables, 0x20_0000, 2), 0x60_0000 | 0x80 | R);
    machine.write(machine.entry(tables, 1 << 30, 3), 0);
    machine.submit(&[iotlb_pages(1, 0x20_0000, 9)]);
    assert_eq!(machine.reached(&machine.disk, 0x20_5000, READ).unwrap(), 0x60_5000);
    assert!(machine.reached(&machine.disk, addr, RW).is_ok(), "not invalidated yet");
    machine.submit(&[iotlb_pages(1, 1 << 30, 18)]);
    machine.assert_refused(&machine.disk, addr, RW);
}

#[test]
fn pass_through_reaches_all_memory_until_its_context_is_invalidated() {
    let (machine, _) = Machine::started();
    let at = machine.context(NET);
    machine.write(at + 8, 7 << 8 | 2);
    machine.write(at, 2 << 2 | 1);
    assert_eq!(machine.reached(&machine.net, 0x12_3000, RW).unwrap(), 0x12_3000);
    machine.write(at, 0);
    assert!(machine.reached(&machine.net, 0x12_3000, RW).is_ok(), "not invalidated yet");
    machine.submit(&[context_device(7, NET.0, 0), iotlb_domain(7)]);
    machine.assert_refused(&machine.net, 0x12_3000, RW);
    assert_eq!(machine.take_fault().reason, 2);
}

#[test]
fn each_requester_has_its_own_context() {
    let (machine, tables) = Machine::started();
    let others = machine.tables(4, 2);
    machine.set_context(NET, others);
    machine.map(tables, 0x5000, 0x20_0000, R);
    machine.map(others, 0x5000, 0x21_0000, R);
    assert_eq!(machine.reached(&machine.disk, 0x5000, READ).unwrap(), 0x20_0000);
    assert_eq!(machine.reached(&machine.net, 0x5000, READ).unwrap(), 0x21_0000);
    // Both in one domain of the guest.
    machine.set_context(NET, tables);
    machine.submit(&[context_device(2, NET.0, 0), iotlb_domain(2)]);
    assert_eq!(machine.reached(&machine.net, 0x5000, READ).unwrap(), 0x20_0000);
    machine.unmap(tables, 0x5000);
    machine.submit(&[iotlb_pages(1, 0x5000, 0)]);
    machine.assert_refused(&machine.disk, 0x5000, READ);
    machine.assert_refused(&machine.net, 0x5000, READ);
}

#[test]
fn translation_off_and_on_changes_what_devices_reach_at_once() {
    let (machine, tables) = Machine::started();
    machine.map(tables, 0x5000, 0x20_0000, R | W);
    for _ in 0..3 {
        assert_eq!(machine.reached(&machine.disk, 0x5000, RW).unwrap(), 0x20_0000);
        machine.command(QIE, TE);
        assert_eq!(machine.reached(&machine.disk, 0x5000, RW).unwrap(), 0x5000);
        machine.command(QIE | TE, TE);
    }
    // A new root table: it holds from SRTP on, and not before, and what was there is gone.
    let root = machine.table();
    machine.set64(RTADDR, root);
    machine.submit(&[context_all(), iotlb_all()]);
    assert_eq!(machine.reached(&machine.disk, 0x5000, RW).unwrap(), 0x20_0000);
    machine.command(QIE | TE | SRTP, SRTP);
    machine.assert_refused(&machine.disk, 0x5000, RW);
    assert_eq!(machine.take_fault().reason, 1);
    assert_eq!(machine.get64(RTADDR), root);
}

#[test]
fn the_addresses_of_interrupts_are_no_memory_inside_a_large_page_either() {
    let (machine, tables) = Machine::started();
    // 3 to 4 GiB lead to 0 to 1 GiB: 0xfee0_0000 would be 0x3ee0_0000, which has no memory, and
    // 2 MiB at 0xfee0_0000 lead to RAM.
    machine.write(machine.entry(tables, 0xfee0_0000, 2), 0x40_0000 | 0x80 | R | W);
    assert_eq!(machine.reached(&machine.disk, 0xfef0_0000, RW).unwrap(), 0x50_0000);
    for (addr, flags, reason) in [(0xfee0_0000, WRITE, 5), (0xfeef_fff0, READ, 6)] {
        machine.assert_refused(&machine.disk, addr, flags);
        let fault = machine.take_fault();
        assert_eq!((fault.addr, fault.reason), (addr & !0xfff, reason));
    }
    // Pages around it, in one map.
    for page in 0..16 {
        machine.map(tables, 0xfedf_8000 + page * 4096, 0x30_0000 + page * 4096, R);
    }
    let scatter = machine.disk.map_scatter(DeviceAddr(0xfedf_8000), 8 << 12, READ);
    assert_eq!(scatter.unwrap().len(), 8 << 12);
    assert!(machine.disk.map_scatter(DeviceAddr(0xfedf_8000), 9 << 12, READ).is_err());
    // They are not read ahead either.
    machine.submit(&[iotlb_all()]);
    assert!(machine.disk.map_scatter(DeviceAddr(0xfedf_c000), 8 << 12, READ).is_err());
    let entries = machine.disk.domain().unwrap().grants();
    let span = gasp::Span::new(DeviceAddr(0xfee0_0000), 1 << 20).unwrap();
    assert!(entries.iter().all(|grant| !grant.device.overlaps(&span)), "{entries:?}");
}

#[test]
fn a_map_of_several_pages_reaches_each_of_them() {
    let (machine, tables) = Machine::started();
    for page in 0..8 {
        machine.map(tables, page << 12, (15 - page) << 20, R);
        machine.write((15 - page) << 20, page);
    }
    let mut bytes = vec![0; 5 << 12];
    machine.disk.read(DeviceAddr(0), &mut bytes).unwrap();
    let pages: Vec<_> = bytes.chunks(4096).map(|page| page[0]).collect();
    assert_eq!((pages, machine.get32(FSTS)), (vec![0, 1, 2, 3, 4], 0));
}

#[test]
fn devices_of_one_requester_share_its_domain_and_can_be_disconnected() {
    let (machine, tables) = Machine::started();
    machine.map(tables, 0x5000, 0x20_0000, R);
    let second = machine.guest.vdev("second queue").unwrap();
    machine.unit.connect(DISK, &second).unwrap().wait();
    assert_eq!(machine.reached(&second, 0x5000, READ).unwrap(), 0x20_0000);
    assert_eq!(machine.unit.disconnect(DISK).unwrap_err().errno_name(), "EBUSY");
    machine.disk.detach().wait();
    second.remove().wait();
    machine.unit.disconnect(DISK).unwrap();
    assert_eq!(machine.unit.disconnect(DISK).unwrap_err().errno_name(), "ENOENT");
    machine.submit(&[context_all(), iotlb_all()]);
    machine.unit.connect(DISK, &machine.disk).unwrap().wait();
    assert_eq!(machine.reached(&machine.disk, 0x5000, READ).unwrap(), 0x20_0000);
}

#[test]
fn a_device_that_cannot_be_connected_leaves_nothing_behind() {
    let machine = Machine::new();
    let other = Machine::new();
    let id = gasp_vtd::RequesterId(0x10);
    let error = machine.unit.connect(id, &other.disk).unwrap_err();
    assert_eq!(error.errno_name(), "EINVAL");
    assert_eq!(machine.guest.domains().len(), 2);
    let vdev = machine.guest.vdev("third").unwrap();
    machine.unit.connect(id, &vdev).unwrap().wait();
    let plain = gasp::Guest::builder().build().unwrap();
    let unit = gasp_vtd::Unit::new(&plain, |_| ()).unwrap();
    let error = unit.connect(id, &plain.vdev("disk").unwrap()).unwrap_err();
    assert_eq!(error.errno_name(), "EINVAL");
}

#[test]
fn a_guest_is_freed_with_its_unit_though_its_domains_have_the_translators() {
    struct Listener;
    impl gasp::SpaceListener for Listener {}
    let (machine, tables) = Machine::started();
    machine.map(tables, 0x5000, 0x20_0000, R);
    let listener = Arc::new(Listener);
    machine.guest.space().add_listener(Arc::clone(&listener) as _).unwrap();
    let held = machine.hold(&machine.disk, 0x5000);
    assert_eq!(Arc::strong_count(&listener), 2);
    drop(machine);
    assert_eq!(Arc::strong_count(&listener), 1);
    assert!(held.load::<u8>(0, std::sync::atomic::Ordering::Relaxed).is_ok(), "its memory lives");
}
