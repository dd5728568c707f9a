//! Enabling, disabling, resets, shutdown, detachment, full queues, interrupts.

use std::os::fd::OwnedFd;

use gasp_nvme::{Backing, Options};
use gasp_vdev::IrqKind;
use rustix::event::{EventfdFlags, eventfd};

use crate::driver::{Command, DATA, LISTS, Noise, Rig, until};

const SHUTDOWN: u32 = 1 << 14;

fn null() -> Rig {
    Rig::attached(&Backing::null(64 << 20), Options::default())
}

#[test]
fn registers_report_capabilities_and_a_bad_configuration_is_fatal_until_it_is_withdrawn() {
    let mut rig = null();
    let capabilities = rig.read64(0);
    assert_eq!(capabilities & 0xffff, 1023);
    assert_eq!(capabilities >> 16 & 1, 1, "contiguous queues");
    assert_eq!((capabilities >> 32 & 0xf, capabilities >> 37 & 1), (0, 1));
    assert_eq!((rig.read32(8), rig.read32(0x1c)), (0x1_0400, 0));
    for bad in [0x46_0001 | 5 << 7, 0x46_0001 | 1 << 4, 0x46_0001] {
        // The last: admin queues of one entry.
        rig.write32(0x14, bad);
        rig.wait_status(0b11, 0b10);
        rig.write32(0x14, 0);
        rig.wait_status(0b11, 0);
    }
    assert_eq!(rig.counters.snapshot().stops, 3);
    rig.enable();
    assert_eq!(rig.counters.snapshot().starts, 1);
}

#[test]
fn larger_memory_pages_work() {
    let mut rig = Rig::attached(&Backing::memory(64 << 20), Options::default());
    rig.enable();
    rig.disable();
    rig.write32(0x14, 0x46_0001 | 4 << 7);
    rig.wait_status(0b11, 1);
    rig.admin = crate::driver::Pair::new(0, 32);
    rig.ram.write_at(rig.admin.completions, &[0; 512]).unwrap();
    let mut pair = rig.make_pair(1, 16);
    let data = Noise(3).bytes(128 << 10);
    rig.ram.write_at(DATA, &data).unwrap();
    // One page of 64 KiB and another.
    let write = Command::blocks(1, 0, 256, (DATA, DATA + 0x1_0000));
    assert_eq!(rig.run(&mut pair, write).status, 0);
    let read = Command::blocks(2, 0, 256, (DATA + 0x2_0000, DATA + 0x3_0000));
    assert_eq!(rig.run(&mut pair, read).status, 0);
    assert!(rig.bytes(DATA + 0x2_0000, 128 << 10) == data);
    let read = Command::blocks(2, 0, 256, (DATA, DATA + 0x1000));
    assert_eq!(rig.run(&mut pair, read).status, 0x13, "not a page of 64 KiB");
}

#[test]
fn queues_wrap_and_turn_their_phase_and_a_full_one_holds_commands_back() {
    let mut rig = null();
    rig.enable();
    let mut pair = rig.make_pair(2, 4);
    let mut id = 0;
    for _ in 0..50 {
        // A queue of four holds three.
        for at in 0..3 {
            rig.put(&mut pair, Command::io(0).id(id + at));
        }
        rig.ring(&pair);
        let ids: Vec<u16> = (0..3).map(|_| until(|| rig.take(&mut pair)).id).collect();
        assert_eq!(ids, [id, id + 1, id + 2]);
        // Their completions are still in the queue: the next command has to wait.
        rig.put(&mut pair, Command::io(0).id(id + 3));
        rig.ring(&pair);
        assert_eq!(rig.administer(Command::new(10).word(10, 7)).status, 0);
        assert_eq!(rig.take(&mut pair), None);
        rig.ring_head(&pair);
        let done = rig.wait(&mut pair);
        assert_eq!((done.id, u32::from(done.head)), (id + 3, pair.tail));
        id += 4;
    }
}

#[test]
fn a_reset_in_the_middle_ends_all_access_and_the_controller_starts_again() {
    let (mut rig, _) = Rig::started();
    let mut noise = Noise(4);
    for round in 0..200 {
        rig.disable();
        rig.enable();
        let mut pair = rig.make_pair(1, 64);
        let len = 512 << 10;
        let prps = rig.prps(DATA, len, LISTS);
        for _ in 0..40 {
            rig.put(&mut pair, Command::blocks(2, noise.below(1024), 1024, prps));
        }
        rig.ring(&pair);
        (0..noise.below(2000)).for_each(|_| core::hint::spin_loop());
        match round % 3 {
            0 => rig.disable(),
            1 => rig.shell.reset(),
            _ => {
                rig.shell.detach();
                rig.guest.vdevs().into_iter().for_each(|vdev| _ = vdev.remove());
                rig.shell.attach(rig.guest.vdev("disk").unwrap(), None, None).unwrap();
            }
        }
        rig.shell.config_write(4, &[6, 0]).unwrap();
        assert_eq!(rig.read32(0x1c), 0);
        // The device no longer writes to memory.
        rig.ram.write_at(DATA, &vec![0xee; len as usize]).unwrap();
        std::thread::yield_now();
        assert!(rig.bytes(DATA, len).iter().all(|byte| *byte == 0xee), "round {round}");
        rig.enable();
    }
}

#[test]
fn a_reset_that_the_guest_does_not_wait_for_is_one_nevertheless() {
    let mut rig = null();
    rig.enable();
    rig.make_pair(1, 8);
    rig.write32(0x14, 0x46_0000);
    rig.write32(0x14, 0x46_0001);
    until(|| (rig.counters.snapshot().starts == 2).then_some(()));
    rig.wait_status(0b11, 1);
    rig.admin = crate::driver::Pair::new(0, 32);
    rig.ram.write_at(rig.admin.completions, &[0; 512]).unwrap();
    rig.make_pair(1, 8);
}

#[test]
fn data_outlasts_reset_shutdown_and_another_guest() {
    let (mut rig, mut pair) = Rig::started();
    rig.ram.write_at(DATA, b"a sector").unwrap();
    assert_eq!(rig.run(&mut pair, Command::blocks(1, 5, 1, (DATA, 0))).status, 0);
    rig.write32(0x14, 0x46_0001 | SHUTDOWN);
    rig.wait_status(0b1111, 0b1001);
    rig.put(&mut pair, Command::io(0));
    rig.ring(&pair);
    rig.disable();
    assert_eq!(rig.read32(0x1c), 0);
    assert_eq!(rig.take(&mut pair), None, "no command is fetched after the shutdown");
    rig.enable();
    assert_eq!(rig.read32(0x1c), 1);
    rig.shell.detach();
    // Shutdown of a disabled controller.
    let guest = gasp::Guest::builder().build().unwrap();
    rig.ram = crate::driver::ram();
    guest.space().add_ram(None, &rig.ram).unwrap();
    rig.guest = guest;
    rig.shell.attach(rig.guest.vdev("disk").unwrap(), None, None).unwrap();
    rig.shell.config_write(4, &[6, 0]).unwrap();
    rig.write32(0x14, SHUTDOWN);
    rig.wait_status(0b1111, 0b1000);
    rig.write32(0x14, 0);
    rig.enable();
    let mut pair = rig.make_pair(1, 8);
    assert_eq!(rig.run(&mut pair, Command::blocks(2, 5, 1, (DATA, 0))).status, 0);
    assert_eq!(rig.bytes(DATA, 8), b"a sector");
}

#[test]
fn without_bus_mastering_the_controller_fails_and_recovers() {
    let mut rig = null();
    rig.enable();
    rig.shell.config_write(4, &[2, 0]).unwrap();
    let mut admin = rig.admin.clone();
    rig.put(&mut admin, Command::new(10).word(10, 7));
    rig.ring(&admin);
    rig.wait_status(0b11, 0b11);
    rig.shell.config_write(4, &[6, 0]).unwrap();
    rig.disable();
    rig.enable();
    rig.make_pair(1, 8);
}

fn event() -> (OwnedFd, OwnedFd) {
    let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    (event.try_clone().unwrap(), event)
}

fn count(event: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    rustix::io::read(event, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
}

#[test]
fn a_batch_has_one_interrupt_at_its_queues_vector() {
    let (rig, mut pair) = Rig::started();
    let (given, admin) = event();
    let (first, second) = event();
    rig.shell.interrupts().assign(IrqKind::Msix, 0, vec![Some(given), Some(first)]).unwrap();
    let mut interrupts = 0;
    for _ in 0..10 {
        (0..20).for_each(|id| rig.put(&mut pair, Command::io(0).id(id)));
        rig.ring(&pair);
        (0..20).for_each(|id| assert_eq!(rig.wait(&mut pair).id, id));
        interrupts += until(|| Some(count(&second)).filter(|count| *count > 0));
    }
    assert!(interrupts <= 20, "{interrupts} interrupts for 10 batches");
    assert_eq!(count(&admin), 0);
}

#[test]
fn the_pin_is_up_while_there_are_completions_to_take() {
    let (rig, mut pair) = Rig::started();
    let (given, pin) = event();
    let irqs = rig.shell.interrupts();
    irqs.assign(IrqKind::Pin, 0, vec![Some(given)]).unwrap();
    let mut status = [0; 2];
    let mut is_raised = || {
        rig.shell.config_read(6, &mut status).unwrap();
        status[0] & 1 << 3 != 0
    };
    rig.put(&mut pair, Command::io(0));
    rig.ring(&pair);
    until(|| rig.take(&mut pair));
    until(|| is_raised().then_some(()));
    assert_eq!(until(|| Some(count(&pin)).filter(|count| *count > 0)), 1);
    // Masking lowers it; unmasking raises it again.
    rig.write32(0xc, 0b10);
    until(|| (!is_raised()).then_some(()));
    rig.write32(0x10, 0b10);
    until(|| is_raised().then_some(()));
    rig.ring_head(&pair);
    until(|| (!is_raised()).then_some(()));
}
