//! Shadow doorbells: fewer register writes, and no command that is overlooked.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gasp::{Access, DeviceAddr, DomainKind, DomainOptions, Guest, GuestPhys, Unattached};
use gasp_nvme::{Backing, Options};
use gasp_vdev::{IrqKind, Register, WriteEvents};
use rustix::event::{EventfdFlags, eventfd};

use crate::driver::{Command, DATA, Noise, Pair, Rig, until};

/// The pages of the shadow doorbells and of the event indices.
const SHADOW: u64 = 0x8_0000;
const EVENTS: u64 = 0x8_1000;
const CONFIG: u8 = 0x7c;
const READ: u8 = 2;

/// Register writes that a front end has turned into events.
#[derive(Default)]
struct Connected(Mutex<BTreeMap<u64, OwnedFd>>);

impl WriteEvents for Connected {
    fn connect(&self, at: Register, value: Option<u64>, event: BorrowedFd<'_>) -> bool {
        assert_eq!((at.bar, value), (0, None));
        self.0.lock().unwrap().insert(at.offset, event.try_clone_to_owned().unwrap());
        true
    }

    fn disconnect(&self, at: Register, _: Option<u64>) {
        self.0.lock().unwrap().remove(&at.offset);
    }

    fn disconnect_all(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// A driver that uses shadow doorbells.
struct Shadowed {
    rig: Rig,
    events: Option<Arc<Connected>>,
    writes: AtomicU32,
    /// The shadow doorbells that were written.
    used: Mutex<BTreeSet<u64>>,
}

impl Shadowed {
    /// A controller that is enabled, with events in place of register writes if `events`.
    fn new(events: bool) -> Self {
        let guest = Guest::builder().build().unwrap();
        let mut rig = Rig::of(guest, &Backing::memory(64 << 20), Options::default());
        let events = events.then(Arc::<Connected>::default);
        let offered = events.clone().map(|events| events as Arc<dyn WriteEvents>);
        rig.shell.attach(rig.guest.vdev("disk").unwrap(), None, offered).unwrap();
        rig.shell.config_write(4, &[6, 0]).unwrap();
        // The pin would have to follow every completion.
        let interrupts = rig.shell.interrupts();
        let vectors = (0..3).map(|_| Some(eventfd(0, EventfdFlags::empty()).unwrap())).collect();
        interrupts.assign(IrqKind::Msix, 0, vectors).unwrap();
        rig.enable();
        Self { rig, events, writes: AtomicU32::new(0), used: Mutex::default() }
    }

    fn config(&mut self) -> u16 {
        self.rig.administer(Command::new(CONFIG).prps((SHADOW, EVENTS))).status
    }

    fn word(&self, at: u64) -> u32 {
        u32::from_le_bytes(*self.rig.bytes(at, 4).first_chunk().unwrap())
    }

    fn event(&self, pair: &Pair, side: u64) -> u32 {
        self.word(EVENTS + 8 * u64::from(pair.id) + 4 * side)
    }

    /// Writes a shadow doorbell, and the register if the controller has asked for that. The value in
    /// the register is right the first time alone: after that it is to be ignored.
    fn ring(&self, pair: &Pair, side: u64, old: u32, new: u32) {
        let offset = 8 * u64::from(pair.id) + 4 * side;
        self.rig.ram.write_at(SHADOW + offset, &new.to_le_bytes()).unwrap();
        fence(Ordering::SeqCst);
        let event = self.event(pair, side);
        let passed =
            (new.wrapping_sub(event).wrapping_sub(1) as u16) < new.wrapping_sub(old) as u16;
        if passed {
            let value = if self.used.lock().unwrap().insert(offset) { new } else { 0xffff };
            self.write_register(0x1000 + offset, value);
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let connected = self.events.as_ref().map(|events| events.0.lock().unwrap());
        match connected.as_ref().and_then(|connected| connected.get(&offset)) {
            Some(event) => {
                rustix::io::write(event, &1_u64.to_ne_bytes()).unwrap();
            }
            None => self.rig.write32(offset, value),
        }
    }

    /// Submits commands together, and waits for their completions.
    fn run(&self, pair: &mut Pair, commands: &[Command]) {
        let old = pair.tail;
        commands.iter().for_each(|command| self.rig.put(pair, *command));
        self.ring(pair, 0, old, pair.tail);
        for _ in commands {
            let old = pair.head;
            let completion = until(|| self.rig.take(pair));
            assert_eq!(completion.status, 0);
            self.ring(pair, 1, old, pair.head);
        }
    }
}

fn read(block: u64) -> Command {
    Command::blocks(READ, block, 1, (DATA, 0))
}

#[test]
fn commands_of_shadow_doorbells_are_executed_and_registers_written_if_asked_for_alone() {
    for events in [false, true] {
        let mut driver = Shadowed::new(events);
        let mut identity = [0; 2];
        let identify = Command::new(6).prps((DATA, 0)).word(10, 1);
        assert_eq!(driver.rig.administer(identify).status, 0);
        driver.rig.ram.read_at(DATA + 256, &mut identity).unwrap();
        assert_eq!(u16::from_le_bytes(identity) & 1 << 8, 1 << 8, "OACS says so");
        // A pair of before, and one of after.
        let mut first = driver.rig.make_pair(1, 16);
        assert_eq!(driver.config(), 0);
        let mut second = driver.rig.make_pair(2, 16);
        for round in 0..200 {
            let commands: Vec<_> = (0..1 + round % 7).map(read).collect();
            driver.run(&mut first, &commands);
            driver.run(&mut second, &commands);
        }
        let connected = driver.events.as_ref().map(|events| events.0.lock().unwrap().len());
        assert_eq!(connected, events.then_some(4));
        // Its head is not asked for, as its queue was never full, but at the beginning: once around.
        let heads = 2 * 200 * 4 / 16 + 2;
        assert!(driver.writes.load(Ordering::SeqCst) <= 2 * 200 + heads);
        driver.rig.disable();
        assert!(driver.events.is_none_or(|events| events.0.lock().unwrap().is_empty()));
    }
}

#[test]
fn no_command_is_overlooked_when_the_controller_falls_asleep() {
    for events in [false, true] {
        let mut driver = Shadowed::new(events);
        assert_eq!(driver.config(), 0);
        // A completion queue that is often full.
        let mut pair = driver.rig.make_pair(1, 4);
        let mut noise = Noise(7);
        let end = Instant::now() + Duration::from_secs(3);
        let mut count = 0;
        while Instant::now() < end {
            let commands = vec![read(3); 1 + noise.below(3) as usize];
            driver.run(&mut pair, &commands);
            count += commands.len();
            for _ in 0..noise.below(2000) {
                std::hint::spin_loop();
            }
        }
        assert!(count > 100, "{count}");
    }
}

#[test]
fn a_full_completion_queue_goes_on_when_its_shadow_doorbell_moves() {
    let mut driver = Shadowed::new(false);
    driver.config();
    let mut pair = driver.rig.make_pair(1, 4);
    // Three completions fill it, and three commands more wait for that to change.
    for _ in 0..10 {
        for _ in 0..2 {
            let old = pair.tail;
            (0..3).for_each(|_| driver.rig.put(&mut pair, read(0)));
            driver.ring(&pair, 0, old, pair.tail);
            std::thread::sleep(Duration::from_millis(5));
        }
        for _ in 0..6 {
            let old = pair.head;
            assert_eq!(until(|| driver.rig.take(&mut pair)).status, 0);
            driver.ring(&pair, 1, old, pair.head);
        }
    }
}

#[test]
fn pages_that_are_not_aligned_or_not_allowed_change_nothing() {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let mut rig = Rig::of(guest, &Backing::memory(64 << 20), Options::default());
    let domain = rig.guest.domain("disk", DomainOptions::new(DomainKind::Translate)).unwrap();
    let vdev = rig.guest.vdev("disk").unwrap();
    drop(vdev.attach(&domain).unwrap());
    domain.grant_identity(GuestPhys(0), 8 << 20, Access::RW).unwrap();
    rig.shell.attach(vdev, None, None).unwrap();
    rig.shell.config_write(4, &[6, 0]).unwrap();
    rig.enable();
    let mut pair = rig.make_pair(1, 16);
    let not_allowed = 9 << 20;
    for (pages, status) in [
        ((SHADOW + 8, EVENTS), 0x13),
        ((SHADOW, EVENTS + 0x800), 0x13),
        ((not_allowed, EVENTS), 0x04),
        ((SHADOW, not_allowed), 0x04),
        ((!0xfff, EVENTS), 0x02),
    ] {
        assert_eq!(rig.administer(Command::new(CONFIG).prps(pages)).status, status, "{pages:x?}");
        assert_eq!(rig.run(&mut pair, read(0)).status, 0, "registers go on");
    }
    // Pages that are taken away later are as queues that are.
    assert_eq!(rig.administer(Command::new(CONFIG).prps((SHADOW, EVENTS))).status, 0);
    drop(domain.revoke(DeviceAddr(SHADOW), 4096).unwrap());
    rig.write32(0x1008, 0);
    rig.wait_status(0b10, 0b10);
    rig.disable();
    rig.enable();
    let mut pair = rig.make_pair(1, 16);
    assert_eq!(rig.run(&mut pair, read(0)).status, 0, "a reset forgets them");
}

#[test]
fn a_value_outside_the_ring_is_an_event_once_and_the_next_good_one_goes_on() {
    let mut driver = Shadowed::new(false);
    driver.config();
    let mut pair = driver.rig.make_pair(1, 16);
    driver.run(&mut pair, &[read(0)]);
    let log = Command::new(2).prps((DATA, 0)).word(1, u32::MAX).word(10, 1 | 15 << 16);
    let errors = |driver: &mut Shadowed| {
        assert_eq!(driver.rig.administer(log).status, 0);
        u64::from_le_bytes(*driver.rig.bytes(DATA, 8).first_chunk().unwrap())
    };
    let before = errors(&mut driver);
    for value in [16, u32::MAX] {
        driver.rig.ram.write_at(SHADOW + 8, &value.to_le_bytes()).unwrap();
        driver.rig.write32(0x1008, 0);
    }
    until(|| (errors(&mut driver) > before).then_some(()));
    std::thread::sleep(Duration::from_millis(50));
    assert!((before + 1..=before + 2).contains(&errors(&mut driver)), "not one in each round");
    driver.rig.put(&mut pair, read(0));
    driver.rig.ram.write_at(SHADOW + 8, &pair.tail.to_le_bytes()).unwrap();
    driver.rig.write32(0x1008, 0);
    assert_eq!(until(|| driver.rig.take(&mut pair)).status, 0);
}

#[test]
fn what_a_deleted_queue_has_left_does_not_matter_to_the_next_one() {
    let mut driver = Shadowed::new(true);
    driver.config();
    let mut pair = driver.rig.make_pair(1, 16);
    driver.run(&mut pair, &[read(0), read(1), read(2)]);
    for opcode in [0, 4] {
        assert_eq!(driver.rig.administer(Command::new(opcode).word(10, 1)).status, 0);
    }
    assert_eq!(driver.events.as_ref().unwrap().0.lock().unwrap().len(), 0);
    driver.used.lock().unwrap().clear();
    let mut pair = driver.rig.make_pair(1, 16);
    assert_eq!(driver.word(SHADOW + 8), 0);
    driver.run(&mut pair, &[read(0)]);
    std::thread::sleep(Duration::from_millis(20));
    assert!(driver.rig.take(&mut pair).is_none(), "one command, one completion");
}

#[test]
fn registers_count_until_the_guest_has_written_the_shadow_doorbell() {
    for events in [false, true] {
        let mut driver = Shadowed::new(events);
        let mut pair = driver.rig.make_pair(1, 16);
        // Written before the controller executes the command: it is not in the pages.
        driver.rig.put(&mut pair, read(0));
        driver.rig.ring(&pair);
        let mut admin = driver.rig.admin.clone();
        driver.rig.put(&mut admin, Command::new(CONFIG).prps((SHADOW, EVENTS)));
        driver.rig.ring(&admin);
        assert_eq!(driver.rig.wait(&mut admin).status, 0);
        driver.rig.admin = admin;
        assert_eq!(driver.rig.wait(&mut pair).status, 0);
        // And by another processor, which does not know yet.
        for _ in 0..3 {
            assert_eq!(driver.rig.run(&mut pair, read(0)).status, 0);
        }
        assert_eq!(driver.events.as_ref().map_or(0, |e| e.0.lock().unwrap().len()), 0);
        for _ in 0..20 {
            driver.run(&mut pair, &[read(0), read(1)]);
        }
    }
}

#[test]
fn nothing_is_read_or_written_after_a_shutdown_was_reported() {
    let mut driver = Shadowed::new(true);
    driver.config();
    let mut pair = driver.rig.make_pair(1, 16);
    driver.run(&mut pair, &[read(0), read(1), read(2)]);
    driver.rig.write32(0x14, 0x46_0001 | 1 << 14);
    driver.rig.wait_status(0b1100, 0b1000);
    driver.rig.ram.write_at(SHADOW, &[0xff; 0x2000]).unwrap();
    for offset in [0x1008, 0x100c, 0x1000] {
        driver.rig.write32(offset, 1);
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(driver.rig.bytes(SHADOW, 0x2000), [0xff; 0x2000]);
    assert_eq!(driver.events.as_ref().unwrap().0.lock().unwrap().len(), 0);
}
