//! The unit's thread: it is there from the beginning, so that a guest that waits does not depend on
//! whether a thread can be created. (One test, alone in its process, whose threads it counts and whose
//! limits it lowers.)
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use gasp_vtd::Unit;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::*;

fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "vtd").count()
}

/// Calls `what` while the process cannot have the address space of a further stack.
fn without_further_threads(what: impl FnOnce()) {
    let before = getrlimit(Resource::As);
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let current = Some(pages * rustix::param::page_size() as u64 + (512 << 10));
    setrlimit(Resource::As, Rlimit { current, ..before }).unwrap();
    let refused = std::thread::Builder::new().spawn(|| ()).is_err();
    what();
    setrlimit(Resource::As, before).unwrap();
    assert!(refused, "the limit has no effect, so that nothing was tested");
}

#[test]
fn a_unit_has_one_thread_which_completes_what_waits_though_no_further_one_can_be_created() {
    let (machine, tables) = Machine::started();
    wait_until("there is one", || threads() == 1);
    machine.map(tables, 0x5000, 0x20_0000, R);
    let held = machine.hold(&machine.disk, 0x5000);
    let mut stamp = 0;
    without_further_threads(|| {
        assert!(Unit::new(&machine.guest, |_| ()).is_err(), "a unit without a thread");
        stamp = machine.post(&[iotlb_all()]);
    });
    assert!(!machine.is_complete(stamp) && !held.is_revoked());
    drop(held);
    // Nobody accesses a register: a guest that waits reads its memory alone.
    wait_until("the wait descriptor completes", || machine.is_complete(stamp));
    // The thread has gone to sleep, and is woken again.
    for _ in 0..20 {
        let held = machine.hold(&machine.disk, 0x5000);
        let stamp = machine.post(&[iotlb_all()]);
        assert!(!machine.is_complete(stamp));
        drop(held);
        wait_until("the next one completes", || machine.is_complete(stamp));
    }
    assert_eq!(threads(), 1);
    // Nor does it outlive its unit.
    let held = machine.hold(&machine.disk, 0x5000);
    machine.post(&[iotlb_all()]);
    drop(machine);
    wait_until("there is none", || threads() == 0);
    assert!(held.is_revoked(), "nobody drains it any more");
    drop(Machine::new());
    wait_until("there is none, and none has worked", || threads() == 0);
}
