//! After failures of every kind, the completion, the error log, the health log and the counters
//! agree.

use std::fs::File;

use gasp_nvme::{Backing, Options};

use crate::data::Scratch;
use crate::driver::{Command, Completion, DATA, LISTS, Pair, Rig, until};
use crate::faults::{fail, fail_flushes};
use crate::gate::{BASE, gated};

const FLUSH: u8 = 0;
const WRITE: u8 = 1;
const READ: u8 = 2;
const ZEROES: u8 = 8;
const SHUTDOWN: u32 = 0x46_0001 | 1 << 14;

/// An entry of the error log.
#[derive(PartialEq, Eq, Debug)]
struct Entry {
    count: u64,
    queue: u16,
    command: u16,
    status: u16,
    location: u16,
    block: u64,
    namespace: u32,
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

/// A counter of the health log.
fn health(rig: &mut Rig, at: usize) -> u64 {
    let page = rig.log(2, 0, 512).unwrap();
    assert_eq!(number(&page, at + 8), 0, "16 bytes");
    number(&page, at)
}

fn errors(rig: &mut Rig) -> Vec<Entry> {
    let page = rig.log(1, 0, 4096).unwrap();
    let entries = page.chunks(64).take_while(|entry| number(entry, 0) != 0);
    let word = |entry: &[u8], at| number(entry, at) as u16;
    let entries = entries.map(|entry| {
        assert!(entry[28..].iter().all(|byte| *byte == 0), "reserved, of the vendor, unused");
        Entry {
            count: number(entry, 0),
            queue: word(entry, 8),
            command: word(entry, 10),
            status: word(entry, 12),
            location: word(entry, 14),
            block: number(entry, 16),
            namespace: number(entry, 24) as u32,
        }
    });
    entries.collect()
}

/// Checks that error log, health log and counters agree. Returns the newest error.
fn agreement(rig: &mut Rig) -> Option<Entry> {
    let counters = rig.counters.snapshot();
    let mut entries = errors(rig);
    assert_eq!(entries.len() as u64, counters.errors.min(64));
    let counts = entries.iter().map(|entry| entry.count);
    assert!(counts.eq((1..=counters.errors).rev().take(64)), "the newest is the first");
    let page = rig.log(2, 0, 512).unwrap();
    assert_eq!(number(&page, 32), counters.read_bytes.div_ceil(512_000));
    assert_eq!(number(&page, 48), counters.written_bytes.div_ceil(512_000));
    assert_eq!((number(&page, 64), number(&page, 80)), (counters.reads, counters.writes));
    assert_eq!((number(&page, 112), number(&page, 128)), (counters.power_cycles, 0));
    assert_eq!(number(&page, 144), counters.unsafe_shutdowns);
    assert_eq!((number(&page, 160), number(&page, 176)), (counters.media_errors, counters.errors));
    assert!(page[192..].iter().all(|byte| *byte == 0), "temperatures, reserved");
    (!entries.is_empty()).then(|| entries.remove(0))
}

/// Executes a command that fails, and checks all reports of it: `block` is the first that failed.
fn fails(rig: &mut Rig, pair: &mut Pair, command: Command, status: u16, block: u64) -> Completion {
    let before = rig.counters.snapshot();
    let done = rig.run(pair, command.id(77));
    assert_eq!((done.status, done.id, done.more), (status, 77, true), "{command:?}");
    if pair.id == 0 {
        rig.admin = pair.clone();
    }
    let now = rig.counters.snapshot();
    let media = u64::from(status >> 8 == 2);
    assert_eq!((now.errors, now.media_errors), (before.errors + 1, before.media_errors + media));
    assert_eq!((now.reads, now.writes, now.flushes), (before.reads, before.writes, before.flushes));
    assert_eq!((now.read_bytes, now.written_bytes), (before.read_bytes, before.written_bytes));
    let entry = agreement(rig).unwrap();
    assert_eq!((entry.queue, entry.command, entry.status), (pair.id, 77, done.field));
    assert_eq!((entry.namespace, entry.block), (command.0[1], block), "{command:?}");
    if pair.id == 0 {
        *pair = rig.admin.clone();
    }
    done
}

#[test]
fn all_reports_of_failures_agree_after_each_of_them() {
    let file = Scratch::new("agree", 1 << 20);
    let (mut rig, mut pair, gate) = gated(&Backing::file(&file.0));
    assert_eq!(agreement(&mut rig), None);
    let ok = Command::blocks(READ, 0, 8, (DATA, 0));
    assert_eq!(rig.run(&mut pair, ok).status, 0);
    agreement(&mut rig);
    // Errors of commands, and of memory.
    fails(&mut rig, &mut pair, Command::io(0x7f), 0x01, 0);
    fails(&mut rig, &mut pair, Command::blocks(READ, 5, 1, (DATA, 0)).word(1, 9), 0x0b, 5);
    fails(&mut rig, &mut pair, Command::blocks(READ, 2048, 1, (DATA, 0)), 0x80, 2048);
    fails(&mut rig, &mut pair, Command::blocks(WRITE, 3, 2, (1 << 40, 0)), 0x04, 3);
    fails(&mut rig, &mut pair, Command::blocks(READ, 4, 1, (DATA + 1, 0)), 0x13, 4);
    fails(&mut rig, &mut pair, Command::io(ZEROES).long(10, 2047).word(12, 1), 0x80, 2047);
    fails(&mut rig, &mut pair, Command::io(9).prps((1 << 40, 0)), 0x04, 0);
    // A file that became shorter: blocks 0 to 7 are there.
    File::options().write(true).open(&file.0).unwrap().set_len(4096).unwrap();
    fails(&mut rig, &mut pair, Command::blocks(READ, 6, 4, (DATA, 0)), 0x281, 8);
    fails(&mut rig, &mut pair, Command::blocks(READ, 5, 1, (DATA, 0)).word(1, 9), 0x0b, 5);
    // Errors of admin commands; the byte of the command that is wrong.
    for (command, status, location) in [
        (Command::new(0x7f), 0x01, 0),
        (Command::new(6).word(1, 2).prps((DATA, 0)), 0x0b, 4),
        (Command::new(2).word(10, 0x70).prps((DATA, 0)), 0x109, 40),
        (Command::new(5).word(10, 2).word(11, 1), 0x102, 42),
        (Command::new(9).word(10, 6 | 1 << 31), 0x10d, 43 | 7 << 8),
        (Command::new(5).word(10, 2 | 15 << 16).word(11, 3 | 99 << 16), 0x108, 46),
        (Command::new(0).word(10, 9), 0x101, 0xffff),
        (Command::new(6).word(10, 6).prps((DATA, 0)), 0x02, 0xffff),
    ] {
        let mut admin = rig.admin.clone();
        fails(&mut rig, &mut admin, command, status, 0);
        assert_eq!(errors(&mut rig)[0].location, location, "{command:?}");
    }
    // An aborted event request completes with an error, too.
    let mut admin = rig.admin.clone();
    rig.put(&mut admin, Command::new(0xc).id(200));
    rig.put(&mut admin, Command::new(8).word(10, 200 << 16).id(201));
    rig.ring(&admin);
    let done = [rig.wait(&mut admin), rig.wait(&mut admin)];
    rig.admin = admin;
    let aborted = done.iter().find(|done| done.id == 200).unwrap();
    assert_eq!((aborted.status, aborted.more), (0x07, true));
    let entry = agreement(&mut rig).unwrap();
    assert_eq!((entry.queue, entry.command, entry.status), (0, 200, aborted.field));
    // Invalid doorbell writes, of a queue that exists and of one that does not.
    for (at, value, status) in [(0x1008, 64, 0x02), (0x1028, 1, 0x101), (0x1f00, 1, 0x101)] {
        let before = rig.counters.snapshot().errors;
        rig.write32(at, value);
        until(|| (rig.counters.snapshot().errors > before).then_some(()));
        let entry = agreement(&mut rig).unwrap();
        assert_eq!((entry.queue, entry.command, entry.location), (0xffff, 0xffff, 0xffff));
        assert_eq!((entry.status >> 1 & 0x7ff, entry.block, entry.namespace), (status, 0, 0));
    }
    // Both kinds, found at once: the device's thread is blocked meanwhile.
    let before = rig.counters.snapshot().errors;
    gate.set_closed(true);
    let messages = gate.count();
    rig.put(&mut pair, Command::blocks(READ, 0, 1, (BASE, 0)));
    rig.ring(&pair);
    until(|| (gate.count() > messages).then_some(()));
    rig.write32(0x1f00, 1);
    rig.write32(0x1008, 64);
    gate.set_closed(false);
    until(|| (rig.counters.snapshot().errors == before + 2).then_some(()));
    assert_eq!(rig.wait(&mut pair).status, 0);
    agreement(&mut rig);
    // Commands that succeed change none of it, and the log survives a reset of either kind.
    let before = rig.counters.snapshot().errors;
    assert_eq!(rig.run(&mut pair, ok).status, 0);
    rig.disable();
    rig.enable();
    agreement(&mut rig);
    rig.shell.reset();
    rig.shell.config_write(4, &[6, 0]).unwrap();
    rig.enable();
    let mut pair = rig.make_pair(1, 64);
    assert_eq!(agreement(&mut rig).unwrap().count, before);
    // More errors than the log keeps.
    for _ in 0..70 {
        rig.run(&mut pair, Command::io(0x7f));
    }
    assert_eq!(agreement(&mut rig).unwrap().count, before + 70);
}

#[test]
fn errors_of_the_file_system_become_the_status_that_fits_and_are_counted_once() {
    let file = Scratch::new("errno", 1 << 20);
    let backing = Backing::file(&file.0);
    let (reads, writes) = (libc::SYS_preadv, libc::SYS_pwritev);
    // Block, the call that fails there, its errno; the status, and whether to retry.
    let cases = [
        (16, writes, libc::EIO, 0x280, true),
        (24, writes, libc::ENOSPC, 0x81, false),
        (32, writes, libc::EFBIG, 0x81, false),
        (40, writes, libc::EDQUOT, 0x81, false),
        (48, writes, libc::ENOMEM, 0x06, true),
        (56, writes, libc::EPERM, 0x280, true),
        (64, writes, libc::EFAULT, 0x04, true),
        (16, reads, libc::EIO, 0x281, true),
        (24, reads, libc::ENOMEM, 0x06, true),
        (32, reads, libc::EFAULT, 0x04, true),
    ];
    for (block, call, errno, ..) in cases {
        fail(call, Some(block * 512), errno);
    }
    fail(libc::SYS_fallocate, None, libc::ENOSPC);
    fail_flushes();
    let (mut rig, mut pair) = Rig::started_with(&backing, Options::default());
    for (block, call, errno, status, retry) in cases {
        let opcode = if call == reads { READ } else { WRITE };
        let command = Command::blocks(opcode, block, 8, (DATA, 0));
        let done = fails(&mut rig, &mut pair, command, status, block);
        assert_eq!(done.retry, retry, "errno {errno}");
    }
    // Other blocks are not affected.
    assert_eq!(rig.run(&mut pair, Command::blocks(WRITE, 8, 8, (DATA, 0))).status, 0);
    assert_eq!(rig.run(&mut pair, Command::blocks(READ, 8, 8, (DATA, 0))).status, 0);
    fails(&mut rig, &mut pair, Command::io(FLUSH), 0x280, 0);
    let write = Command::blocks(WRITE, 100, 1, (DATA, 0)).word(12, 1 << 30);
    fails(&mut rig, &mut pair, write, 0x280, 100);
    fails(&mut rig, &mut pair, Command::io(ZEROES).long(10, 200).word(12, 7), 0x81, 200);
    // A write cache that cannot be flushed is not disabled, and the next attempt fails, too.
    let mut admin = rig.admin.clone();
    for _ in 0..2 {
        fails(&mut rig, &mut admin, Command::new(9).word(10, 6), 0x280, 0);
        assert_eq!(rig.feature(10, 6, 0), Ok(1));
        admin = rig.admin.clone();
    }
    let before = rig.counters.snapshot();
    rig.write32(0x14, SHUTDOWN);
    rig.wait_status(0b1111, 0b0111);
    rig.disable();
    rig.enable();
    let entry = agreement(&mut rig).unwrap();
    assert_eq!((entry.queue, entry.status >> 1 & 0x7ff), (0xffff, 0x280));
    assert_eq!(rig.counters.snapshot().media_errors, before.media_errors + 1);
}

#[test]
fn a_read_that_fails_sends_the_guest_nothing() {
    let file = Scratch::new("shorter", 1 << 20);
    let (rig, mut pair, gate) = gated(&Backing::file(&file.0));
    let read = || Command::blocks(READ, 64, 1, (BASE, 0));
    let before = gate.count();
    assert_eq!(rig.run(&mut pair, read()).status, 0);
    assert_eq!(gate.count(), before + 1, "its data, in a message");
    File::options().write(true).open(&file.0).unwrap().set_len(4096).unwrap();
    assert_eq!(rig.run(&mut pair, read()).status, 0x281);
    assert_eq!(gate.count(), before + 1);
}

#[test]
fn without_a_write_cache_everything_that_is_written_is_flushed() {
    let file = Scratch::new("through", 1 << 20);
    let (mut rig, mut pair, gate) = gated(&Backing::file(&file.0));
    // From its next message on, every flush fails on the device's thread.
    gate.set_task(fail_flushes);
    let mut ranges = [0; 16];
    ranges[4] = 1;
    rig.ram.write_at(LISTS, &ranges).unwrap();
    let commands = [
        Command::blocks(WRITE, 0, 1, (DATA, 0)),
        Command::io(ZEROES),
        Command::io(9).prps((LISTS, 0)).word(11, 1 << 2),
    ];
    let mut all = |rig: &Rig| commands.map(|command| rig.run(&mut pair, command).status);
    assert_eq!(rig.feature(9, 6, 0), Ok(0));
    assert_eq!((rig.feature(10, 6, 0), all(&rig)), (Ok(0), [0; 3]));
    let message = Command::new(6).word(10, 1).prps((BASE, 0));
    assert_eq!(rig.administer(message).status, 0);
    assert_eq!(all(&rig), [0x280; 3], "none of them succeeds before it is flushed");
    assert_eq!(rig.feature(9, 6, 1), Ok(0));
    assert_eq!(all(&rig), [0; 3]);
    agreement(&mut rig);
}

#[test]
fn power_that_is_lost_is_counted_unless_a_shutdown_was_complete() {
    let (mut rig, _) = Rig::started();
    let attach = |rig: &mut Rig| {
        rig.guest.vdevs().into_iter().for_each(|vdev| _ = vdev.remove());
        rig.shell.attach(rig.guest.vdev("disk").unwrap(), None, None).unwrap();
        rig.shell.config_write(4, &[6, 0]).unwrap();
    };
    let counted = |rig: &Rig| {
        let now = rig.counters.snapshot();
        (now.power_cycles, now.unsafe_shutdowns)
    };
    assert_eq!(counted(&rig), (1, 0));
    // A reset is no loss of power, and no shutdown.
    rig.shell.reset();
    assert_eq!(counted(&rig), (1, 0));
    rig.shell.detach();
    assert_eq!(counted(&rig), (1, 1));
    // Never started: nothing is lost.
    attach(&mut rig);
    rig.shell.detach();
    assert_eq!(counted(&rig), (2, 1));
    attach(&mut rig);
    rig.enable();
    rig.write32(0x14, SHUTDOWN);
    rig.wait_status(0b1111, 0b1001);
    rig.shell.detach();
    assert_eq!(counted(&rig), (3, 1));
    // Started again after the shutdown.
    attach(&mut rig);
    rig.enable();
    rig.write32(0x14, SHUTDOWN);
    rig.wait_status(0b1111, 0b1001);
    rig.disable();
    rig.enable();
    assert_eq!((health(&mut rig, 112), health(&mut rig, 144)), (4, 1));
    rig.shell.detach();
    assert_eq!(counted(&rig), (4, 2));
}

#[test]
fn a_temperature_threshold_that_is_passed_is_a_warning_and_an_event() {
    let mut rig = Rig::attached(&Backing::null(1 << 20), Options::default());
    rig.enable();
    let mut admin = rig.admin.clone();
    rig.put(&mut admin, Command::new(0xc).id(300));
    rig.ring(&admin);
    rig.admin = admin;
    assert_eq!((rig.feature(9, 0xb, 0b10), rig.feature(9, 4, 294)), (Ok(0), Ok(0)));
    assert_eq!(rig.log(2, 0, 512).unwrap()[..3], [0, 0x25, 1], "293 K");
    let mut admin = rig.admin.clone();
    rig.put(&mut admin, Command::new(9).word(10, 4).word(11, 293).id(301));
    rig.ring(&admin);
    let mut done = [rig.wait(&mut admin), rig.wait(&mut admin)];
    done.sort_by_key(|done| done.id);
    rig.admin = admin;
    assert_eq!((done[0].id, done[0].status, done[0].result), (300, 0, 0x2_0101));
    assert_eq!((done[1].id, done[1].status), (301, 0));
    assert_eq!(rig.log(2, 0, 512).unwrap()[0], 0b10);
    assert_eq!(rig.feature(9, 4, 343), Ok(0));
    assert_eq!(rig.log(2, 0, 512).unwrap()[0], 0);
}
