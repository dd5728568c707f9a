//! The unit's thread: there is none unless a mapping is waited for, and one then. (Alone in its
//! process, whose threads it counts.)
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::*;

fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "vtd").count()
}

#[test]
fn a_unit_has_a_thread_only_while_it_waits_for_a_mapping_and_only_one() {
    let (machine, tables) = Machine::started();
    machine.map(tables, 0x5000, 0x20_0000, R);
    let held = machine.hold(&machine.disk, 0x5000);
    machine.submit(&[iotlb_pages(1, 0x6000, 0)]);
    assert_eq!(threads(), 0);
    let stamp = machine.post(&[iotlb_all()]);
    wait_until("there is one", || threads() == 1);
    for _ in 0..20 {
        machine.unit.reset();
        machine.set64(machine.iva() + 8, 1 << 63 | 1 << 60);
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(threads(), 1);
    assert!(!machine.is_complete(stamp) && !held.is_revoked());
    drop(held);
    wait_until("there is none", || threads() == 0);
    // Nor does it outlive its unit.
    machine.start();
    let held = machine.hold(&machine.disk, 0x5000);
    machine.post(&[iotlb_all()]);
    wait_until("there is one", || threads() == 1);
    drop(machine);
    wait_until("there is none", || threads() == 0);
    assert!(held.is_revoked(), "nobody drains it any more");
}
