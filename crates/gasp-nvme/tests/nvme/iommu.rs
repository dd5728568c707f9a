//! The device reaches nothing that the guest's IOMMU does not allow.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gasp::{
    Access, DeviceAddr, Domain, DomainKind, DomainOptions, Errno, Guest, GuestPhys, Unattached,
};
use gasp_nvme::{Backing, Options};
use gasp_vdev::MessageMemory;

use crate::driver::{Command, DATA, LISTS, Noise, Rig, until};

const WRITE: u8 = 1;
const READ: u8 = 2;

/// A device in a domain that has grants for everything below the data.
fn rig() -> (Rig, Domain) {
    rig_with(None)
}

fn rig_with(messages: Option<Arc<dyn MessageMemory>>) -> (Rig, Domain) {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let rig = Rig::of(guest, &Backing::memory(64 << 20), Options::default());
    let domain = rig.guest.domain("disk", DomainOptions::new(DomainKind::Translate)).unwrap();
    let vdev = rig.guest.vdev("disk").unwrap();
    assert!(vdev.attach(&domain).unwrap().wait().completed());
    domain.grant_identity(GuestPhys(0), DATA, Access::RW).unwrap();
    rig.shell.attach(vdev, messages, None).unwrap();
    rig.shell.config_write(4, &[6, 0]).unwrap();
    (rig, domain)
}

#[test]
fn data_that_is_not_allowed_is_an_error_of_the_transfer() {
    let (mut rig, domain) = rig();
    rig.enable();
    let mut pair = rig.make_pair(1, 32);
    let mut status =
        |rig: &Rig, opcode, prps| rig.run(&mut pair, Command::blocks(opcode, 0, 24, prps)).status;
    rig.ram.write_at(DATA, &[0xee; 0x4000]).unwrap();
    let below = rig.prps(DATA - 0x4000, 24 * 512, LISTS);
    let across = rig.prps(DATA - 0x1000, 24 * 512, LISTS + 0x1000);
    let list = rig.prps(DATA - 0x4000, 24 * 512, DATA);
    for opcode in [WRITE, READ] {
        assert_eq!(status(&rig, opcode, below), 0);
        assert_eq!(status(&rig, opcode, across), 0x04);
        assert_eq!(status(&rig, opcode, list), 0x04, "the list itself");
    }
    assert_eq!(rig.bytes(DATA + 0x1000, 0x2000), [0xee; 0x2000]);
    // The device may read memory: the guest can write to its disk, and not read from it.
    domain.grant_identity(GuestPhys(DATA), 0x4000, Access::READ).unwrap();
    assert_eq!(status(&rig, WRITE, across), 0);
    assert_eq!(status(&rig, READ, across), 0x04);
    domain.grant_identity(GuestPhys(DATA), 0x4000, Access::WRITE).unwrap();
    assert_eq!(status(&rig, READ, across), 0);
    assert!(rig.guest.take_faults().records.len() > 1);
}

#[test]
fn a_queue_that_is_revoked_is_fatal_until_the_reset() {
    let (mut rig, domain) = rig();
    for round in 0..4 {
        rig.enable();
        let mut pair = rig.make_pair(1, 32);
        rig.run(&mut pair, Command::io(0));
        let revoked = match round {
            0 => pair.submissions,
            1 => pair.completions,
            2 => rig.admin.submissions,
            _ => rig.admin.completions,
        };
        let revoked = DeviceAddr(revoked & !0xfff);
        assert!(domain.revoke(revoked, 0x1000).unwrap().wait().completed());
        let mut queue = if round < 2 { pair } else { rig.admin.clone() };
        let harmless = if round < 2 { Command::io(0) } else { Command::new(10).word(10, 7) };
        rig.put(&mut queue, harmless);
        rig.ring(&queue);
        rig.wait_status(0b10, 0b10);
        assert_eq!(rig.take(&mut queue), None);
        domain.grant_identity(GuestPhys(revoked.0), 0x1000, Access::RW).unwrap();
        rig.ring(&queue);
        rig.disable();
        assert_eq!(rig.counters.snapshot().stops, round + 1);
    }
    rig.enable();
    rig.make_pair(1, 32);
}

#[test]
fn a_device_in_no_domain_reaches_not_even_its_queues() {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let mut rig = Rig::of(guest, &Backing::null(1 << 20), Options::default());
    rig.shell.attach(rig.guest.vdev("disk").unwrap(), None, None).unwrap();
    rig.shell.config_write(4, &[6, 0]).unwrap();
    rig.enable();
    rig.ring(&crate::driver::Pair { tail: 1, ..rig.admin.clone() });
    rig.wait_status(0b11, 0b11);
}

#[test]
fn translated_pages_anywhere_in_the_guest_are_one_run_for_the_device() {
    let (mut rig, domain) = rig();
    rig.enable();
    let mut pair = rig.make_pair(1, 32);
    // 64 pages, mapped far from their guest-physical addresses, in reverse order.
    let far = 1 << 40;
    for page in 0..64 {
        let (device, guest) = (DeviceAddr(far + page * 4096), DATA + (63 - page) * 4096);
        domain.grant(device, GuestPhys(guest), 4096, Access::RW).unwrap();
    }
    let data = Noise(5).bytes(256 << 10);
    rig.ram.write_at(DATA, &data).unwrap();
    let prps = rig.prps(far, 256 << 10, LISTS);
    assert_eq!(rig.run(&mut pair, Command::blocks(WRITE, 0, 512, prps)).status, 0);
    let prps = rig.prps(DATA - (512 << 10), 256 << 10, LISTS);
    assert_eq!(rig.run(&mut pair, Command::blocks(READ, 0, 512, prps)).status, 0);
    let read = rig.bytes(DATA - (512 << 10), 256 << 10);
    let pages = read.chunks(4096).rev().flatten();
    assert!(pages.eq(&data));
}

#[test]
fn what_is_revoked_in_the_middle_of_io_is_not_touched_any_more() {
    let (mut rig, domain) = rig();
    rig.enable();
    let mut pair = rig.make_pair(1, 64);
    let len = 128 << 10;
    domain.grant_identity(GuestPhys(DATA), len, Access::RW).unwrap();
    let prps = rig.prps(DATA, len, LISTS);
    let stop = AtomicBool::new(false);
    let (mut done, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let (rig, stop) = (&rig, &stop);
        scope.spawn(move || {
            for round in 0..300 {
                assert!(domain.revoke(DeviceAddr(DATA), len).unwrap().wait().completed());
                rig.ram.write_at(DATA, &vec![0xee; len as usize]).unwrap();
                // Now and then long enough for commands to be refused.
                let pause = if round % 10 == 0 { 2000 } else { round };
                std::thread::sleep(Duration::from_micros(pause));
                assert!(rig.bytes(DATA, len).iter().all(|byte| *byte == 0xee), "{round}");
                domain.grant_identity(GuestPhys(DATA), len, Access::RW).unwrap();
                std::thread::sleep(Duration::from_micros(round));
            }
            stop.store(true, Ordering::Relaxed);
        });
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..16 {
                rig.put(&mut pair, Command::blocks(READ, 0, 256, prps));
            }
            rig.ring(&pair);
            for _ in 0..16 {
                match rig.wait(&mut pair).status {
                    0 => done += 1,
                    0x04 => refused += 1,
                    status => panic!("{status:#x}"),
                }
            }
        }
    });
    println!("{done} reads done, {refused} refused");
    assert!(done > 0 && refused > 0);
    assert_eq!(rig.counters.snapshot().errors, refused);
}

/// Memory that is reached only by messages, from `BASE` on.
struct Messages(Mutex<Vec<u8>>);

const BASE: u64 = 1 << 32;

impl MessageMemory for Messages {
    fn extent(&self, addr: DeviceAddr) -> Option<u64> {
        let end = BASE + self.0.lock().unwrap().len() as u64;
        (BASE..end).contains(&addr.0).then(|| end - addr.0)
    }

    fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> Result<(), Errno> {
        let at = (addr.0 - BASE) as usize;
        into.copy_from_slice(&self.0.lock().unwrap()[at..at + into.len()]);
        Ok(())
    }

    fn write(&self, addr: DeviceAddr, from: &[u8]) -> Result<(), Errno> {
        let at = (addr.0 - BASE) as usize;
        self.0.lock().unwrap()[at..at + from.len()].copy_from_slice(from);
        Ok(())
    }
}

#[test]
fn memory_without_a_descriptor_is_reached_by_messages() {
    let data = Noise(6).bytes(64 << 10);
    let messages = Arc::new(Messages(Mutex::new(data.clone())));
    let shared: Arc<dyn MessageMemory> = Arc::clone(&messages) as _;
    let (mut rig, domain) = rig_with(Some(shared));
    domain.grant_identity(GuestPhys(BASE), 64 << 10, Access::RW).unwrap();
    rig.enable();
    let mut pair = rig.make_pair(1, 32);
    let list = BASE + 0xf000;
    for page in 1..8_u64 {
        let entry = (BASE + page * 4096).to_le_bytes();
        messages.write(DeviceAddr(list + 8 * (page - 1)), &entry).unwrap();
    }
    let prps = (BASE, list);
    assert_eq!(rig.run(&mut pair, Command::blocks(WRITE, 0, 64, prps)).status, 0);
    messages.0.lock().unwrap()[..32 << 10].fill(0);
    assert_eq!(rig.run(&mut pair, Command::blocks(READ, 0, 64, prps)).status, 0);
    assert!(messages.0.lock().unwrap()[..32 << 10] == data[..32 << 10]);
    let prps = rig.prps(DATA - 0x10000, 32 << 10, LISTS);
    assert_eq!(rig.run(&mut pair, Command::blocks(READ, 0, 64, prps)).status, 0);
    assert!(rig.bytes(DATA - 0x10000, 32 << 10) == data[..32 << 10]);
    // A completion queue there, too.
    let make = Command::new(5).prps((BASE + 0x8000, 0)).word(10, 2 | 15 << 16);
    assert_eq!(rig.administer(make.word(11, 1)).status, 0);
    let mut second = crate::driver::Pair::new(2, 16);
    let make = Command::new(1).prps((second.submissions, 0)).word(10, 2 | 15 << 16);
    assert_eq!(rig.administer(make.word(11, 1 | 2 << 16)).status, 0);
    rig.put(&mut second, Command::io(0).id(7));
    rig.ring(&second);
    let at = 0x8000;
    until(|| (messages.0.lock().unwrap()[at + 12..at + 16] == [7, 0, 1, 0]).then_some(()));
}

#[test]
fn shadow_doorbells_are_reached_by_messages_as_well() {
    let messages = Arc::new(Messages(Mutex::new(vec![0xee; 0x2000])));
    let (mut rig, domain) = rig_with(Some(Arc::clone(&messages) as _));
    domain.grant_identity(GuestPhys(BASE), 0x2000, Access::RW).unwrap();
    domain.grant_identity(GuestPhys(DATA), 0x1000, Access::RW).unwrap();
    rig.enable();
    let mut pair = rig.make_pair(1, 16);
    let config = Command::new(0x7c).prps((BASE, BASE + 0x1000));
    assert_eq!(rig.administer(config).status, 0);
    let word =
        |at: usize| u32::from_le_bytes(messages.0.lock().unwrap()[at..at + 4].try_into().unwrap());
    for round in 1..40 {
        rig.put(&mut pair, Command::blocks(READ, 0, 1, (DATA, 0)));
        messages.write(DeviceAddr(BASE + 8), &pair.tail.to_le_bytes()).unwrap();
        rig.write32(0x1008, 0);
        assert_eq!(until(|| rig.take(&mut pair)).status, 0);
        messages.write(DeviceAddr(BASE + 12), &pair.head.to_le_bytes()).unwrap();
        until(|| (word(0x1008) == round % 16).then_some(()));
    }
}

/// Memory of a VMM that does not answer writes.
struct Deaf(Messages, AtomicU32);

impl MessageMemory for Deaf {
    fn extent(&self, addr: DeviceAddr) -> Option<u64> {
        self.0.extent(addr)
    }

    fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> Result<(), Errno> {
        self.0.read(addr, into)
    }

    fn write(&self, _: DeviceAddr, _: &[u8]) -> Result<(), Errno> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Err(Errno::TIMEDOUT)
    }
}

#[test]
fn a_vmm_that_does_not_answer_is_asked_once_for_each_command() {
    let messages = Messages(Mutex::new(vec![0; 128 << 10]));
    let list = BASE + 0x1f000;
    for page in 1..8_u64 {
        // Every other page, so that each is a message of its own.
        let entry = (BASE + 2 * page * 4096).to_le_bytes();
        messages.write(DeviceAddr(list + 8 * (page - 1)), &entry).unwrap();
    }
    let deaf = Arc::new(Deaf(messages, AtomicU32::new(0)));
    let (mut rig, domain) = rig_with(Some(Arc::clone(&deaf) as _));
    domain.grant_identity(GuestPhys(BASE), 128 << 10, Access::RW).unwrap();
    rig.enable();
    let mut pair = rig.make_pair(1, 32);
    let read = Command::blocks(READ, 0, 64, (BASE, list));
    assert_eq!(rig.run(&mut pair, read).status, 0x04);
    assert_eq!(deaf.1.load(Ordering::Relaxed), 1);
}
