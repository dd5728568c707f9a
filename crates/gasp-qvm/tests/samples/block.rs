//! `vdev-block.c`, by the sequences of a driver of virtio disks.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use gasp::{Access, DeviceAddr, FrameAccess, MapFlags};

use crate::Test;
use crate::device::{Device, Numbers, library, until};
use crate::driver::{CONFIG, DATA, Driver, NOTIFY, STATUS, VERSION_1, WRITE, rings};

/// Where a request's header and status are.
const HEADER: u64 = 0x30_0000;
const RESULT: u64 = 0x30_0100;
/// Where the guest's memory is not consecutive.
const SEAM: u64 = 0x28_0000;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
/// Nothing was written to the place of the status.
const NONE: u8 = 0xee;

const SECTORS: u64 = 64;

pub(crate) const TESTS: &[Test] = &[
    ("block: the driver finds a disk", describes),
    ("block: what is written is on the disk, and is read back", transfers),
    ("block: it shows the host-physical addresses of the engine", addresses),
    ("block: requests that are wrong fail, and the next one does not", wrong),
    ("block: a disk that is read-only is not written", readonly),
    ("block: what the guest's IOMMU refuses is an error of the request", refused),
    ("block: requests at random do no harm", hostile),
    ("block: a reset ends what is in progress", reset),
];

/// Those that need no host-physical addresses.
pub(crate) const UNPRIVILEGED: &[Test] = &[("block: a disk that is none is refused", options)];

/// Why no test of a disk can run here.
pub(crate) fn lack() -> Option<String> {
    match gasp::frame_access() {
        FrameAccess::Allowed => None,
        FrameAccess::Denied(why) => Some(why.to_owned()),
    }
}

struct Disk {
    driver: Driver,
    file: tempfile::NamedTempFile,
    requests: u16,
}

fn content() -> Vec<u8> {
    (0..SECTORS * 512).map(|at| (at / 512 * 7 + at) as u8).collect()
}

impl Disk {
    fn new(edition: u32, options: &str, iommu: bool) -> Self {
        // A part of a sector more, which is not used.
        Self::with(edition, options, iommu, &[content(), vec![1; 100]].concat())
    }

    fn with(edition: u32, options: &str, iommu: bool, content: &[u8]) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, content).unwrap();
        let library = library("block", edition);
        let line =
            format!("hostdev {} {options} intr ioapic:12 loc 0xfa000000", file.path().display());
        let driver = Driver::new(&library, &line, iommu);
        Self { driver, file, requests: 0 }
    }

    fn start(edition: u32, options: &str) -> Self {
        let mut disk = Self::new(edition, options, false);
        disk.resume();
        disk
    }

    fn resume(&mut self) {
        assert!(self.driver.negotiate(VERSION_1 | 1 << 9));
        self.driver.queue(0);
        self.driver.set(STATUS, 15);
        self.requests = 0;
    }

    /// A request: its status, and the bytes that the driver is told of.
    fn request(&mut self, kind: u32, sector: u64, data: &[(u64, u32)]) -> (u8, u32) {
        let flags = if kind == IN || kind == GET_ID { WRITE } else { 0 };
        let mut chain = vec![(HEADER, 16, 0)];
        chain.extend(data.iter().map(|&(addr, len)| (addr, len, flags)));
        chain.push((RESULT, 1, WRITE));
        self.chain(kind, sector, &chain)
    }

    fn chain(&mut self, kind: u32, sector: u64, chain: &[(u64, u32, u16)]) -> (u8, u32) {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.driver.poke(HEADER, &header);
        self.driver.poke(RESULT, &[NONE]);
        self.driver.chain(0, 0, chain);
        let slot = u64::from(self.requests % 8);
        self.requests = self.requests.wrapping_add(1);
        self.driver.set(NOTIFY, 0);
        until("the request is used", || self.driver.used(0, slot).0 == self.requests);
        (self.driver.peek::<1>(RESULT)[0], self.driver.used(0, slot).2)
    }

    fn on_disk(&self, sector: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.as_file().read_exact_at(&mut bytes, sector * 512).unwrap();
        bytes
    }

    /// Nothing stays mapped. For a moment the queue itself is, in which the next request is looked for.
    fn let_go(&self) {
        until("it lets go", || self.driver.vdev.held() == 0);
    }

    /// Nothing is mapped any more, and it ends.
    fn finish(self) {
        self.let_go();
        assert_eq!(self.driver.status() & 0x40, 0, "it needs no reset");
        assert!(self.driver.device.terminate().is_empty());
    }
}

fn describes(edition: u32) {
    let disk = Disk::new(edition, "", false);
    let driver = &disk.driver;
    assert_eq!((driver.get(0), driver.get(4), driver.get(8)), (0x7472_6976, 2, 2));
    driver.set(0x14, 0);
    assert_eq!(driver.get(0x10) & 0x00ff_ffff, 1 << 2 | 1 << 9);
    driver.set(0x14, 1);
    assert_eq!(driver.get(0x10) & 1, 1);
    assert_eq!((driver.get(CONFIG), driver.get(CONFIG + 4)), (SECTORS as u32, 0));
    assert_eq!(driver.read::<8>(CONFIG), SECTORS);
    assert_eq!((driver.read::<2>(CONFIG + 12), driver.read::<1>(CONFIG + 12)), (126, 126));
    assert_eq!(driver.get(CONFIG + 16), 0, "past the end");
    driver.set(CONFIG, 1);
    assert_eq!(driver.read::<8>(CONFIG), SECTORS, "read only");
    disk.finish();
    let disk = Disk::new(edition, "readonly", false);
    disk.driver.set(0x14, 0);
    assert_eq!(disk.driver.get(0x10) & 1 << 5, 1 << 5);
    disk.finish();
}

fn transfers(edition: u32) {
    let mut disk = Disk::start(edition, "");
    // Each buffer ends in the middle of a sector; one is on both sides of the seam.
    let buffers = [(DATA, 300), (DATA + 0x2ff0, 0x120), (SEAM - 0x100, 436)];
    assert_eq!(disk.request(IN, 3, &buffers), (OK, 1025));
    let content = content();
    assert_eq!(disk.driver.peek::<300>(DATA), content[1536..1836]);
    assert_eq!(disk.driver.peek::<0x120>(DATA + 0x2ff0), content[1836..2124]);
    assert_eq!(disk.driver.peek::<436>(SEAM - 0x100), content[2124..2560]);
    assert_eq!(disk.driver.peek::<8>(DATA + 300), [0; 8], "not past the buffer");
    assert_eq!(disk.request(OUT, 60, &buffers), (OK, 1));
    assert_eq!(disk.on_disk(60, 1024), content[1536..2560]);
    assert_eq!(
        (disk.on_disk(59, 512), disk.on_disk(62, 512)),
        (content[59 * 512..60 * 512].to_vec(), content[62 * 512..63 * 512].to_vec())
    );
    assert_eq!(disk.request(IN, 0, &[(DATA, 512 * SECTORS as u32)]), (OK, 32769));
    assert_eq!(disk.request(FLUSH, 0, &[]), (OK, 1));
    assert_eq!(disk.request(GET_ID, 0, &[(DATA, 20)]), (OK, 21));
    assert_eq!(disk.driver.peek::<20>(DATA), *b"gasp-block\0\0\0\0\0\0\0\0\0\0");
    // A header in three parts, and the status in the buffer of the data.
    let header = [(HEADER, 1, 0), (HEADER + 1, 8, 0), (HEADER + 9, 7, 0), (DATA, 513, WRITE)];
    assert_eq!(disk.chain(IN, 1, &header), (NONE, 513));
    assert_eq!(disk.driver.peek::<512>(DATA), content[512..1024]);
    assert_eq!(disk.driver.peek::<1>(DATA + 512), [OK]);
    disk.finish();
}

fn addresses(edition: u32) {
    let mut disk = Disk::start(edition, "verbose");
    assert!(disk.driver.device.status().ends_with(&format!(" {SECTORS} sectors; 0 runs\n")));
    assert_eq!(disk.request(IN, 0, &[(SEAM - 256, 512)]), (OK, 513));
    // The header, both sides of the seam, and the status.
    let mut expected = String::new();
    for (addr, len) in [(HEADER, 16), (SEAM - 256, 256), (SEAM, 256), (RESULT, 1)] {
        let flags = MapFlags::READ;
        let mapped = disk.driver.vdev.map_host_contig(DeviceAddr(addr), len, flags).unwrap();
        assert_eq!(mapped.run().len, len);
        let host = mapped.run().addr.0;
        expected += &format!("{addr:#x}: host-physical {host:#x}, {len} bytes\n");
    }
    let report = disk.driver.device.status();
    let (head, runs) = report.split_once('\n').unwrap();
    assert_eq!((runs, head.ends_with(" 4 runs")), (&*expected, true), "{report}");
    for _ in 0..3 {
        assert_eq!(disk.request(FLUSH, 0, &[]).0, OK);
    }
    let report = disk.driver.device.status();
    assert!(report.contains(" 10 runs\n") && report.lines().count() == 9, "{report}");
    disk.finish();
}

fn wrong(edition: u32) {
    let mut disk = Disk::start(edition, "");
    for (kind, sector, data, expected) in [
        (IN, SECTORS, &[(DATA, 512)][..], (IOERR, 513)),
        (IN, SECTORS - 1, &[(DATA, 1024)], (IOERR, 1025)),
        (IN, u64::MAX, &[(DATA, 512)], (IOERR, 513)),
        (IN, u64::MAX / 512, &[(DATA, 512)], (IOERR, 513)),
        (IN, 0, &[(DATA, 511)], (IOERR, 512)),
        (OUT, SECTORS, &[(DATA, 512)], (IOERR, 1)),
        (OUT, 0, &[(DATA, 513)], (IOERR, 1)),
        (GET_ID, 0, &[(DATA, 19)], (IOERR, 20)),
        (13, 0, &[], (UNSUPP, 1)),
        // No RAM, from the start and after a sector.
        (IN, 0, &[(0x1234_5000, 512)], (IOERR, 513)),
        (OUT, 0, &[(0x1234_5000, 512)], (IOERR, 1)),
        (IN, 0, &[(DATA, 512), (u64::MAX - 511, 512)], (IOERR, 1025)),
        // Nothing at all is nothing to do.
        (IN, SECTORS, &[], (OK, 1)),
        (OUT, 0, &[], (OK, 1)),
    ] {
        assert_eq!(disk.request(kind, sector, data), expected, "{kind} {sector} {data:x?}");
    }
    // Chains that are no requests.
    for (chain, expected) in [
        (&[(HEADER, 15, 0), (RESULT, 1, WRITE)][..], (IOERR, 1)),
        (&[(RESULT, 1, WRITE)], (IOERR, 1)),
        (&[(HEADER, 16, 0)], (NONE, 0)),
        (&[(HEADER, 16, 0), (RESULT, 0, WRITE)], (NONE, 0)),
        (&[(0x1234_5000, 16, 0), (RESULT, 1, WRITE)], (IOERR, 1)),
        (&[(HEADER, 16, 0), (DATA, 512, WRITE), (0x1234_5000, 1, WRITE)], (NONE, 0)),
    ] {
        assert_eq!(disk.chain(IN, 0, chain), expected, "{chain:x?}");
    }
    assert_eq!(disk.on_disk(0, content().len()), content(), "nothing was written");
    assert_eq!(disk.request(IN, 0, &[(DATA, 512)]), (OK, 513));
    // A file that is shorter than it was.
    disk.file.as_file().set_len(512).unwrap();
    assert_eq!(disk.request(IN, 0, &[(DATA, 1024)]), (IOERR, 1025));
    disk.finish();
}

fn readonly(edition: u32) {
    let mut disk = Disk::start(edition, "readonly");
    assert_eq!(disk.request(OUT, 0, &[(DATA, 512)]), (IOERR, 1));
    assert_eq!(disk.request(IN, 1, &[(DATA, 512)]), (OK, 513));
    assert_eq!(disk.on_disk(0, content().len()), content());
    disk.finish();
}

fn refused(edition: u32) {
    let mut disk = Disk::new(edition, "", true);
    for place in rings(0) {
        disk.driver.grant(place, 0x1000, Access::RW);
    }
    disk.driver.grant(HEADER, 0x1000, Access::RW);
    disk.driver.grant(DATA, 0x1000, Access::READ);
    disk.driver.grant(DATA + 0x1000, 0x1000, Access::RW);
    disk.resume();
    assert_eq!(disk.request(OUT, 0, &[(DATA, 512)]), (OK, 1));
    assert_eq!(disk.request(IN, 0, &[(DATA, 512)]), (IOERR, 513), "it may only be read");
    assert_eq!(disk.request(IN, 0, &[(DATA + 0x1000, 512)]), (OK, 513));
    assert_eq!(disk.request(OUT, 0, &[(DATA + 0x2000, 512)]), (IOERR, 1), "not at all");
    disk.finish();
}

fn hostile(edition: u32) {
    let mut disk = Disk::start(edition, "");
    let mut numbers = Numbers(2);
    let mut some = |from: &[u64]| from[numbers.next() as usize % from.len()];
    for _ in 0..300 {
        let kind = some(&[0, 1, 4, 8, 99]) as u32;
        let sector = some(&[0, 1, 63, 64, u64::MAX]);
        let count = some(&[1, 2, 3, 5, 8]) as usize;
        let mut chain: Vec<(u64, u32, u16)> = (0..count)
            .map(|_| {
                let addr = some(&[HEADER, HEADER, DATA, SEAM - 7, 0x3f_ff00, 0x40_0000, u64::MAX]);
                (addr, some(&[0, 1, 15, 16, 512, 0x1001, 0x20_0000]) as u32, some(&[0, 2]) as u16)
            })
            .collect();
        // What is read comes first; what does not is a matter of the queue.
        chain.sort_by_key(|(_, _, flags)| *flags);
        disk.chain(kind, sector, &chain);
        disk.let_go();
    }
    assert_eq!(disk.request(IN, 1, &[(DATA, 512)]).0, OK);
    disk.finish();
}

fn reset(edition: u32) {
    let mut disk = Disk::with(edition, "", false, &vec![1; 1 << 20]);
    disk.resume();
    for round in 0..40 {
        disk.driver.poke(HEADER, &[0; 16]);
        for _ in 0..8 {
            // As much as there is room for, so that it takes a while.
            let chain = [(HEADER, 16, 0), (DATA, 0x10_0000, WRITE), (RESULT, 1, WRITE)];
            disk.driver.chain(0, 0, &chain);
        }
        disk.driver.set(NOTIFY, 0);
        std::thread::sleep(Duration::from_micros(50 * (round % 8)));
        disk.driver.set(STATUS, 0);
        assert_eq!((disk.driver.status(), disk.driver.vdev.held()), (0, 0), "it is over");
        // The memory is the guest's again: no request of before writes to it.
        let ends = [DATA, DATA + 0xf_ffc0];
        ends.iter().for_each(|end| disk.driver.poke(*end, &[0x5a; 64]));
        disk.driver.restart();
        disk.resume();
        assert!(ends.iter().all(|end| disk.driver.peek::<64>(*end) == [0x5a; 64]));
        assert_eq!(disk.request(IN, 2, &[(DATA + 0x1_0000, 512)]), (OK, 513));
        disk.driver.set(STATUS, 0);
        disk.driver.restart();
        disk.resume();
    }
    disk.finish();
}

fn options(edition: u32) {
    let library = library("block", edition);
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    std::fs::write(&small, [0; 511]).unwrap();
    let folder = folder.path().display();
    for (options, part) in [
        (String::new(), "hostdev is missing"),
        (format!("hostdev {folder}/none"), "No such file"),
        (format!("hostdev {folder}"), "Is a directory"),
        (format!("hostdev {folder} readonly"), "Block device required"),
        (format!("hostdev {}", small.display()), "No space left"),
        ("hostdev /dev/null".to_owned(), "Block device required"),
    ] {
        let text = Device::refusal(&library, &format!("vdev block {options} loc 0xfa000000"));
        assert!(text.contains("block: hostdev") && text.contains(part), "{options}: {text}");
    }
    let text = Device::refusal(&library, "vdev block loc io:0x80");
    assert!(text.contains("in memory"), "{text}");
}
