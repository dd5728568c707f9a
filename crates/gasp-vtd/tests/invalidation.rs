//! Invalidations: what they take away, when they complete, and how the guest learns of it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use gasp::{Deadline, DeviceAddr, DrainPolicy, MapFlags};
use gasp_vtd::Message;
use support::*;

/// A machine in which the disk has pages 0 to 7 mapped at 2 MiB, and the net, in domain 2, others.
fn mapped() -> (Machine, Tables, Tables) {
    let (machine, disk) = Machine::started();
    let net = machine.tables(4, 2);
    machine.set_context(NET, net);
    for page in 0..8 {
        machine.map(disk, page << 12, 0x20_0000 + (page << 12), R | W);
        machine.map(net, page << 12, 0x30_0000 + (page << 12), R | W);
    }
    touch(&machine);
    (machine, disk, net)
}

/// Has both devices use their pages, so that they are cached.
fn touch(machine: &Machine) {
    for vdev in [&machine.disk, &machine.net] {
        vdev.map_scatter(DeviceAddr(0), 8 << 12, MapFlags::RW).unwrap();
    }
}

/// The pages that both devices have cached.
fn cached(machine: &Machine) -> [Vec<u64>; 2] {
    [&machine.disk, &machine.net].map(|vdev| {
        let grants = vdev.domain().unwrap().grants();
        let pages = |grant: &gasp::Grant| {
            let (first, last) = (grant.device.start().0 >> 12, grant.device.last().0 >> 12);
            first..=last
        };
        grants.iter().flat_map(pages).collect()
    })
}

fn all() -> Vec<u64> {
    (0..8).collect()
}

fn without(gone: core::ops::Range<u64>) -> Vec<u64> {
    all().into_iter().filter(|page| !gone.contains(page)).collect()
}

#[test]
fn each_granularity_takes_out_what_it_names() {
    let (machine, ..) = mapped();
    let check = |descriptor, disk, net| {
        assert_eq!(cached(&machine), [all(), all()]);
        machine.submit(&[descriptor]);
        assert_eq!(cached(&machine), [disk, net], "{descriptor:x?}");
        touch(&machine);
    };
    check(iotlb_all(), vec![], vec![]);
    check(iotlb_domain(1), vec![], all());
    check(iotlb_domain(2), all(), vec![]);
    check(iotlb_domain(3), all(), all());
    check(iotlb_pages(1, 0x3000, 0), without(3..4), all());
    check(iotlb_pages(2, 0x6000, 0), all(), without(6..7));
    check(iotlb_pages(2, 0x4000, 1), all(), without(4..6));
    // The bits of the address below the mask do not count, and the hint changes nothing.
    check(iotlb_pages(2, 0x5000, 1), all(), without(4..6));
    check(iotlb_pages(1, 0x3000, 2 | 1 << 6), without(0..4), all());
    check(iotlb_pages(1, 0x8000, 2), all(), all());
    check(iotlb_pages(1, 0, 36), vec![], all());
    check(iotlb_pages(1, !0xfff, 0), all(), all());
    check(context_all(), vec![], vec![]);
    check(context_device(1, DISK.0, 0), vec![], all());
    check(context_device(1, DISK.0 | 3, 0), all(), all());
    check(context_device(1, DISK.0 | 3, 1), all(), all());
    check(context_device(1, DISK.0 | 4, 1), vec![], all());
    check(context_device(1, DISK.0 | 6, 1), all(), all());
    check(context_device(1, DISK.0 | 6, 2), vec![], all());
    check(context_device(1, NET.0 ^ 7, 2), all(), all());
    check(context_device(1, NET.0 ^ 7, 3), all(), vec![]);
    check([1 | 2 << 4 | 1 << 16, 0], vec![], vec![]);
}

#[test]
fn invalidations_in_a_row_are_all_made() {
    let (machine, ..) = mapped();
    let pages = |page: u64| iotlb_pages(1 + (page % 2) as u16, page << 12, 0);
    machine.submit(&[1, 2, 5, 7].map(pages));
    assert_eq!(cached(&machine), [without(2..3), vec![0, 2, 3, 4, 6]]);
}

#[test]
fn a_wait_completes_after_the_drain_and_the_vcpu_does_not_wait() {
    let (machine, tables, _) = mapped();
    let held = machine.hold(&machine.disk, 0x3000);
    machine.unmap(tables, 0x3000);
    let stamp = machine.post(&[iotlb_pages(1, 0x3000, 0)]);
    // The call has returned; what was revoked is revoked, though not drained.
    machine.assert_refused(&machine.disk, 0x3000, READ);
    let head = machine.get64(IQH);
    std::thread::sleep(Duration::from_millis(20));
    assert!(!machine.is_complete(stamp));
    assert_eq!(head + 16, machine.get64(IQT), "the wait descriptor is at the head");
    // What is posted meanwhile waits its turn.
    let later = machine.post(&[iotlb_domain(2)]);
    assert_eq!(cached(&machine)[1], all());
    drop(held);
    wait_until("the wait descriptor completes", || machine.is_complete(later));
    wait_until("the queue is empty", || machine.get64(IQH) == machine.get64(IQT));
    assert_eq!(cached(&machine)[1], []);
    // And then without the thread again.
    machine.submit(&[iotlb_all()]);
}

#[test]
fn a_mapping_of_another_page_or_device_is_not_waited_for() {
    let (machine, ..) = mapped();
    let _others = [machine.hold(&machine.disk, 0x3000), machine.hold(&machine.net, 0x4000)];
    machine.submit(&[
        iotlb_pages(1, 0x4000, 0),
        iotlb_pages(2, 0x3000, 0),
        context_device(2, 1, 0),
    ]);
}

#[test]
fn a_thread_completes_what_nobody_asks_for() {
    let (machine, ..) = mapped();
    for _ in 0..20 {
        let held = machine.hold(&machine.net, 0x3000);
        let stamp = machine.post(&[iotlb_all()]);
        drop(held);
        // No register is read.
        wait_until("the wait descriptor completes", || machine.is_complete(stamp));
        touch(&machine);
    }
}

#[test]
fn a_held_mapping_is_waited_for_until_the_guests_policy_ends_that() {
    let deadline = Duration::from_secs(1);
    let policy = DrainPolicy { deadline, at_deadline: Deadline::Detach };
    let machine = Machine::with(policy, 48);
    machine.start();
    let tables = machine.tables(3, 1);
    machine.set_context(DISK, tables);
    machine.map(tables, 0x5000, 0x20_0000, R);
    let held = machine.hold(&machine.disk, 0x5000);
    let stamp = machine.post(&[iotlb_all()]);
    assert!(!machine.is_complete(stamp) && !held.is_revoked());
    wait_until("the wait descriptor completes", || machine.is_complete(stamp));
    assert!(held.is_revoked());
}

#[test]
fn commands_by_register_report_what_they_have_done_and_when() {
    let (machine, ..) = mapped();
    let iotlb = machine.iva() + 8;
    let done = |granularity: u64| granularity << 60 | granularity << 57;
    for (granularity, disk) in [(1, vec![]), (2, vec![]), (3, without(4..6))] {
        machine.set64(machine.iva(), 0x4000 | 1);
        machine.set64(iotlb, 1 << 63 | granularity << 60 | 3 << 48 | 1 << 32);
        assert_eq!(machine.get64(iotlb), done(granularity) | 3 << 48 | 1 << 32);
        assert_eq!(cached(&machine)[0], disk);
        touch(&machine);
    }
    for (granularity, disk, net) in [(1, vec![], vec![]), (2, vec![], vec![]), (3, vec![], all())] {
        let source = u64::from(DISK.0 | 6);
        machine.set64(CCMD, 1 << 63 | granularity << 61 | 2 << 32 | source << 16 | 0x1234);
        assert_eq!(machine.get64(CCMD), granularity << 61 | granularity << 59 | 0x1234);
        assert_eq!(cached(&machine), [disk, net]);
        touch(&machine);
    }
    // What is reserved, or too large a mask, is not done, and says so.
    machine.set64(machine.iva(), 37);
    for granularity in [0, 3] {
        machine.set64(iotlb, 1 << 63 | granularity << 60);
        assert_eq!(machine.get64(iotlb), granularity << 60);
    }
    machine.set64(CCMD, 1 << 63);
    assert_eq!(machine.get64(CCMD), 0);
    // Without the command bit nothing is done either.
    machine.set64(iotlb, 1 << 60);
    machine.set64(CCMD, 1 << 61);
    assert_eq!(cached(&machine), [all(), all()]);
    assert_eq!((machine.get64(iotlb), machine.get64(CCMD)), (1 << 60, 1 << 61));
    assert_eq!(machine.get64(machine.iva()), 0, "for writing only");
    // In halves, the upper one last.
    machine.set32(machine.iva(), 0x2000);
    machine.set32(machine.iva() + 4, 0);
    machine.set32(iotlb, 0);
    machine.set32(iotlb + 4, 1 << 31 | 3 << 28 | 2);
    assert_eq!(cached(&machine), [all(), without(2..3)]);
    machine.set32(CCMD, u32::from(DISK.0) << 16);
    machine.set32(CCMD + 4, 1 << 31 | 3 << 29);
    assert_eq!(cached(&machine), [vec![], without(2..3)]);
}

#[test]
fn status_bits_of_commands_wait_for_the_drain() {
    let (machine, ..) = mapped();
    let iotlb = machine.iva() + 8;
    let held = machine.hold(&machine.net, 0x3000);
    machine.set64(machine.iva(), 0x4000);
    machine.set64(iotlb, 1 << 63 | 1 << 60);
    assert_eq!(machine.get64(iotlb), 1 << 63 | 1 << 60, "in progress");
    machine.set64(iotlb, 1 << 63 | 2 << 60);
    machine.set64(machine.iva(), 1);
    assert_eq!(machine.get64(iotlb), 1 << 63 | 1 << 60, "one at a time");
    machine.set64(CCMD, 1 << 63 | 1 << 61);
    machine.set64(CCMD, 1 << 63 | 2 << 61);
    assert_eq!(machine.get64(CCMD), 1 << 63 | 1 << 61);
    machine.set32(GCMD, QIE | TE | SRTP);
    assert_eq!(machine.get32(GSTS), QIE | TE);
    machine.set32(GCMD, QIE);
    assert_eq!(machine.get32(GSTS), QIE | TE, "one at a time");
    drop(held);
    wait_until("the commands are done", || machine.get64(iotlb) >> 63 == 0);
    assert_eq!(machine.get64(CCMD), 1 << 61 | 1 << 59);
    assert_eq!(machine.get32(GSTS), QIE | TE | SRTP);
    touch(&machine);
    machine.set64(iotlb, 1 << 63 | 3 << 60 | 2 << 32);
    assert_eq!(cached(&machine), [all(), without(4..5)], "the pages are those of before");

    let held = machine.hold(&machine.net, 0x3000);
    machine.set32(GCMD, QIE);
    assert_eq!(machine.get32(GSTS), QIE | TE | SRTP);
    assert_eq!(machine.reached(&machine.net, 0x3000, RW).unwrap(), 0x3000, "it is off already");
    drop(held);
    wait_until("translation is disabled", || machine.get32(GSTS) == QIE | SRTP);
}

#[test]
fn translations_belong_to_the_domain_id_of_the_context_entry_that_they_were_read_with() {
    let (machine, tables, _) = mapped();
    let mut ids = [1, 9];
    for _ in 0..4 {
        let [old, new] = ids;
        // The guest has changed the id, and has not invalidated the context cache yet.
        machine.set_context(DISK, Tables { id: new, ..tables });
        machine.submit(&[iotlb_pages(old, 0x3000, 0)]);
        assert_eq!(cached(&machine), [without(3..4), all()]);
        machine.reached(&machine.disk, 0x3000, RW).unwrap();
        machine.submit(&[iotlb_domain(old)]);
        assert_eq!(cached(&machine), [vec![], all()]);
        touch(&machine);
        machine.submit(&[context_device(old, DISK.0, 0), iotlb_domain(old)]);
        assert_eq!(cached(&machine), [vec![], all()]);
        touch(&machine);
        machine.submit(&[iotlb_domain(old)]);
        assert_eq!(cached(&machine), [all(), all()]);
        ids = [new, old];
    }
}

#[test]
fn a_context_entry_is_used_until_the_context_cache_is_invalidated() {
    let (machine, tables, others) = mapped();
    // The tables of the net, and what comes of an entry that is not present any more.
    machine.set_context(DISK, Tables { id: 1, ..others });
    machine.submit(&[iotlb_all()]);
    assert_eq!(machine.reached(&machine.disk, 0x3000, RW).unwrap(), 0x20_3000);
    machine.submit(&[context_device(1, DISK.0, 0)]);
    assert_eq!(machine.reached(&machine.disk, 0x3000, RW).unwrap(), 0x30_3000);
    machine.write(machine.context(DISK), 0);
    machine.submit(&[context_device(1, DISK.0, 0)]);
    machine.assert_refused(&machine.disk, 0x3000, RW);
    // From then on none is needed.
    machine.set_context(DISK, tables);
    assert_eq!(machine.reached(&machine.disk, 0x3000, RW).unwrap(), 0x20_3000);
}

#[test]
fn a_wait_writes_its_status_raises_its_event_or_both() {
    let (machine, ..) = mapped();
    let event = |address: u64| Message { address, data: 0x4041 };
    machine.set32(IEDATA, 0x4041);
    machine.set32(IEADDR, 0xfee0_1000);
    machine.set32(IEUADDR, 0x1);
    machine.set32(IECTL, 0);
    let tail = |descriptors: &[[u64; 2]]| machine.set64(IQT, machine.put(descriptors));
    // The status alone.
    tail(&[[5 | 1 << 5 | 0xabcd << 32, STATUS + 4]]);
    assert_eq!((machine.word(STATUS), machine.get32(ICS)), (0xabcd << 32, 0));
    assert_eq!(machine.messages(), []);
    // The event alone, and with the fence flag. It is raised once until software clears it.
    tail(&[[5 | 1 << 4 | 1 << 6 | 7 << 32, STATUS], [5 | 1 << 4 | 8 << 32, STATUS]]);
    assert_eq!((machine.word(STATUS), machine.get32(ICS)), (0xabcd << 32, 1));
    assert_eq!(machine.messages(), [event(1 << 32 | 0xfee0_1000)]);
    tail(&[[5 | 1 << 4, STATUS]]);
    assert_eq!(machine.messages(), []);
    machine.set32(ICS, 0);
    assert_eq!(machine.get32(ICS), 1);
    machine.set32(ICS, 1);
    assert_eq!(machine.get32(ICS), 0);
    // Both, while it is masked: pending until it is unmasked.
    machine.set32(IECTL, 1 << 31);
    tail(&[[5 | 3 << 4 | 9 << 32, STATUS]]);
    assert_eq!((machine.word(STATUS) as u32, machine.get32(ICS)), (9, 1));
    assert_eq!((machine.get32(IECTL), machine.messages()), (3 << 30, vec![]));
    machine.set32(IECTL, 1 << 31);
    assert_eq!((machine.get32(IECTL), machine.messages()), (3 << 30, vec![]));
    machine.set32(IECTL, 0);
    assert_eq!(machine.messages(), [event(1 << 32 | 0xfee0_1000)]);
    assert_eq!(machine.get32(IECTL), 0);
    machine.set32(ICS, 1);
    // Served while it was pending: no message any more.
    machine.set32(IECTL, 1 << 31);
    tail(&[[5 | 1 << 4, STATUS]]);
    machine.set32(ICS, 1);
    assert_eq!(machine.get32(IECTL), 1 << 31);
    machine.set32(IECTL, 0);
    assert_eq!(machine.messages(), []);
    // Nothing at all, and a status outside of RAM.
    tail(&[[5, 0], [5 | 1 << 5, RAM], [5 | 1 << 5, !3]]);
    assert_eq!((machine.get64(IQH), machine.get32(FSTS)), (machine.get64(IQT), 0));
}

#[test]
fn a_bad_descriptor_stops_the_queue_until_software_clears_the_error() {
    let (machine, ..) = mapped();
    let flaws: &[([u64; 2], u64)] = &[
        ([0, 0], 3),
        ([3, 0], 3),
        ([4 | 1 << 4, 0], 3),
        ([6, 0], 3),
        ([7, 0], 3),
        ([2 | 1 << 4 | 1 << 9, 0], 3),
        ([5 | 1 << 11, 0], 3),
        ([1, 0], 4),
        ([1 | 1 << 4 | 1 << 6, 0], 4),
        ([1 | 1 << 4 | 1 << 8, 0], 4),
        ([1 | 1 << 4 | 1 << 12, 0], 4),
        ([1 | 1 << 4 | 1 << 15, 0], 4),
        ([1 | 1 << 4 | 1 << 50, 0], 4),
        ([1 | 1 << 4 | 1 << 63, 0], 4),
        ([1 | 1 << 4, 1], 4),
        ([1 | 1 << 4, 1 << 63], 4),
        ([2, 0], 4),
        ([2 | 1 << 4 | 1 << 8, 0], 4),
        ([2 | 1 << 4 | 1 << 12, 0], 4),
        ([2 | 1 << 4 | 1 << 32, 0], 4),
        ([2 | 1 << 4 | 1 << 63, 0], 4),
        ([2 | 1 << 4, 1 << 7], 4),
        ([2 | 1 << 4, 1 << 11], 4),
        ([2 | 3 << 4, 37], 4),
        ([5 | 1 << 7, 0], 4),
        ([5 | 1 << 8, 0], 4),
        ([5 | 1 << 12, 0], 4),
        ([5 | 1 << 31, 0], 4),
        ([5, 1], 4),
        ([5, 2], 4),
    ];
    for &(descriptor, info) in flaws {
        let at = machine.get64(IQH) + 16;
        let stamp = machine.post(&[iotlb_domain(1), descriptor, iotlb_domain(2)]);
        assert_eq!((machine.get32(FSTS), machine.get64(IQERCD)), (IQE, info), "{descriptor:x?}");
        assert_eq!(machine.get64(IQH), at % 4096, "the descriptor is at the head");
        assert_eq!(cached(&machine), [vec![], all()], "those before it are made, none after it");
        // More work does not make it go on, nor do other bits.
        let tail = machine.get64(IQT);
        machine.set64(IQT, tail);
        machine.set32(FSTS, !IQE);
        assert_eq!((machine.get32(FSTS), machine.is_complete(stamp)), (IQE, false));
        // Software mends the descriptor and clears the error.
        machine.write(QUEUE + at % 4096, 5);
        machine.write(QUEUE + at % 4096 + 8, 0);
        machine.set32(FSTS, IQE);
        assert!(machine.is_complete(stamp));
        assert_eq!((machine.get32(FSTS), machine.get64(IQERCD)), (0, 0));
        assert_eq!(cached(&machine), [vec![], vec![]]);
        touch(&machine);
    }
    // One that is not mended stops it again.
    machine.post(&[[0, 0]]);
    machine.set32(FSTS, IQE);
    assert_eq!(machine.get32(FSTS), IQE);
}

#[test]
fn a_queue_that_is_not_in_ram_or_a_tail_past_its_end_is_an_error() {
    let (machine, ..) = mapped();
    for address in [RAM, RAM - 4096 + (1 << 40), !0xfff] {
        machine.command(TE, QIE);
        machine.set64(IQT, 0);
        machine.set64(IQA, address);
        machine.command(QIE | TE, QIE);
        machine.set64(IQT, 16);
        assert_eq!((machine.get32(FSTS), machine.get64(IQERCD)), (IQE, 2), "{address:#x}");
        assert_eq!(machine.get64(IQH), 0);
        // While it is enabled it does not move.
        machine.set64(IQA, QUEUE);
        assert_eq!(machine.get64(IQA), address);
        machine.command(TE, QIE);
        machine.set32(FSTS, IQE);
        assert_eq!(machine.get32(FSTS), 0);
    }
    // Its last page is not in RAM.
    machine.set64(IQT, 0);
    machine.set64(IQA, (RAM - 4096) | 1);
    machine
        .guest
        .write_firmware(gasp::GuestPhys(RAM - 4096), &[5, 0, 0, 0, 0, 0, 0, 0].repeat(512))
        .unwrap();
    for at in 0..256 {
        machine.write(RAM - 4096 + at * 16 + 8, 0);
    }
    machine.command(QIE | TE, QIE);
    machine.set64(IQT, 300 * 16);
    wait_until("it stops", || machine.get32(FSTS) == IQE);
    assert_eq!((machine.get64(IQERCD), machine.get64(IQH)), (2, 4096));
    machine.command(TE, QIE);
    machine.set32(FSTS, IQE);
    // A tail past the end of a queue of one page.
    machine.set64(IQA, QUEUE);
    machine.set64(IQT, 256 * 16);
    machine.command(QIE | TE, QIE);
    assert_eq!((machine.get32(FSTS), machine.get64(IQERCD)), (IQE, 1));
    machine.set64(IQT, 0);
    machine.set32(FSTS, IQE);
    assert_eq!(machine.get32(FSTS), 0);
}

#[test]
fn a_disabled_queue_is_not_processed_and_begins_again_at_its_first_descriptor() {
    let (machine, ..) = mapped();
    machine.submit(&[iotlb_domain(3)]);
    assert_eq!(machine.get64(IQH), 32);
    machine.command(TE, QIE);
    assert_eq!(machine.get64(IQH), 0);
    machine.set64(IQT, 0);
    machine.write(QUEUE, iotlb_domain(1)[0]);
    machine.write(QUEUE + 8, 0);
    machine.set64(IQT, 16);
    assert_eq!((machine.get64(IQH), machine.get64(IQT)), (0, 16));
    assert_eq!(cached(&machine)[0], all());
    machine.set32(GCMD, QIE | TE);
    assert_eq!((cached(&machine)[0].len(), machine.get64(IQH)), (0, 16));
}

#[test]
fn a_wait_of_before_the_queue_was_disabled_is_forgotten_but_not_its_drain() {
    let (machine, ..) = mapped();
    let held = machine.hold(&machine.disk, 0x3000);
    let stamp = machine.post(&[iotlb_domain(1)]);
    machine.start_queue_again();
    assert_eq!(machine.get64(IQH), 0);
    let next = machine.post(&[]);
    assert!(!machine.is_complete(next), "a wait is for all that is before it");
    drop(held);
    wait_until("the next one completes", || machine.is_complete(next));
    assert_ne!(stamp, next);
}

#[test]
fn a_guest_that_starts_its_queue_again_and_again_does_not_put_the_deadline_off() {
    let deadline = Duration::from_millis(50);
    let policy = DrainPolicy { deadline, at_deadline: Deadline::Detach };
    let machine = Machine::with(policy, 48);
    let tables = machine.tables(3, 1);
    machine.start();
    machine.set_context(DISK, tables);
    machine.map(tables, 0x5000, 0x20_0000, R);
    let held = machine.hold(&machine.disk, 0x5000);
    machine.post(&[context_all()]);
    wait_until("it is detached", || {
        machine.set32(GCMD, TE);
        machine.set32(GCMD, QIE | TE);
        held.is_revoked()
    });
}

#[test]
fn the_queue_goes_round_and_one_access_processes_a_bounded_part_of_it() {
    let (machine, ..) = mapped();
    for round in 0..10 {
        let many = vec![iotlb_pages(1, 0x3000, 0); 100];
        machine.submit(&many);
        assert_eq!(machine.get64(IQH), (round + 1) * 101 * 16 % 4096);
    }
    // 128 pages of wait descriptors.
    machine.command(TE, QIE);
    let base = 0x80_0000;
    let ring = [5_u64.to_le_bytes(), [0; 8]].concat().repeat(1 << 15);
    machine.guest.write_firmware(gasp::GuestPhys(base), &ring).unwrap();
    let [low, high] = wait(0xabcdef);
    machine.write(base + ((1 << 15) - 2) * 16, low);
    machine.write(base + ((1 << 15) - 2) * 16 + 8, high);
    machine.set64(IQA, base | 7);
    let tail = ((1 << 15) - 1) * 16;
    // Whether it was seen that one access does not process all of it: the thread can be faster.
    let is_seen = (0..50).any(|_| {
        machine.write(STATUS, 0);
        machine.set64(IQT, 0);
        machine.command(QIE | TE, QIE);
        machine.set64(IQT, tail);
        let is_seen = !machine.is_complete(0xabcdef);
        // No register is accessed.
        wait_until("the thread has processed the rest", || machine.is_complete(0xabcdef));
        assert_eq!((machine.get64(IQH), machine.get64(IQA)), (tail, base | 7));
        machine.command(TE, QIE);
        is_seen
    });
    assert!(is_seen, "a vCPU was kept for 32,767 descriptors each time");
    assert_eq!(machine.get32(FSTS), 0);
}

#[test]
fn a_reset_ends_translation_and_forgets_what_is_waited_for() {
    let (machine, ..) = mapped();
    let held = machine.hold(&machine.disk, 0x3000);
    let stamp = machine.post(&[iotlb_domain(1)]);
    machine.set64(machine.iva() + 8, 1 << 63 | 1 << 60);
    machine.assert_refused(&machine.disk, 0x9000, READ);
    machine.set32(FECTL, 0);
    assert_eq!(machine.reached(&machine.net, 0x4000, RW).unwrap(), 0x30_4000);
    machine.unit.reset();
    for register in (0x18..0x1000).step_by(8) {
        let expected = match register {
            FECTL | IECTL => 1 << 31,
            _ => 0,
        };
        assert_eq!(machine.get64(register), expected, "{register:#x}");
    }
    assert_eq!(machine.reached(&machine.disk, 0x3000, RW).unwrap(), 0x3000);
    assert_eq!(machine.reached(&machine.net, 0x4000, RW).unwrap(), 0x4000);
    // The driver of a guest that has started again.
    machine.set64(IQA, QUEUE);
    machine.start_queue_again();
    let next = machine.post(&[]);
    assert!(!machine.is_complete(next) && !machine.is_complete(stamp));
    assert!(!held.is_revoked(), "it is drained on");
    drop(held);
    wait_until("it completes", || machine.is_complete(next));
    // The root table is not what it was before the reset.
    machine.command(TE, TE);
    machine.assert_refused(&machine.disk, 0x3000, RW);
    assert_eq!(machine.take_fault().reason, 1, "there is nothing at 0");
    machine.command(0, QIE | TE);
    machine.start();
    assert_eq!(machine.reached(&machine.disk, 0x3000, RW).unwrap(), 0x20_3000);
}
