//! Admin commands: identify, queues, features, logs, events.

use gasp_nvme::{Backing, Options};

use crate::driver::{Command, DATA, LISTS, Pair, Rig};

const IDENTIFY: u8 = 6;

fn rig() -> Rig {
    rig_with_defaults()
}

fn rig_with_defaults() -> Rig {
    let mut rig = Rig::attached(&Backing::memory(64 << 20), Options::default());
    rig.enable();
    rig
}

fn number<const LEN: usize>(bytes: &[u8], at: usize) -> [u8; LEN] {
    bytes[at..at + LEN].try_into().unwrap()
}

impl Rig {
    pub(crate) fn identify(&mut self, cns: u32, namespace: u32) -> Result<Vec<u8>, u16> {
        self.ram.write_at(DATA, &[0xee; 8192]).unwrap();
        // Data across two pages.
        let prps = (DATA + 0x800, DATA + 0x1000);
        let command = Command::new(IDENTIFY).word(1, namespace).word(10, cns).prps(prps);
        match self.administer(command).status {
            0 => Ok(self.bytes(DATA + 0x800, 4096)),
            status => Err(status),
        }
    }

    /// Set (9) or get (10) features.
    pub(crate) fn feature(&mut self, opcode: u8, id: u32, value: u32) -> Result<u32, u16> {
        let done = self.administer(Command::new(opcode).word(10, id).word(11, value));
        match done.status {
            0 => Ok(done.result),
            status => Err(status),
        }
    }

    /// Get Log Page, `len` bytes.
    pub(crate) fn log(&mut self, id: u32, offset: u64, len: u32) -> Result<Vec<u8>, u16> {
        let dwords = (len / 4).wrapping_sub(1);
        let prps = self.prps(DATA, len.into(), LISTS);
        let command = Command::new(2).word(1, u32::MAX).prps(prps).long(12, offset);
        let command = command.word(10, id | dwords << 16).word(11, dwords >> 16);
        match self.administer(command).status {
            0 => Ok(self.bytes(DATA, len.into())),
            status => Err(status),
        }
    }

    fn create(&mut self, opcode: u8, id: u32, size: u32, prp1: u64, dword11: u32) -> u16 {
        let command = Command::new(opcode).prps((prp1, 0)).word(10, id | size << 16);
        self.administer(command.word(11, dword11)).status
    }
}

#[test]
fn identify_describes_the_controller_and_its_namespace() {
    let options = Options { serial: Some("mine".into()), ..Options::default() };
    let mut rig = Rig::attached(&Backing::memory(64 << 20), options);
    rig.enable();
    let page = rig.identify(1, 0).unwrap();
    assert_eq!(number(&page, 0), 0x1234_u16.to_le_bytes());
    assert_eq!(&page[4..24], b"mine                ");
    assert_eq!(&page[24..40], b"gasp            ");
    assert_eq!((page[77], page[111], page[512], page[513]), (7, 1, 0x66, 0x44));
    assert_eq!(number(&page, 80), 0x1_0400_u32.to_le_bytes());
    assert_eq!(number(&page, 516), 1_u32.to_le_bytes());
    assert!(page[768..].starts_with(b"nqn.2014-08.org.nvmexpress:uuid:"));
    let page = rig.identify(0, 1).unwrap();
    for at in [0, 8, 16] {
        assert_eq!(number(&page, at), (64_u64 << 11).to_le_bytes());
    }
    assert_eq!((page[25], page[26], page[130]), (0, 0, 9));
    let page = rig.identify(3, 1).unwrap();
    assert_eq!(page[..4], [3, 16, 0, 0], "a UUID");
    assert_eq!((page[4 + 6] >> 4, page[4 + 8] >> 6), (8, 0b10), "of version 8");
    assert!(page[20..].iter().all(|byte| *byte == 0));
    assert_eq!(rig.identify(2, 0).unwrap()[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert!(rig.identify(2, 1).unwrap().iter().all(|byte| *byte == 0));
    for (cns, namespace, status) in
        [(0, 0, 0xb), (0, 2, 0xb), (0, u32::MAX, 0xb), (3, 0, 0xb), (2, u32::MAX, 0xb), (6, 1, 2)]
    {
        assert_eq!(rig.identify(cns, namespace), Err(status), "{cns} {namespace:#x}");
    }
}

#[test]
fn a_block_size_of_4096_is_reported() {
    let options =
        Options { block_size: 4096, serial: Some("another".into()), ..Options::default() };
    let mut rig = Rig::attached(&Backing::null(1 << 40), options);
    rig.enable();
    let page = rig.identify(0, 1).unwrap();
    assert_eq!((number(&page, 0), page[130]), ((1_u64 << 28).to_le_bytes(), 12));
    let name = rig.identify(3, 1).unwrap();
    let mut other = rig_with_defaults();
    assert_ne!(other.identify(3, 1).unwrap(), name);
}

#[test]
fn queues_are_created_and_deleted_and_every_bad_one_is_refused() {
    let mut rig = rig();
    let (cq, sq, at) = (5, 1, 0x30_0000);
    assert_eq!(rig.create(cq, 0, 15, at, 1), 0x101, "the admin queue's identifier");
    assert_eq!(rig.create(cq, 9, 15, at, 1), 0x101, "one too many");
    assert_eq!(rig.create(cq, 0xffff, 15, at, 1), 0x101);
    assert_eq!(rig.create(cq, 1, 0, at, 1), 0x102, "one entry");
    assert_eq!(rig.create(cq, 1, 1024, at, 1), 0x102, "too many entries");
    assert_eq!(rig.create(cq, 1, 15, at, 0), 0x02, "not contiguous");
    assert_eq!(rig.create(cq, 1, 15, at + 16, 1), 0x13, "not a page");
    assert_eq!(rig.create(cq, 1, 1023, !0xfff, 1), 0x02, "wraps");
    assert_eq!(rig.create(cq, 1, 15, at, 3 | 9 << 16), 0x108, "no such vector");
    assert_eq!(rig.create(sq, 1, 15, at, 1 | 1 << 16), 0x100, "no completion queue");
    assert_eq!(rig.create(cq, 1, 1023, at, 3 | 8 << 16), 0);
    assert_eq!(rig.create(cq, 1, 15, at, 1), 0x101, "it exists");
    assert_eq!(rig.create(sq, 1, 15, at, 1), 0x100, "to the admin completion queue");
    assert_eq!(rig.create(sq, 1, 15, at, 1 | 9 << 16), 0x101, "no such completion queue");
    assert_eq!(rig.create(sq, 2, 15, at, 1 | 2 << 16), 0x100, "not created yet");
    assert_eq!(rig.create(sq, 2, 0, at, 1 | 1 << 16), 0x102);
    assert_eq!(rig.create(sq, 2, 15, at, 1 | 1 << 16), 0);
    assert_eq!(rig.create(sq, 2, 15, at, 1 | 1 << 16), 0x101);
    assert_eq!(rig.create(4, 1, 0, 0, 0), 0x10c, "a submission queue needs it");
    assert_eq!(rig.create(4, 2, 0, 0, 0), 0x101);
    assert_eq!(rig.create(4, 0, 0, 0, 0), 0x101);
    assert_eq!(rig.create(0, 1, 0, 0, 0), 0x101);
    assert_eq!(rig.create(0, 0, 0, 0, 0), 0x101);
    assert_eq!(rig.create(0, 2, 0, 0, 0), 0);
    assert_eq!(rig.create(0, 2, 0, 0, 0), 0x101);
    assert_eq!(rig.create(4, 1, 0, 0, 0), 0);
    // Without the sizes of entries no I/O queue can be created.
    rig.write32(0x14, 1);
    assert_eq!(rig.create(cq, 1, 15, at, 1), 0x102);
}

#[test]
fn a_queue_that_was_deleted_and_created_again_begins_at_its_first_entry() {
    let mut rig = rig();
    for _ in 0..3 {
        let mut pair = rig.make_pair(3, 8);
        for round in 0..5 {
            let done = rig.run(&mut pair, Command::io(0).id(round));
            assert_eq!((done.status, done.id), (0, round));
        }
        assert_eq!(rig.create(0, 3, 0, 0, 0), 0);
        assert_eq!(rig.create(4, 3, 0, 0, 0), 0);
    }
}

#[test]
fn all_queues_work_side_by_side() {
    let mut rig = rig();
    let mut pairs: Vec<Pair> = (1..=8).map(|id| rig.make_pair(id, 32)).collect();
    for round in 0..20_u16 {
        for pair in &mut pairs {
            for at in 0..20 {
                let prps = (DATA, 0);
                rig.put(pair, Command::blocks(2, u64::from(at), 1, prps).id(round * 20 + at));
            }
            rig.ring(pair);
        }
        for pair in &mut pairs {
            for at in 0..20 {
                let done = rig.wait(pair);
                assert_eq!((done.status, done.queue, done.id), (0, pair.id, round * 20 + at));
            }
        }
    }
    assert_eq!(rig.counters.snapshot().reads, 20 * 20 * 8);
}

#[test]
fn several_submission_queues_can_share_a_completion_queue() {
    let mut rig = rig();
    let mut first = rig.make_pair(1, 16);
    let mut second = Pair::new(2, 16);
    assert_eq!(rig.create(1, 2, 15, second.submissions, 1 | 1 << 16), 0);
    for id in 0..40 {
        let pair = if id % 2 == 0 { &mut first } else { &mut second };
        rig.put(pair, Command::io(0).id(id));
        rig.ring(pair);
        let done = rig.wait(&mut first);
        assert_eq!((done.id, done.queue), (id, 1 + id % 2));
    }
    assert_eq!(rig.create(0, 1, 0, 0, 0), 0);
    assert_eq!(rig.create(4, 1, 0, 0, 0), 0x10c, "the second still needs it");
}

#[test]
fn features_are_set_and_read_back() {
    let mut rig = rig();
    assert_eq!(rig.feature(9, 7, 0x00ff_00ff), Ok(0x7_0007));
    assert_eq!(rig.feature(10, 7, 0), Ok(0x7_0007));
    assert_eq!(rig.feature(9, 0xb, 0x1234), Ok(0));
    assert_eq!(rig.feature(10, 0xb, 0), Ok(0x1234));
    assert_eq!(rig.feature(10, 0xb | 1 << 8, 0), Ok(0));
    assert_eq!(rig.feature(9, 0xb | 1 << 31, 0), Err(0x10d));
    assert_eq!(rig.feature(10, 0xc0, 0), Err(2));
    // A feature of a namespace, requested without one.
    assert_eq!(rig.feature(9, 5, 0), Err(0x0b));
    assert_eq!(rig.feature(10, 5, 0), Err(0x0b));
    let set = Command::new(9).word(1, 1).word(10, 1);
    assert_eq!(rig.administer(set).status, 0x10f, "a feature of the controller, of namespace 1");
    rig.make_pair(1, 8);
    assert_eq!(rig.feature(9, 7, 0), Err(0x0c));
}

#[test]
fn log_pages_can_be_read_in_parts() {
    let (mut rig, mut pair) = Rig::started();
    assert_eq!(rig.run(&mut pair, Command::blocks(2, 0, 8, (DATA, 0))).status, 0);
    assert_eq!(rig.run(&mut pair, Command::io(0x55).id(77)).status, 1);
    let errors = rig.log(1, 0, 64).unwrap();
    assert_eq!(number(&errors, 0), 1_u64.to_le_bytes());
    assert_eq!((errors[8], errors[10]), (1, 77));
    let health = rig.log(2, 0, 512).unwrap();
    assert_eq!((health[3], health[32], health[64]), (100, 1, 1));
    assert_eq!(rig.log(2, 64, 64).unwrap(), health[64..128]);
    assert_eq!(rig.log(3, 0, 512).unwrap()[0], 1);
    assert!(rig.log(3, 0, 512 << 10).unwrap()[512..].iter().all(|byte| *byte == 0));
    assert_eq!(rig.log(3, 0, (512 << 10) + 4), Err(2), "more than a transfer can be");
    assert_eq!(rig.log(3, 0, 0), Err(2), "16 GiB");
    assert_eq!(rig.log(2, 2, 64), Err(2), "not at a dword");
    assert_eq!(rig.log(2, 516, 64), Err(2), "past the end");
    assert_eq!(rig.log(2, u64::MAX - 3, 64), Err(2));
    assert_eq!(rig.log(0x70, 0, 64), Err(0x109));
}

#[test]
fn an_invalid_doorbell_write_is_an_event_and_does_no_harm() {
    let (mut rig, mut pair) = Rig::started();
    let request = |rig: &mut Rig, id| {
        let mut admin = rig.admin.clone();
        rig.put(&mut admin, Command::new(0xc).id(id));
        rig.ring(&admin);
        rig.admin = admin;
    };
    request(&mut rig, 500);
    rig.write32(0x1000 + 8, 64);
    let mut admin = rig.admin.clone();
    let reported = rig.wait(&mut admin);
    assert_eq!((reported.id, reported.status, reported.result), (500, 0, 0x1_0100), "a bad value");
    rig.admin = admin;
    request(&mut rig, 501);
    rig.write32(0x1000 + 8 * 5, 1);
    rig.write32(0x1f00, 1);
    assert_eq!(rig.run(&mut pair, Command::io(0)).status, 0);
    let errors = rig.log(1, 0, 64).unwrap();
    // The last two are one error if the controller reads its doorbells after both.
    assert!([2, 3].contains(&errors[0]), "errors of no command");
    assert_eq!(errors[8..16], [0xff, 0xff, 0xff, 0xff, 0x02, 0x82, 0xff, 0xff]);
    let mut admin = rig.admin.clone();
    let reported = rig.wait(&mut admin);
    assert_eq!((reported.id, reported.result), (501, 0x1_0000), "no such doorbell");
    rig.admin = admin;
    // Completions that were not posted cannot be consumed.
    rig.write32(0x1004 + 8, pair.head + 3);
    // Accesses of another width, and reads, have no effect.
    rig.shell.bar_write(0, 0x1008, &[1]).unwrap();
    rig.write64(0x1008, u64::MAX);
    assert_eq!(rig.read32(0x1008), 0);
    assert_eq!(rig.run(&mut pair, Command::io(0)).status, 0);
}

#[test]
fn an_event_request_can_be_aborted_and_too_many_are_refused() {
    let rig = rig();
    let mut admin = rig.admin.clone();
    for id in 0..5 {
        rig.put(&mut admin, Command::new(0xc).id(id));
    }
    rig.ring(&admin);
    let refused = rig.wait(&mut admin);
    assert_eq!((refused.id, refused.status), (4, 0x105));
    rig.put(&mut admin, Command::new(8).word(10, 2 << 16).id(90));
    rig.put(&mut admin, Command::new(8).word(10, 2 << 16).id(91));
    rig.put(&mut admin, Command::new(8).word(10, 1).id(92));
    rig.ring(&admin);
    let mut done: Vec<_> = (0..4).map(|_| rig.wait(&mut admin)).collect();
    done.sort_by_key(|done| done.id);
    let seen: Vec<_> = done.iter().map(|done| (done.id, done.status, done.result)).collect();
    assert_eq!(seen, [(2, 7, 0), (90, 0, 0), (91, 0, 1), (92, 0, 1)]);
}
