//! Faults: which accesses are recorded, with what reason, and how the guest is told.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use gasp::{Access, DeviceAddr, MapFlags};
use gasp_vtd::Message;
use support::*;

fn record(source: u16, addr: u64, is_read: bool, reason: u8) -> Record {
    Record { source, addr, is_read, reason }
}

#[test]
fn each_flaw_of_the_entries_has_its_reason() {
    let (machine, tables) = Machine::started();
    machine.map(tables, 0x5000, 0x20_0000, R | W);
    let (root, context) = (ROOT, machine.context(DISK));
    let entries = [root, root + 8, context, context + 8];
    let [root_low, _, low, high] = entries.map(|at| machine.word(at));
    let leaf = machine.entry(tables, 0x5000, 1);
    let middle = machine.entry(tables, 0x5000, 2);
    let flaws: &[(u64, u64, u8)] = &[
        (root, 0, 0x1),
        (root, root_low & !1, 0x1),
        (root, RAM | 1, 0x9),
        (root, root_low | 1 << 1, 0xa),
        (root, root_low | 1 << 11, 0xa),
        (root, root_low | 1 << 48, 0xa),
        (root, root_low | 1 << 63, 0xa),
        (root + 8, 1, 0xa),
        (root + 8, 1 << 63, 0xa),
        (context, 0, 0x2),
        (context, low & !1, 0x2),
        (context, low | 1 << 4, 0xb),
        (context, low | 1 << 11, 0xb),
        (context, low | 1 << 48, 0xb),
        (context, low | 1 << 63, 0xb),
        (context + 8, high | 1 << 7, 0xb),
        (context + 8, high | 1 << 24, 0xb),
        (context + 8, high | 1 << 63, 0xb),
        (context, low | 1 << 2, 0x3),
        (context, low | 3 << 2, 0x3),
        (context + 8, high & !7, 0x3),
        (context + 8, high & !7 | 3, 0x3),
        (context + 8, high & !7 | 4, 0x3),
        (context + 8, high & !7 | 7, 0x3),
        (context, RAM | 1, 0x7),
        (middle, RAM | 3, 0x7),
        (middle, 0, 0x6),
        (leaf, 0, 0x6),
        (leaf, 0x20_0000 | W, 0x6),
        (leaf, 0x20_0000 | R | 1 << 62, 0xc),
        (leaf, 0x20_0000 | R | 1 << 48, 0xc),
        (middle, machine.word(middle) | 1 << 11, 0xc),
    ];
    for &(at, flaw, reason) in flaws {
        let before = machine.word(at);
        machine.write(at, flaw);
        machine.submit(&[context_all()]);
        machine.assert_refused(&machine.disk, 0x5678, READ);
        let expected = record(DISK.0, 0x5000, true, reason);
        assert_eq!(machine.take_fault(), expected, "{at:#x}: {flaw:#x}");
        machine.write(at, before);
    }
    // Bits that software may use, and snoop control.
    machine.submit(&[context_all()]);
    machine.write(context + 8, high | 0x78);
    machine.write(leaf, machine.word(leaf) | 1 << 11 | 0x7 << 52);
    assert!(machine.reached(&machine.disk, 0x5678, READ).is_ok());
    // Nothing of a context entry but its type, width and domain matters if addresses pass through.
    machine.submit(&[context_all(), iotlb_all()]);
    machine.write(context, 1 << 63 | 2 << 2 | 1);
    assert_eq!(machine.reached(&machine.disk, 0x5678, READ).unwrap(), 0x5678);
    machine.write(context, 2 << 2 | 1 << 4 | 1);
    machine.submit(&[context_all(), iotlb_all()]);
    machine.assert_refused(&machine.disk, 0x5678, READ);
    assert_eq!(machine.take_fault().reason, 0xb);
    machine.write(context, 2 << 2 | 1);
    machine.write(context + 8, 5);
    machine.assert_refused(&machine.disk, 0x5678, READ);
    assert_eq!(machine.take_fault().reason, 0x3);
    // The root table itself.
    machine.set64(RTADDR, RAM);
    machine.command(QIE | TE | SRTP, SRTP);
    machine.assert_refused(&machine.disk, 0x5678, READ);
    assert_eq!(machine.take_fault().reason, 0x8);
}

#[test]
fn a_record_has_the_requester_the_page_and_the_type_of_the_access() {
    let (machine, tables) = Machine::started();
    machine.set_context(NET, tables);
    machine.map(tables, 0x5000, 0x20_0000, R);
    machine.map(tables, 0x6000, 0x20_0000, W);
    let refused = |vdev, addr, flags| {
        machine.assert_refused(vdev, addr, flags);
        machine.take_fault()
    };
    assert_eq!(refused(&machine.disk, 0x5fe0, WRITE), record(DISK.0, 0x5000, false, 5));
    assert_eq!(refused(&machine.net, 0x5000, RW), record(NET.0, 0x5000, false, 5));
    assert_eq!(refused(&machine.net, 0x6000, READ), record(NET.0, 0x6000, true, 6));
    assert_eq!(refused(&machine.net, 0x6000, RW), record(NET.0, 0x6000, true, 6));
    assert_eq!(
        refused(&machine.net, 0x6000, MapFlags::new(Access::EXEC).unwrap()),
        record(NET.0, 0x6000, true, 6)
    );
    assert_eq!(refused(&machine.disk, 1 << 39, READ), record(DISK.0, 1 << 39, true, 4));
    assert_eq!(refused(&machine.disk, 1 << 39, RW), record(DISK.0, 1 << 39, false, 4));
    // The first page that is refused, of a larger range.
    machine.map(tables, 0x4000, 0x21_0000, R);
    let error = machine.disk.map_scatter(DeviceAddr(0x4100), 0x4000, READ).unwrap_err();
    assert_eq!(error.errno_name(), "EFAULT");
    assert_eq!(machine.take_fault(), record(DISK.0, 0x6000, true, 6));
    // The engine refuses what is wider than the guest, and records nothing.
    let error = machine.reached(&machine.disk, 1 << 48, READ).unwrap_err();
    assert_eq!((error.errno_name(), machine.get32(FSTS) & 0xff), ("ENXIO", 0));
}

#[test]
fn what_a_device_only_asks_is_no_fault() {
    let (machine, tables) = Machine::started();
    machine.map(tables, 0x5000, 0x20_0000, R);
    assert!(machine.disk.allows(DeviceAddr(0x5000), 16, READ));
    assert!(!machine.disk.allows(DeviceAddr(0x5000), 16, RW));
    assert!(!machine.disk.allows(DeviceAddr(0x6000), 16, READ));
    assert!(!machine.net.allows(DeviceAddr(0x5000), 16, READ));
    assert_eq!(machine.get32(FSTS), 0);
}

#[test]
fn a_context_that_disables_fault_processing_leaves_no_record_but_the_refusal() {
    let (machine, tables) = Machine::started();
    let context = machine.context(DISK);
    machine.map(tables, 0x6000, RAM, R | W);
    for low in [tables.root | 3, 2, tables.root | 1 << 2 | 3, tables.root | 1 << 4 | 3] {
        machine.write(context, low);
        machine.submit(&[context_all()]);
        machine.assert_refused(&machine.disk, 0x5000, READ);
        assert_eq!(machine.get32(FSTS), 0, "{low:#x}");
    }
    machine.write(context, tables.root | 3);
    machine.submit(&[context_all()]);
    machine.assert_refused(&machine.disk, 0xfee0_0000, WRITE);
    assert_eq!(machine.get32(FSTS), 0);
    // What comes before the context entry is recorded.
    machine.write(ROOT, 0);
    machine.submit(&[context_all()]);
    machine.assert_refused(&machine.disk, 0x5000, READ);
    assert_eq!(machine.take_fault().reason, 1);
}

#[test]
fn what_is_cached_with_less_access_than_the_tables_have_now_is_recorded_too() {
    let (machine, tables) = Machine::started();
    machine.map(tables, 0x5000, 0x20_0000, R);
    machine.reached(&machine.disk, 0x5000, READ).unwrap();
    // It leads elsewhere now, and the guest has not said so.
    machine.map(tables, 0x5000, 0x21_0000, R | W);
    machine.assert_refused(&machine.disk, 0x5000, WRITE);
    assert_eq!(machine.take_fault(), record(DISK.0, 0x5000, false, 5));
}

#[test]
fn records_fill_up_and_what_comes_then_is_dropped_until_the_overflow_is_cleared() {
    let (machine, _) = Machine::started();
    let records = (machine.get64(CAP) >> 40 & 0xff) + 1;
    assert_eq!(records, 8);
    let refuse = |page: u64| machine.assert_refused(&machine.disk, page << 12, READ);
    let expected = |page: u64| Some(record(DISK.0, page << 12, true, 6));
    (1..=8).for_each(refuse);
    assert_eq!(machine.get32(FSTS), PPF, "full, and nothing lost; the first is the first");
    refuse(9);
    assert_eq!(machine.get32(FSTS), PFO | PPF);
    // Room alone is not enough.
    assert_eq!(machine.take_record(0), expected(1));
    refuse(10);
    assert_eq!(machine.get32(FSTS), PFO | PPF);
    machine.set32(FSTS, !PFO);
    assert_eq!(machine.get32(FSTS), PFO | PPF);
    machine.set32(FSTS, PFO);
    assert_eq!(machine.get32(FSTS), PPF);
    refuse(11);
    refuse(12);
    assert_eq!(machine.get32(FSTS), PFO | PPF, "the next register is in use still");
    assert_eq!(machine.take_record(0), expected(11));
    for index in 1..8 {
        assert_eq!(machine.take_record(index), expected(index + 1));
    }
    assert_eq!(machine.get32(FSTS), PFO);
    machine.set32(FSTS, PFO);
    // The index of the first goes on from where the last one was.
    refuse(13);
    refuse(14);
    assert_eq!(machine.get32(FSTS), PPF | 1 << 8);
    assert_eq!(machine.take_record(1), expected(13));
    assert_eq!(machine.get32(FSTS), PPF | 1 << 8, "it stays until all are cleared");
    assert_eq!(machine.take_record(2), expected(14));
    refuse(15);
    assert_eq!(machine.get32(FSTS), PPF | 3 << 8);
}

#[test]
fn only_a_one_at_its_bit_clears_a_record() {
    let (machine, _) = Machine::started();
    machine.assert_refused(&machine.disk, 0x5000, READ);
    let at = machine.records();
    let before = [machine.get64(at), machine.get64(at + 8)];
    for offset in [0, 4, 8] {
        machine.set32(at + offset, !0);
    }
    machine.set32(at + 12, !(1 << 31));
    machine.set32(at + 28, 1 << 31);
    machine.set32(FSTS, PPF | 0xff00);
    assert_eq!([machine.get64(at), machine.get64(at + 8)], before);
    assert_eq!(machine.get32(FSTS), PPF);
    // In 8 bytes.
    machine.set64(at + 8, 1 << 63);
    assert_eq!((machine.get64(at + 8) >> 63, machine.get32(FSTS)), (0, 0));
}

#[test]
fn the_fault_event_is_sent_once_until_everything_is_served() {
    let (machine, _) = Machine::started();
    let message = Message { address: 0x2_fee0_2000, data: 0x31 };
    machine.set32(FEDATA, 0x31);
    machine.set64(FEADDR, 0x2_fee0_2003);
    assert_eq!(machine.get64(FEADDR), 0x2_fee0_2000, "the lowest bits are 0");
    assert_eq!(machine.get64(FECTL), 0x31 << 32 | 1 << 31, "masked after a reset");
    let refuse = |page: u64| machine.assert_refused(&machine.disk, page << 12, READ);
    refuse(1);
    assert_eq!((machine.get32(FECTL), machine.messages()), (3 << 30, vec![]));
    // Only the mask counts.
    machine.set32(FECTL, !(1 << 31));
    assert_eq!((machine.get32(FECTL), machine.messages()), (0, vec![message]));
    // One more, while the first is there: it is no new condition.
    refuse(2);
    assert_eq!(machine.messages(), []);
    machine.take_record(0).unwrap();
    refuse(3);
    assert_eq!(machine.messages(), []);
    machine.take_record(1).unwrap();
    machine.take_record(2).unwrap();
    refuse(4);
    assert_eq!(machine.messages(), [message]);
    // Masked and served before it is unmasked: none.
    machine.take_record(3).unwrap();
    machine.set32(FECTL, 1 << 31);
    refuse(5);
    assert_eq!(machine.get32(FECTL), 3 << 30);
    refuse(6);
    machine.take_record(4).unwrap();
    assert_eq!(machine.get32(FECTL), 3 << 30, "one is left");
    machine.take_record(5).unwrap();
    assert_eq!(machine.get32(FECTL), 1 << 31);
    machine.set32(FECTL, 0);
    assert_eq!(machine.messages(), []);
    // An error of the queue is a condition as well, unless a fault is pending, and the reverse.
    machine.post(&[[0, 0]]);
    assert_eq!(machine.messages(), [message]);
    refuse(7);
    assert_eq!(machine.messages(), []);
    machine.set32(FSTS, IQE);
    assert_eq!((machine.get32(FSTS) & 0xff, machine.messages()), (PPF | IQE, vec![]));
    machine.start_queue_again();
    machine.set32(FSTS, IQE);
    machine.take_record(6).unwrap();
    assert_eq!(machine.get32(FSTS) & 0xff, 0);
    // With the error pending alone, clearing it serves it.
    machine.set32(FECTL, 1 << 31);
    machine.post(&[[0, 0]]);
    assert_eq!(machine.get32(FECTL), 3 << 30);
    machine.start_queue_again();
    machine.set32(FSTS, IQE);
    assert_eq!(machine.get32(FECTL), 1 << 31);
    // An overflow keeps it from being served.
    (8..17).for_each(refuse);
    assert!((0..8).all(|index| machine.take_record(index).is_some()));
    assert_eq!((machine.get32(FSTS) & 0xff, machine.get32(FECTL)), (PFO, 3 << 30));
    machine.set32(FSTS, PFO);
    assert_eq!(machine.get32(FECTL), 1 << 31);
}

#[test]
fn a_storm_of_faults_costs_two_registers_and_one_message() {
    let (machine, _) = Machine::started();
    machine.set32(FECTL, 0);
    std::thread::scope(|scope| {
        for vdev in [&machine.disk, &machine.net] {
            scope.spawn(|| {
                for page in 0..5000 {
                    assert!(machine.reached(vdev, page << 12, RW).is_err());
                }
            });
        }
    });
    assert_eq!(machine.get32(FSTS), PFO | PPF);
    assert_eq!(machine.messages().len(), 1);
    assert_eq!((0..8).filter_map(|index| machine.take_record(index)).count(), 8);
}
