//! Each transition of CC and CSTS (NVMe 1.4, 3.1.5, 3.1.6, 7.6.2): in order, out of order, and
//! while a command is in progress.

use std::fs::File;
use std::time::Duration;

use gasp::DeviceAddr;
use gasp_nvme::{Backing, Options};

use crate::data::Scratch;
use crate::driver::{Command, DATA, Noise, Pair, Rig, until};
use crate::faults::fail_flushes;
use crate::gate::{BASE, Gate, gated};

/// CC: enabled or not, with the sizes of queue entries; kinds of shutdown.
const ON: u32 = 0x46_0001;
const OFF: u32 = 0x46_0000;
const NORMAL: u32 = 0b01 << 14;
const ABRUPT: u32 = 0b10 << 14;
const RESERVED: u32 = 0b11 << 14;
/// CSTS.
const READY: u32 = 1;
const FATAL: u32 = 0b10;
const SHUTTING_DOWN: u32 = 0b01 << 2;
const SHUT_DOWN: u32 = 0b10 << 2;
/// Long enough to notice what happens too early.
const A_WHILE: Duration = Duration::from_millis(30);

const WRITE: u8 = 1;
const READ: u8 = 2;

/// Starts a command that stays in progress until the gate is opened, followed by others that write
/// blocks 1 to 8.
fn stall(rig: &Rig, pair: &mut Pair, gate: &Gate, command: Command) {
    gate.set_closed(true);
    let before = gate.count();
    rig.put(pair, command.id(0));
    for id in 1..9 {
        rig.put(pair, Command::blocks(WRITE, id.into(), 1, (DATA, 0)).id(id));
    }
    rig.ring(pair);
    until(|| (gate.count() > before).then_some(()));
}

fn gate_write() -> Command {
    Command::blocks(WRITE, 0, 1, (BASE, 0))
}

/// How many commands have succeeded; checks that they completed in order.
fn ended(rig: &Rig, pair: &mut Pair) -> u16 {
    let ids = core::iter::from_fn(|| rig.take(pair));
    let mut count = 0;
    for done in ids {
        assert_eq!((done.status, done.id), (0, count));
        count += 1;
    }
    rig.ring_head(pair);
    count
}

impl Rig {
    fn status(&self) -> u32 {
        self.read32(0x1c)
    }

    fn configure(&self, value: u32) {
        self.write32(0x14, value);
    }

    /// Waits until CSTS is `status`, and checks that it stays so.
    fn settles(&self, status: u32) {
        self.wait_status(u32::MAX, status);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(self.status(), status);
    }

    /// Checks that the controller executes commands.
    fn works(&mut self) {
        let mut pair = self.make_pair(2, 8);
        let done = self.run(&mut pair, Command::blocks(READ, 0, 1, (DATA, 0)));
        assert_eq!((done.status, self.status()), (0, READY));
    }
}

fn null() -> Rig {
    Rig::attached(&Backing::null(64 << 20), Options::default())
}

#[test]
fn a_normal_shutdown_is_complete_only_after_all_commands_before_it_are_done_and_in_the_file() {
    let file = Scratch::new("shutdown", 1 << 20);
    let (mut rig, mut pair, gate) = gated(&Backing::file(&file.0));
    let data = Noise(11).bytes(512);
    rig.ram.write_at(DATA, &data).unwrap();
    // An event request waits for ever; the shutdown does not wait for it.
    let mut admin = rig.admin.clone();
    rig.put(&mut admin, Command::new(0xc).id(300));
    rig.ring(&admin);
    rig.admin = admin;
    stall(&rig, &mut pair, &gate, gate_write());
    // More commands than one turn of a queue executes.
    (9..60).for_each(|id| rig.put(&mut pair, Command::io(0).id(id)));
    rig.ring(&pair);
    rig.configure(ON | NORMAL);
    assert_eq!(rig.status(), READY | SHUTTING_DOWN, "at once");
    std::thread::sleep(A_WHILE);
    assert_eq!(rig.status(), READY | SHUTTING_DOWN, "while a command is in progress");
    assert_eq!(ended(&rig, &mut pair), 0);
    gate.set_closed(false);
    rig.settles(READY | SHUT_DOWN);
    assert_eq!(ended(&rig, &mut pair), 60);
    let stored = std::fs::read(&file.0).unwrap();
    assert_eq!(stored[..512], [0x47; 512]);
    assert!((1..9).all(|block| stored[block * 512..][..512] == data));
    // Doorbells after the shutdown have no effect, in the admin queue, too.
    rig.put(&mut pair, Command::io(0));
    rig.ring(&pair);
    let (mut admin, done) = (rig.admin.clone(), rig.counters.snapshot());
    rig.put(&mut admin, Command::new(10).word(10, 7));
    rig.ring(&admin);
    rig.write32(0x1000 + 8 * 5, 1);
    std::thread::sleep(A_WHILE);
    assert_eq!((rig.take(&mut pair), rig.take(&mut admin)), (None, None));
    assert_eq!(rig.counters.snapshot(), done);
    // An error is still recorded, but no longer an event.
    rig.write32(0x1000 + 12, 63);
    until(|| (rig.counters.snapshot().errors == 1).then_some(()));
    std::thread::sleep(A_WHILE);
    assert_eq!(rig.take(&mut admin), None);
    rig.configure(ON);
    rig.settles(READY | SHUT_DOWN);
    rig.disable();
    rig.settles(0);
    rig.enable();
    rig.works();
}

#[test]
fn an_abrupt_shutdown_drops_what_has_not_begun_and_can_overtake_a_normal_one() {
    for first in [ABRUPT, NORMAL] {
        let (mut rig, mut pair, gate) = gated(&Backing::memory(1 << 20));
        gate.set_closed(true);
        (0..2).for_each(|id| rig.put(&mut pair, gate_write().id(id)));
        (2..9).for_each(|id| rig.put(&mut pair, Command::io(0).id(id)));
        rig.ring(&pair);
        until(|| (gate.count() == 1).then_some(()));
        rig.configure(ON | first);
        if first == NORMAL {
            // The second command is in progress, as part of the normal shutdown.
            gate.let_one_pass();
            until(|| (gate.count() == 2).then_some(()));
            rig.configure(ON | ABRUPT);
        }
        std::thread::sleep(A_WHILE);
        assert_eq!(rig.status(), READY | SHUTTING_DOWN, "a command is in progress");
        gate.set_closed(false);
        rig.settles(READY | SHUT_DOWN);
        let count = if first == NORMAL { 2 } else { 1 };
        assert_eq!(ended(&rig, &mut pair), count);
        let counters = rig.counters.snapshot();
        assert_eq!((counters.writes, counters.flushes), (count.into(), 0));
        rig.disable();
        rig.enable();
        rig.works();
    }
}

#[test]
fn a_shutdown_that_is_requested_and_withdrawn_is_completed() {
    let (rig, mut pair, gate) = gated(&Backing::memory(1 << 20));
    stall(&rig, &mut pair, &gate, gate_write());
    rig.configure(ON | NORMAL);
    rig.configure(ON);
    gate.set_closed(false);
    rig.settles(READY | SHUT_DOWN);
    assert_eq!(ended(&rig, &mut pair), 9);
}

#[test]
fn an_abort_before_a_shutdown_ends_what_it_aborts() {
    let (mut rig, _, gate) = gated(&Backing::null(1 << 20));
    let mut admin = rig.admin.clone();
    gate.set_closed(true);
    let before = gate.count();
    // Identify, whose data goes through the gate.
    rig.put(&mut admin, Command::new(6).word(10, 1).prps((BASE, 0)).id(1));
    rig.put(&mut admin, Command::new(0xc).id(2));
    rig.put(&mut admin, Command::new(8).word(10, 2 << 16).id(3));
    rig.ring(&admin);
    until(|| (gate.count() > before).then_some(()));
    rig.configure(ON | NORMAL);
    gate.set_closed(false);
    rig.settles(READY | SHUT_DOWN);
    let done: Vec<_> = core::iter::from_fn(|| rig.take(&mut admin)).collect();
    let done: Vec<_> = done.iter().map(|done| (done.id, done.status, done.result)).collect();
    assert_eq!(done, [(1, 0, 0), (3, 0, 0), (2, 7, 0)]);
    rig.admin = admin;
}

#[test]
fn a_full_completion_queue_does_not_hold_up_a_shutdown() {
    let mut rig = null();
    rig.enable();
    let mut pair = rig.make_pair(1, 4);
    for _ in 0..2 {
        (0..3).for_each(|id| rig.put(&mut pair, Command::io(0).id(id)));
        rig.ring(&pair);
        until(|| (rig.counters.snapshot().flushes == 3).then_some(()));
    }
    rig.configure(ON | NORMAL);
    rig.settles(READY | SHUT_DOWN);
    assert_eq!(ended(&rig, &mut pair), 3);
    std::thread::sleep(A_WHILE);
    assert_eq!(rig.take(&mut pair), None, "void, although there is room now");
}

#[test]
fn a_queue_that_is_lost_does_not_hold_up_a_shutdown_either() {
    let (mut rig, mut pair, gate) = gated(&Backing::memory(1 << 20));
    let lost = rig.make_pair(2, 8);
    stall(&rig, &mut pair, &gate, gate_write());
    rig.ring(&Pair { tail: 1, ..lost.clone() });
    let domain = rig.guest.vdevs().into_iter().next().and_then(|vdev| vdev.domain()).unwrap();
    let revoked = domain.revoke(DeviceAddr(lost.submissions), 4096).unwrap();
    assert!(revoked.wait().completed());
    rig.configure(ON | NORMAL);
    gate.set_closed(false);
    rig.settles(READY | FATAL | SHUT_DOWN);
    rig.disable();
    rig.settles(0);
}

#[test]
fn a_reset_is_reported_only_after_the_command_in_progress_and_nothing_is_moved_after_it() {
    let (mut rig, mut pair, gate) = gated(&Backing::memory(1 << 20));
    for again in [false, true] {
        let starts = rig.counters.snapshot().starts;
        stall(&rig, &mut pair, &gate, Command::blocks(READ, 0, 1, (BASE, 0)));
        rig.configure(OFF);
        if again {
            rig.configure(ON);
        }
        std::thread::sleep(A_WHILE);
        assert_eq!((rig.status(), rig.counters.snapshot().starts), (READY, starts));
        gate.set_closed(false);
        if again {
            // That it was disabled for a moment does not show.
            until(|| (rig.counters.snapshot().starts > starts).then_some(()));
            rig.settles(READY);
        } else {
            rig.settles(0);
        }
        let messages = gate.count();
        rig.ring(&pair);
        std::thread::sleep(A_WHILE);
        assert!(ended(&rig, &mut pair) <= 1, "only the command that was in progress");
        assert_eq!((gate.count(), rig.counters.snapshot().writes), (messages, 0));
        rig.disable();
        rig.enable();
        rig.works();
        pair = rig.make_pair(1, 64);
    }
}

#[test]
fn a_reset_ends_a_command_of_many_steps() {
    let (mut rig, mut pair, gate) = gated(&Backing::memory(1 << 20));
    rig.ram.write_at(DATA, &[0x11; 512]).unwrap();
    assert_eq!(rig.run(&mut pair, Command::blocks(WRITE, 0, 1, (DATA, 0))).status, 0);
    // Deallocates block 0.
    gate.put(&(1_u128 << 32).to_le_bytes());
    let manage = Command::io(9).prps((BASE, 0)).word(11, 1 << 2);
    stall(&rig, &mut pair, &gate, manage);
    rig.configure(OFF);
    gate.set_closed(false);
    rig.settles(0);
    rig.enable();
    let mut pair = rig.make_pair(1, 8);
    assert_eq!(rig.run(&mut pair, Command::blocks(READ, 0, 1, (DATA + 4096, 0))).status, 0);
    assert_eq!(rig.bytes(DATA + 4096, 512), [0x11; 512]);
    assert_eq!(rig.counters.snapshot().zeroes, 0);
}

#[test]
fn a_reset_ends_a_shutdown_unless_the_same_write_asks_for_one() {
    let (mut rig, mut pair, gate) = gated(&Backing::memory(1 << 20));
    for (then, at_once, at_last) in [
        (OFF, READY, 0),
        // The field unchanged is no new request.
        (OFF | NORMAL, READY, 0),
        (OFF | ABRUPT, READY | SHUTTING_DOWN, SHUT_DOWN),
    ] {
        stall(&rig, &mut pair, &gate, gate_write());
        rig.configure(ON | NORMAL);
        assert_eq!(rig.status(), READY | SHUTTING_DOWN);
        rig.configure(then);
        assert_eq!(rig.status(), at_once);
        gate.set_closed(false);
        rig.settles(at_last);
        rig.configure(OFF);
        rig.enable();
        rig.works();
        pair = rig.make_pair(1, 64);
    }
}

#[test]
fn a_shutdown_can_begin_in_every_state_and_a_start_leads_out_of_it() {
    let mut rig = null();
    // Off.
    for kind in [NORMAL, ABRUPT] {
        rig.configure(OFF | kind);
        rig.settles(SHUT_DOWN);
        // Taking the request back changes nothing, and a start does not need a reset.
        rig.configure(OFF);
        rig.settles(SHUT_DOWN);
        rig.enable();
        rig.settles(READY);
        rig.works();
        // After a start a shutdown is carried out again: see the test of flushes.
        rig.configure(ON | kind);
        rig.settles(READY | SHUT_DOWN);
        // A driver that leaves the field unchanged.
        rig.configure(OFF | kind);
        rig.settles(0);
        rig.admin = Pair::new(0, 32);
        rig.ram.write_at(rig.admin.completions, &[0; 512]).unwrap();
        rig.configure(ON | kind);
        rig.settles(READY);
        rig.works();
        rig.disable();
    }
    // Enabled in the same write; disabled in the same write.
    rig.configure(ON | NORMAL);
    rig.settles(READY | SHUT_DOWN);
    rig.disable();
    rig.enable();
    rig.configure(OFF | NORMAL);
    rig.settles(SHUT_DOWN);
    // Failed: a command set that is not supported.
    rig.configure(OFF);
    rig.configure(ON | 1 << 4);
    rig.settles(FATAL | SHUT_DOWN);
    rig.configure(OFF);
    rig.settles(0);
    rig.configure(ON | 1 << 4);
    rig.settles(FATAL);
    rig.configure(ON | 1 << 4 | ABRUPT);
    rig.settles(FATAL | SHUT_DOWN);
    rig.configure(OFF);
    rig.settles(0);
    // Reserved.
    rig.enable();
    rig.configure(ON | RESERVED);
    rig.settles(READY);
    rig.works();
    rig.shell.reset();
    assert_eq!((rig.status(), rig.read32(0x14)), (0, 0));
}

#[test]
fn a_shutdown_whose_flush_fails_is_never_reported_as_complete() {
    let file = Scratch::new("no-flush", 1 << 20);
    let backing = Backing::file(&file.0);
    fail_flushes();
    let mut rig = Rig::attached(&backing, Options::default());
    let mut errors = 0;
    let mut fails = |rig: &Rig, value, status| {
        rig.configure(value);
        rig.settles(status);
        errors += 1;
        assert_eq!(rig.counters.snapshot().errors, errors);
        // Requesting it again changes nothing.
        rig.configure(value & ON);
        rig.configure(value ^ RESERVED);
        rig.settles(status);
    };
    for kind in [NORMAL, ABRUPT] {
        fails(&rig, OFF | kind, FATAL | SHUTTING_DOWN);
        // A start ends the shutdown; the next one flushes again, and fails again.
        rig.configure(OFF);
        rig.enable();
        rig.settles(READY);
        rig.works();
        fails(&rig, ON | kind, READY | FATAL | SHUTTING_DOWN);
        rig.disable();
        rig.settles(0);
    }
}

#[test]
fn registers_are_written_by_dwords_and_only_where_and_when_they_can_be() {
    let mut rig = null();
    rig.enable();
    let before: Vec<u32> = (0..0x40).step_by(4).map(|at| rig.read32(at)).collect();
    // Writes of one and two bytes: a byte of CC could disable it.
    for at in 0..0x38 {
        rig.shell.bar_write(0, at, &[0]).unwrap();
        rig.shell.bar_write(0, at, &[0xff]).unwrap();
    }
    (0..0x38).step_by(2).for_each(|at| rig.shell.bar_write(0, at, &[0, 0]).unwrap());
    // Read-only, reserved, or writable only while disabled: CAP, VS, 18h, CSTS, NSSR, AQA, ASQ,
    // ACQ.
    for at in [0, 4, 8, 0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34, 0x38, 0x3c, 0x40, 0xfc] {
        rig.write32(at, u32::MAX);
        rig.write32(at, 0x4e56_4d65);
    }
    // The page size, the command set and the arbitration stay while it is enabled.
    rig.configure(ON | 0x3ff << 4 | 0xff00_000e);
    assert_eq!(rig.read32(0x14), ON);
    let after: Vec<u32> = (0..0x40).step_by(4).map(|at| rig.read32(at)).collect();
    assert_eq!(before, after);
    rig.works();
    rig.disable();
    rig.write64(0x28, u64::MAX);
    rig.write32(0x24, u32::MAX);
    assert_eq!((rig.read64(0x28), rig.read32(0x24)), (!0xfff, 0x0fff_0fff));
    // Larger pages than CAP offers, another command set, another arbitration; queues of one entry,
    // or not page-aligned.
    for (value, attributes, base) in [
        (5 << 7, 0x1f_001f, 0),
        (15 << 7, 0x1f_001f, 0),
        (1 << 4, 0x1f_001f, 0),
        (0b110 << 4, 0x1f_001f, 0),
        (1 << 11, 0x1f_001f, 0),
        (0b111 << 11, 0x1f_001f, 0),
        (0, 0x1f_0000, 0),
        (0, 0x1f, 0),
        (1 << 7, 0x1f_001f, 0x1000),
        (0, 0xfff_0fff, !0xfff),
    ] {
        rig.write32(0x24, attributes);
        rig.write64(0x28, base);
        rig.write64(0x30, base);
        rig.configure(ON | value);
        rig.settles(FATAL);
        rig.configure(OFF);
        rig.settles(0);
    }
    rig.enable();
    rig.works();
}

#[test]
fn doorbells_before_the_start_are_void() {
    let mut rig = null();
    for at in [0x1000, 0x1004, 0x1008, 0x1f00] {
        rig.write32(at, 1);
    }
    rig.enable();
    for at in [0x1000, 0x1004] {
        rig.disable();
        rig.write32(at, 1);
        rig.enable();
    }
    std::thread::sleep(A_WHILE);
    assert_eq!(rig.counters.snapshot().admin, 0);
    rig.settles(READY);
    rig.works();
}

#[test]
fn a_file_is_flushed_before_a_shutdown_is_complete_and_can_be_served_again() {
    let file = Scratch::new("again", 1 << 20);
    let (rig, mut pair) = Rig::started_with(&Backing::file(&file.0), Options::default());
    rig.ram.write_at(DATA, &[0x22; 512]).unwrap();
    assert_eq!(rig.run(&mut pair, Command::blocks(WRITE, 7, 1, (DATA, 0))).status, 0);
    rig.configure(ON | NORMAL);
    rig.settles(READY | SHUT_DOWN);
    drop(rig);
    File::open(&file.0).unwrap();
    let (rig, mut pair) = Rig::started_with(&Backing::file(&file.0), Options::default());
    assert_eq!(rig.run(&mut pair, Command::blocks(READ, 7, 1, (DATA, 0))).status, 0);
    assert_eq!(rig.bytes(DATA, 512), [0x22; 512]);
}
