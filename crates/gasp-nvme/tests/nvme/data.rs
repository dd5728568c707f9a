//! Reads and writes: data is read back as written, in every shape that PRPs can have.

use std::fs::File;
use std::path::PathBuf;

use gasp_nvme::{Backing, DiskError, Nvme, NvmeError, Options};

use crate::driver::{Command, DATA, LISTS, Noise, Rig};

const FLUSH: u8 = 0;
const WRITE: u8 = 1;
const READ: u8 = 2;
const ZEROES: u8 = 8;
const MANAGE: u8 = 9;

/// A file that is removed at the end of the test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str, len: u64) -> Self {
        let path = std::env::temp_dir().join(format!("gasp-nvme-{}-{name}", std::process::id()));
        File::create(&path).unwrap().set_len(len).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Shuffles the pages of an area of 2 MiB, except for the first one.
fn shuffled(page: u64) -> u64 {
    let area = page & !0x1f_ffff;
    area + (page - area) / 4096 * 37 % 512 * 4096
}

/// Writes from shuffled pages and reads to others, in many shapes, and compares.
fn check_shapes(backing: &Backing, block_size: u32) {
    let (rig, mut pair) = Rig::started_with(backing, Options { block_size, ..Options::default() });
    let mut noise = Noise(block_size.into());
    let block = u64::from(block_size);
    let (from, to) = (DATA, DATA + (2 << 20));
    let mut bytes = 0;
    for len in [block, 4096, 8192, 3 * 4096, 64 << 10, 512 << 10] {
        for offset in [0, 4, 512, 2048, 4092] {
            // At the start of a page, in its middle, with two entries left, with one.
            for list in [LISTS, LISTS + 0x800, LISTS + 4096 - 16, LISTS + 4096 - 8] {
                let data = noise.bytes(len);
                for at in 0..len.div_ceil(4096) + 1 {
                    let (start, end) =
                        ((at * 4096).max(offset), (at * 4096 + 4096).min(offset + len));
                    if start < end {
                        let part = &data[(start - offset) as usize..(end - offset) as usize];
                        let place = shuffled(from + at * 4096) + start % 4096;
                        rig.ram.write_at(place, part).unwrap();
                    }
                }
                let (first, count) = (noise.below((4 << 20) / block), (len / block) as u32);
                let prps = rig.prps_of(from + offset, len, list, shuffled);
                let done = rig.run(&mut pair, Command::blocks(WRITE, first, count, prps));
                assert_eq!(done.status, 0, "write of {len:#x} at {offset:#x}, list {list:#x}");
                rig.ram.write_at(to, &vec![0xee; 1 << 20]).unwrap();
                let to = to + 4096 + offset / 2 * 2;
                let prps = rig.prps(to, len, list);
                let done = rig.run(&mut pair, Command::blocks(READ, first, count, prps));
                assert_eq!(done.status, 0, "read of {len:#x} at {offset:#x}, list {list:#x}");
                assert!(rig.bytes(to, len) == data, "{len:#x} at {offset:#x}, list {list:#x}");
                let around = [rig.bytes(to - 64, 64), rig.bytes(to + len, 64)];
                assert!(around.iter().flatten().all(|byte| *byte == 0xee));
                bytes += len;
            }
        }
    }
    let counters = rig.counters.snapshot();
    assert_eq!((counters.written_bytes, counters.read_bytes), (bytes, bytes));
    assert_eq!(counters.errors, 0);
}

#[test]
fn data_comes_back_in_every_shape_from_memory() {
    check_shapes(&Backing::memory(64 << 20), 512);
    check_shapes(&Backing::memory(64 << 20), 4096);
}

#[test]
fn data_comes_back_in_every_shape_from_a_file() {
    let file = Scratch::new("shapes", 8 << 20);
    check_shapes(&Backing::file(&file.0), 512);
    check_shapes(&Backing::file(&file.0), 4096);
}

#[test]
fn what_the_guest_writes_is_in_the_file_at_its_place() {
    let file = Scratch::new("place", 1 << 20);
    let (rig, mut pair) = Rig::started_with(&Backing::file(&file.0), Options::default());
    let data = Noise(1).bytes(4096);
    rig.ram.write_at(DATA, &data).unwrap();
    let write = Command::blocks(WRITE, 100, 8, (DATA, 0)).word(12, 7 | 1 << 30);
    assert_eq!(rig.run(&mut pair, write).status, 0);
    assert_eq!(rig.run(&mut pair, Command::io(FLUSH)).status, 0);
    assert_eq!(rig.run(&mut pair, Command::new(FLUSH).word(1, u32::MAX)).status, 0);
    let stored = std::fs::read(&file.0).unwrap();
    assert!(stored[100 * 512..108 * 512] == data);
    assert!(stored[..100 * 512].iter().all(|byte| *byte == 0));
    let last = (1 << 20) / 512 - 1;
    assert_eq!(rig.run(&mut pair, Command::blocks(READ, last, 1, (DATA, 0))).status, 0);
    assert_eq!(rig.run(&mut pair, Command::blocks(READ, last, 2, (DATA, 0))).status, 0x80);
    assert_eq!(rig.counters.snapshot().flushes, 2);
    let again = Nvme::new(&Backing::file(&file.0), Options::default()).unwrap_err();
    let me = std::process::id();
    assert!(
        matches!(again, NvmeError::Disk(DiskError::InUse { by: Some(id), .. }) if id == me),
        "{again:?}"
    );
    let path = file.0.display();
    let text = format!("{path} is in use by another disk of this process: each disk needs");
    assert!(again.to_string().starts_with(&text), "{again}");
}

#[test]
fn an_image_whose_tail_would_be_lost_is_refused_and_the_error_says_what_to_do() {
    let made = |backing: &Backing, block_size| {
        let nvme = Nvme::new(backing, Options { block_size, ..Options::default() });
        nvme.map(|nvme| nvme.size()).map_err(|error| error.to_string())
    };
    let file = Scratch::new("tail", 1_000_000);
    let (backing, path) = (Backing::file(&file.0), file.0.display());
    let refused = made(&backing, 4096).unwrap_err();
    assert_eq!(
        refused,
        format!(
            "{path} has 1000000 bytes, which is not a multiple of the block size, 4096: the last \
             576 bytes would be lost. Extend it: truncate -s 1003520 {path}"
        )
    );
    let refused = made(&backing, 512).unwrap_err();
    assert!(refused.ends_with(&format!("truncate -s 1000448 {path}")), "{refused}");
    assert_eq!(std::fs::metadata(&file.0).unwrap().len(), 1_000_000, "it is left alone");
    // What the error recommends works.
    File::options().write(true).open(&file.0).unwrap().set_len(1_000_448).unwrap();
    assert_eq!(made(&backing, 512), Ok(1_000_448));
    let refused = made(&backing, 4096).unwrap_err();
    assert!(refused.contains("Use blocks of 512 bytes, or extend it: truncate"), "{refused}");
    for backing in [Backing::memory(4097), Backing::null(4097)] {
        let refused = made(&backing, 4096).unwrap_err();
        assert!(refused.ends_with("the last byte would be lost. Extend it to 8192 bytes"));
    }
    let empty = Scratch::new("empty", 0);
    let error = Nvme::new(&Backing::file(&empty.0), Options::default()).unwrap_err();
    assert!(matches!(error, NvmeError::Disk(DiskError::Empty { .. })), "{error:?}");
    let path = empty.0.display();
    assert_eq!(
        error.to_string(),
        format!(
            "{path} is empty: a disk has at least one block, for example after truncate -s 1G {path}"
        )
    );
}

#[test]
fn what_is_no_disk_is_named_and_not_opened() {
    let kind = |path: &str| match Nvme::new(&Backing::file(path), Options::default()) {
        Err(NvmeError::Disk(DiskError::NotADisk { kind, .. })) => kind,
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(kind("/dev"), "a directory");
    assert_eq!(kind("/dev/zero"), "a character device");
    let (_reader, writer) = std::io::pipe().unwrap();
    let pipe = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
    assert_eq!(kind(&pipe), "a pipe");
}

#[test]
fn a_disk_without_a_serial_gets_one_of_its_file_that_stays() {
    let [file, other] = ["serial", "serial-2"].map(|name| Scratch::new(name, 1 << 20));
    let serial = |backing: &Backing, serial: Option<&str>| {
        let options = Options { serial: serial.map(Into::into), ..Options::default() };
        Nvme::new(backing, options).unwrap().serial().to_owned()
    };
    let made = serial(&Backing::file(&file.0), None);
    assert!(made.len() == 20 && made.is_ascii(), "{made}");
    File::options().write(true).open(&file.0).unwrap().set_len(2 << 20).unwrap();
    assert_eq!(serial(&Backing::file(&file.0), None), made);
    assert_ne!(serial(&Backing::file(&other.0), None), made);
    assert_eq!(serial(&Backing::file(&file.0), Some("mine")), "mine");
    assert_ne!(serial(&Backing::null(4096), None), serial(&Backing::null(4096), None));
}

#[test]
fn a_file_that_became_shorter_is_an_error_of_the_media_and_nothing_worse() {
    let file = Scratch::new("shorter", 1 << 20);
    let (rig, mut pair) = Rig::started_with(&Backing::file(&file.0), Options::default());
    File::options().write(true).open(&file.0).unwrap().set_len(4096).unwrap();
    let read = rig.run(&mut pair, Command::blocks(READ, 64, 8, (DATA, 0)));
    assert_eq!(read.status, 0x281, "unrecovered read error");
    assert_eq!(rig.run(&mut pair, Command::blocks(READ, 0, 8, (DATA, 0))).status, 0);
    // Blocks that are zeroed there, in either way, or written can be read again.
    for (block, deallocate) in [(64, 0), (200, 1 << 25)] {
        let zero = Command::io(ZEROES).long(10, block).word(12, 7 | deallocate);
        assert_eq!(rig.run(&mut pair, zero).status, 0);
        rig.ram.write_at(DATA, &[0xee; 4096]).unwrap();
        let read = Command::blocks(READ, block, 8, (DATA, 0));
        assert_eq!(rig.run(&mut pair, read).status, 0, "block {block}");
        assert_eq!(rig.bytes(DATA, 4096), [0; 4096]);
    }
    assert_eq!(rig.run(&mut pair, Command::blocks(WRITE, 2040, 8, (DATA, 0))).status, 0);
    assert_eq!(std::fs::metadata(&file.0).unwrap().len(), 1 << 20);
}

#[test]
fn zeroes_and_deallocated_blocks_read_as_zeros_and_their_neighbours_stay() {
    let file = Scratch::new("zeroes", 1 << 20);
    for backing in [Backing::memory(1 << 20), Backing::file(&file.0)] {
        let (rig, mut pair) = Rig::started_with(&backing, Options::default());
        let data = Noise(2).bytes(256 << 10);
        rig.ram.write_at(DATA, &data).unwrap();
        let prps = rig.prps(DATA, 256 << 10, LISTS);
        assert_eq!(rig.run(&mut pair, Command::blocks(WRITE, 0, 512, prps)).status, 0);
        let zero = Command::io(ZEROES).long(10, 3);
        assert_eq!(rig.run(&mut pair, zero.word(12, 29)).status, 0, "blocks 3 to 32");
        let zero = Command::io(ZEROES).long(10, 64);
        assert_eq!(rig.run(&mut pair, zero.word(12, 63 | 1 << 25)).status, 0, "64 to 127");
        // Two ranges: blocks 200 to 263, and none.
        let mut ranges = [0; 32];
        ranges[4..8].copy_from_slice(&64_u32.to_le_bytes());
        ranges[8..16].copy_from_slice(&200_u64.to_le_bytes());
        rig.ram.write_at(DATA + (1 << 20), &ranges).unwrap();
        let manage = Command::io(MANAGE).prps((DATA + (1 << 20), 0)).word(10, 1);
        assert_eq!(rig.run(&mut pair, manage).status, 0, "a hint about nothing");
        assert_eq!(rig.run(&mut pair, manage.word(11, 1 << 2)).status, 0);
        assert_eq!(rig.run(&mut pair, Command::blocks(READ, 0, 512, prps)).status, 0);
        let zeroed = |block: usize| {
            (3..33).contains(&block) || (64..128).contains(&block) || (200..264).contains(&block)
        };
        for (block, got) in rig.bytes(DATA, 256 << 10).chunks(512).enumerate() {
            match zeroed(block) {
                true => assert!(got.iter().all(|byte| *byte == 0), "block {block}"),
                false => assert!(got == &data[512 * block..][..512], "block {block}"),
            }
        }
        // The second range is invalid: the first stays as it is.
        ranges[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
        ranges[8..16].copy_from_slice(&0_u64.to_le_bytes());
        rig.ram.write_at(DATA + (1 << 20), &ranges).unwrap();
        assert_eq!(rig.run(&mut pair, manage.word(11, 1 << 2)).status, 0x80);
        assert_eq!(rig.run(&mut pair, Command::blocks(READ, 0, 1, (DATA, 0))).status, 0);
        assert!(rig.bytes(DATA, 512) == data[..512]);
        let zero = Command::io(ZEROES).long(10, 2040);
        assert_eq!(rig.run(&mut pair, zero.word(12, 8)).status, 0x80, "past the end");
    }
}

#[test]
fn nothing_reads_as_zeros() {
    let (rig, mut pair) = Rig::started_with(&Backing::null(1 << 20), Options::default());
    rig.ram.write_at(DATA, &[0xee; 65536]).unwrap();
    let prps = rig.prps(DATA + 4, 65536 - 512, LISTS);
    assert_eq!(rig.run(&mut pair, Command::blocks(WRITE, 0, 127, prps)).status, 0);
    assert_eq!(rig.run(&mut pair, Command::blocks(READ, 0, 127, prps)).status, 0);
    assert_eq!(rig.bytes(DATA, 4), [0xee; 4]);
    assert!(rig.bytes(DATA + 4, 65536 - 512).iter().all(|byte| *byte == 0));
}

#[test]
fn commands_that_cannot_be_done_say_why_and_move_nothing() {
    let (rig, mut pair) = Rig::started();
    let blocks = 64 << 11;
    rig.ram.write_at(LISTS, &(DATA + 4).to_le_bytes()).unwrap();
    rig.ram.write_at(LISTS + 4088, &(LISTS + 8).to_le_bytes()).unwrap();
    let ok = (DATA, DATA + 4096);
    let cases = [
        ("unknown opcode", Command::io(0x7f).prps(ok), 0x01),
        ("compare", Command::io(5).prps(ok), 0x01),
        ("fused", Command::blocks(READ, 0, 1, ok).word(0, 2 | 1 << 8), 0x02),
        ("scatter-gather list", Command::blocks(READ, 0, 1, ok).word(0, 2 | 1 << 14), 0x02),
        ("no namespace", Command::blocks(READ, 0, 1, ok).word(1, 0), 0x0b),
        ("namespace 2", Command::blocks(WRITE, 0, 1, ok).word(1, 2), 0x0b),
        ("flush of namespace 2", Command::new(FLUSH).word(1, 2), 0x0b),
        ("all namespaces", Command::blocks(READ, 0, 1, ok).word(1, u32::MAX), 0x0b),
        ("past the end", Command::blocks(READ, blocks, 1, ok), 0x80),
        ("across the end", Command::blocks(WRITE, blocks - 1, 2, ok), 0x80),
        ("a block number that wraps", Command::blocks(READ, u64::MAX, 2, ok), 0x80),
        ("more than a transfer can be", Command::blocks(READ, 0, 1025, ok), 0x02),
        ("65536 blocks", Command::blocks(READ, 0, 0, ok), 0x02),
        ("PRP 1 not at a dword", Command::blocks(READ, 0, 1, (DATA + 2, 0)), 0x13),
        ("PRP 2 not a page", Command::blocks(READ, 0, 16, (DATA, DATA + 4100)), 0x13),
        ("a list not at a qword", Command::blocks(READ, 0, 24, (DATA, LISTS + 4)), 0x13),
        ("an entry that is no page", Command::blocks(READ, 0, 24, (DATA, LISTS)), 0x13),
        (
            "a list that leads on to no page",
            Command::blocks(READ, 0, 24, (DATA, LISTS + 4088)),
            0x13,
        ),
        ("PRP 1 where there is no memory", Command::blocks(READ, 0, 1, (1 << 40, 0)), 0x04),
        ("PRP 2 where there is no memory", Command::blocks(READ, 0, 16, (DATA, 1 << 40)), 0x04),
        ("a list where there is no memory", Command::blocks(READ, 0, 24, (DATA, 1 << 40)), 0x04),
        ("PRPs at the end of addresses", Command::blocks(WRITE, 0, 8, (!0xfff, 0)), 0x04),
        ("a list at the end", Command::blocks(READ, 0, 1024, (DATA, !0xfff)), 0x04),
        ("PRP 1 that wraps", Command::blocks(READ, 0, 16, (!0xfff, 0)), 0x04),
    ];
    rig.ram.write_at(DATA, &[0xee; 8192]).unwrap();
    for (id, (what, command, status)) in (100..).zip(cases) {
        let done = rig.run(&mut pair, command.id(id));
        assert_eq!((done.status, done.id, done.queue), (status, id, 1), "{what}");
        assert_eq!(done.retry, status == 0x04, "{what}");
    }
    let counters = rig.counters.snapshot();
    assert_eq!(counters.errors, cases.len() as u64);
    assert_eq!((counters.reads, counters.writes), (0, 0));
    assert_eq!(rig.bytes(DATA, 8192), [0xee; 8192]);
    assert_eq!(rig.run(&mut pair, Command::blocks(READ, blocks - 1, 1, ok)).status, 0);
}

#[test]
fn a_backing_or_an_option_that_cannot_be_is_refused() {
    let make = |backing: &Backing, options| Nvme::new(backing, options).map(|_| ());
    let null = Backing::null(1 << 20);
    make(&null, Options::default()).unwrap();
    assert!(make(&Backing::null(511), Options::default()).is_err());
    assert!(make(&Backing::memory(0), Options::default()).is_err());
    assert!(make(&Backing::memory(u64::MAX), Options::default()).is_err());
    assert!(make(&Backing::memory(1 << 62), Options::default()).is_err());
    assert!(make(&Backing::file("/nowhere/at/all"), Options::default()).is_err());
    let serial = |serial: &str| Options { serial: Some(serial.into()), ..Options::default() };
    assert!(make(&null, serial("")).is_err());
    assert!(make(&null, serial("exactly twenty chars")).is_ok());
    assert!(make(&null, serial("twenty-one characters")).is_err());
    assert!(make(&null, serial("für")).is_err());
    assert!(make(&null, Options { block_size: 1024, ..Options::default() }).is_err());
    assert!(make(&null, Options { queues: 0, ..Options::default() }).is_err());
    assert!(make(&null, Options { queues: 129, ..Options::default() }).is_err());
    assert!(make(&null, Options { entries: 1, ..Options::default() }).is_err());
    assert!(make(&null, Options { entries: 65_537, ..Options::default() }).is_err());
}
