//! The block device.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use gasp::{Access, DeviceAddr};
use gasp_virtio::block::{Block, BlockError, Options};
use gasp_virtio::{Backing, DiskError};

use crate::counted::Counted;
use crate::driver::{Buffer, DATA, Driver, EVENT_IDX, INDIRECT, IOVA, Noise};
use crate::faults::fail;

pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
/// Statuses.
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
const WITH_CACHE: u64 = 1 << 9;

/// Where headers and statuses are.
const HEADER: u64 = DATA;
const STATUS: u64 = DATA + 0x1000;
/// Where data is.
const BYTES: u64 = DATA + 0x10_0000;
const SIZE: u64 = 4 << 20;

/// An image file, removed at the end.
struct Image(PathBuf);

impl Image {
    fn new(name: &str, contents: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("gasp-virtio-{name}-{}", std::process::id()));
        fs::write(&path, contents).unwrap();
        Self(path)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn memory() -> Driver {
    let mut driver =
        Driver::attach(Block::new(&Backing::memory(SIZE), Options::default()).unwrap());
    driver.start(WITH_CACHE | EVENT_IDX, 64);
    driver
}

fn header(driver: &Driver, kind: u32, sector: u64) {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    driver.bus.store(HEADER, &bytes).unwrap();
    driver.bus.store(STATUS, &[0xee]).unwrap();
}

/// One request with this data. Returns its status, and how much was written.
fn request(driver: &mut Driver, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
    header(driver, kind, sector);
    let mut buffers = vec![(HEADER, 16, false)];
    buffers.extend(data);
    buffers.push((STATUS, 1, true));
    let written = driver.run(0, &buffers);
    (driver.bytes(STATUS, 1)[0], written)
}

#[test]
fn what_is_written_is_read_back_whatever_buffers_it_is_in() {
    let image = Image::new("back", &vec![0; SIZE as usize]);
    let mut noise = Noise(7);
    for backing in [Backing::memory(SIZE), Backing::file(&image.0)] {
        let mut driver = Driver::attach(Block::new(&backing, Options::default()).unwrap());
        driver.start(WITH_CACHE | EVENT_IDX | INDIRECT, 64);
        let mut model = vec![0; SIZE as usize];
        for _ in 0..60 {
            let most = if noise.below(8) == 0 { 3000 } else { 40 };
            let len = 512 * (1 + noise.below(most));
            let sector = noise.below((SIZE - len) / 512 + 1);
            let at = BYTES + noise.below(0x1000);
            // Cut into buffers anywhere.
            let mut cuts = vec![0, len];
            cuts.extend((0..noise.below(6)).map(|_| noise.below(len)));
            cuts.sort_unstable();
            let buffers = |writes| -> Vec<Buffer> {
                let pairs = cuts.windows(2);
                pairs.map(|cut| (at + cut[0], (cut[1] - cut[0]) as u32, writes)).collect()
            };
            let (start, end) = ((sector * 512) as usize, (sector * 512 + len) as usize);
            if noise.below(2) == 0 {
                let data = noise.bytes(len as usize);
                driver.bus.store(at, &data).unwrap();
                assert_eq!(request(&mut driver, OUT, sector, &buffers(false)), (OK, 1));
                model[start..end].copy_from_slice(&data);
            } else {
                let done = request(&mut driver, IN, sector, &buffers(true));
                assert_eq!(done, (OK, len as u32 + 1));
                assert!(driver.bytes(at, len as usize) == model[start..end]);
            }
        }
        assert_eq!(request(&mut driver, FLUSH, 0, &[]), (OK, 1));
        assert_eq!(driver.bus.guest().take_faults(), gasp::Faults::default());
    }
}

#[test]
fn a_header_and_a_status_may_be_split_and_joined_with_the_data() {
    let mut driver = memory();
    let data = Noise(3).bytes(1024);
    header(&driver, OUT, 5);
    driver.bus.store(HEADER + 16, &data).unwrap();
    // The header in three buffers, the last of which goes on with the data.
    let buffers =
        [(HEADER, 3, false), (HEADER + 3, 9, false), (HEADER + 12, 1028, false), (STATUS, 1, true)];
    assert_eq!(driver.run(0, &buffers), 1);
    assert_eq!(driver.bytes(STATUS, 1), [OK]);
    // The status is the last byte of the data's buffer.
    header(&driver, IN, 5);
    assert_eq!(driver.run(0, &[(HEADER, 16, false), (BYTES, 1025, true)]), 1025);
    assert_eq!(driver.bytes(BYTES, 1024), data);
    assert_eq!(driver.bytes(BYTES + 1024, 1), [OK]);
    // In an indirect table.
    driver.bus.store(BYTES, &[0; 1024]).unwrap();
    let table = DATA + 0x2000;
    driver.put_indirect(0, table, &[(HEADER, 16, false), (BYTES, 1024, true), (STATUS, 1, true)]);
    driver.notify(0);
    assert_eq!(driver.wait(0).1, 1025);
    assert_eq!(driver.bytes(BYTES, 1024), data);
}

#[test]
fn the_configuration_says_what_the_disk_is() {
    let options = Options { block_size: 4096, serial: Some("disk 7".into()), read_only: false };
    let mut driver = Driver::attach(Block::new(&Backing::memory(SIZE), options).unwrap());
    let at = driver.device.unwrap();
    assert_eq!(driver.read::<8>(at), SIZE / 512);
    let fields =
        [0x0c, 0x14, 0x24, 0x28, 0x2c, 0x30, 0x34].map(|field| driver.read::<4>(at + field));
    let all = u64::from(u32::MAX);
    assert_eq!(fields, [254, 4096, all, 16, 8, all, 16]);
    assert_eq!((driver.read::<2>(at + 0x22), driver.read::<1>(at + 0x38)), (1, 1));
    driver.write::<8>(at, 1);
    assert_eq!(driver.read::<8>(at), SIZE / 512, "it cannot be written");
    driver.start(WITH_CACHE, 64);
    driver.bus.store(BYTES, &[0xff; 32]).unwrap();
    assert_eq!(request(&mut driver, GET_ID, 0, &[(BYTES, 20, true)]), (OK, 21));
    assert_eq!(driver.bytes(BYTES, 21), [b"disk 7".as_slice(), &[0; 14], &[0xff]].concat());
    assert_eq!(request(&mut driver, GET_ID, 0, &[(BYTES, 4, true)]), (OK, 5));
    assert_eq!(request(&mut driver, GET_ID, 0, &[(BYTES, 32, true)]), (OK, 20));
}

#[test]
fn a_request_past_the_end_or_of_no_whole_sectors_fails_and_changes_nothing() {
    let mut driver = memory();
    let sectors = SIZE / 512;
    driver.bus.store(BYTES, &[0xaa; 4096]).unwrap();
    let cases = [
        (OUT, sectors, 512, IOERR),
        (OUT, sectors - 1, 1024, IOERR),
        (OUT, u64::MAX, 512, IOERR),
        (OUT, u64::MAX / 512, 512, IOERR),
        (OUT, 1 << 55, 512, IOERR),
        (OUT, 0, 511, IOERR),
        (OUT, 0, 513, IOERR),
        (99, 0, 512, UNSUPP),
        (14, 0, 512, UNSUPP),
        (OUT, sectors - 1, 512, OK),
    ];
    for (kind, sector, len, status) in cases {
        let done = request(&mut driver, kind, sector, &[(BYTES, len, false)]);
        assert_eq!(done, (status, 1), "{kind} {sector} {len}");
    }
    for (sector, len) in [(sectors, 512), (sectors - 1, 1024), (u64::MAX, 512), (0, 100)] {
        assert_eq!(request(&mut driver, IN, sector, &[(BYTES, len, true)]), (IOERR, 0));
    }
    assert_eq!(driver.bytes(BYTES, 4096), [0xaa; 4096]);
    assert_eq!(request(&mut driver, IN, 0, &[(BYTES, 4096, true)]), (OK, 4097));
    assert_eq!(driver.bytes(BYTES, 4096), [0; 4096]);
}

#[test]
fn ranges_are_zeroed_all_of_them_or_none() {
    let mut driver = memory();
    let fill = |driver: &mut Driver| {
        driver.bus.store(BYTES, &[0xaa; 0x4000]).unwrap();
        assert_eq!(request(driver, OUT, 0, &[(BYTES, 0x4000, false)]), (OK, 1));
    };
    let clear = |driver: &mut Driver, kind, ranges: &[(u64, u32, u32)]| {
        let encode = |&(sector, sectors, flags): &(u64, u32, u32)| {
            let words = [sectors.to_le_bytes(), flags.to_le_bytes()].concat();
            [sector.to_le_bytes().to_vec(), words].concat()
        };
        let bytes: Vec<u8> = ranges.iter().flat_map(encode).collect();
        driver.bus.store(BYTES, &bytes).unwrap();
        let buffers = [(BYTES, bytes.len() as u32, false)];
        let status = request(driver, kind, 0, &buffers);
        let read = [(BYTES, 0x4000, true)];
        assert_eq!(request(driver, IN, 0, &read), (OK, 0x4001));
        let sectors = driver.bytes(BYTES, 0x4000);
        let zero: Vec<usize> =
            (0..32).filter(|at| sectors[512 * at..512 * (at + 1)] == [0; 512]).collect();
        (status.0, zero)
    };
    let sectors = SIZE / 512;
    for (kind, flags) in [(DISCARD, 0), (WRITE_ZEROES, 0), (WRITE_ZEROES, 1)] {
        fill(&mut driver);
        let done = clear(&mut driver, kind, &[(1, 2, flags), (30, 2, flags), (9, 0, flags)]);
        assert_eq!(done, (OK, vec![1, 2, 30, 31]));
    }
    fill(&mut driver);
    let refused = [
        (DISCARD, vec![(0, 1, 0), (sectors, 1, 0)], IOERR),
        (DISCARD, vec![(0, 1, 0), (u64::MAX, 2, 0)], IOERR),
        (DISCARD, vec![(0, u32::MAX, 0)], IOERR),
        (DISCARD, vec![(0, 1, 0), (1, 1, 1)], UNSUPP),
        (WRITE_ZEROES, vec![(0, 1, 0), (1, 1, 2)], UNSUPP),
        (DISCARD, vec![(0, 1, 0); 17], IOERR),
        (WRITE_ZEROES, vec![], IOERR),
    ];
    for (kind, ranges, status) in refused {
        assert_eq!(clear(&mut driver, kind, &ranges), (status, vec![]), "{ranges:?}");
    }
    // Half a range.
    assert_eq!(request(&mut driver, DISCARD, 0, &[(BYTES, 24, false)]), (IOERR, 1));
}

#[test]
fn a_disk_for_reading_only_says_so_and_is_not_written() {
    let image = Image::new("read-only", &[7; 4096]);
    let options = Options { read_only: true, ..Options::default() };
    let block = Block::new(&Backing::file(&image.0), options).unwrap();
    let mut driver = Driver::attach(block);
    let offered = driver.offered();
    assert_eq!(offered & (1 << 5 | 1 << 13 | 1 << 14), 1 << 5);
    driver.start(1 << 5, 64);
    assert_eq!(request(&mut driver, OUT, 0, &[(BYTES, 512, false)]), (IOERR, 1));
    for kind in [DISCARD, WRITE_ZEROES] {
        driver.bus.store(BYTES, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(request(&mut driver, kind, 0, &[(BYTES, 16, false)]), (IOERR, 1));
    }
    assert_eq!(request(&mut driver, IN, 0, &[(BYTES, 512, true)]), (OK, 513));
    assert_eq!(driver.bytes(BYTES, 512), [7; 512]);
    assert_eq!(request(&mut driver, FLUSH, 0, &[]), (OK, 1));
    drop(driver);
    assert_eq!(fs::read(&image.0).unwrap(), [7; 4096]);
}

#[test]
fn what_waits_for_the_disk_has_a_turn_of_its_own() {
    let block = Block::new(&Backing::memory(SIZE), Options::default()).unwrap();
    let (block, turns) = Counted::new(block);
    let mut driver = Driver::attach(block);
    // With a write cache a flush waits, and a range that is cleared; without one a write does.
    for (features, kind, len) in [(WITH_CACHE, FLUSH, 0), (0, OUT, 512), (WITH_CACHE, DISCARD, 16)]
    {
        driver.start(features, 64);
        header(&driver, kind, 0);
        driver.bus.store(BYTES, &[0; 512]).unwrap();
        let before = turns[0].load(Ordering::Relaxed);
        for _ in 0..16 {
            driver.put(0, &[(HEADER, 16, false), (BYTES, len, false), (STATUS, 1, true)]);
        }
        driver.notify(0);
        for _ in 0..16 {
            driver.wait(0);
        }
        let turns = turns[0].load(Ordering::Relaxed) - before;
        assert!(turns >= 16, "{kind}: {turns} turns of 16 requests");
    }
}

#[test]
fn data_that_the_iommu_refuses_fails_the_request_and_is_recorded() {
    let mut driver = memory();
    driver.bus.store(BYTES, &[0xaa; 8192]).unwrap();
    assert_eq!(request(&mut driver, OUT, 0, &[(BYTES, 8192, false)]), (OK, 1));
    driver.revoke(BYTES + 4096);
    let two = [(BYTES, 8192, true)];
    assert_eq!(request(&mut driver, IN, 0, &two), (IOERR, 0));
    let faults = driver.bus.guest().take_faults();
    assert_eq!(faults.records[0].addr, DeviceAddr(IOVA + BYTES + 4096));
    assert_eq!(request(&mut driver, OUT, 8, &[(BYTES, 8192, false)]), (IOERR, 1));
    driver.grant(BYTES + 4096, Access::READ);
    assert_eq!(request(&mut driver, IN, 0, &two), (IOERR, 0));
    assert_eq!(request(&mut driver, OUT, 8, &[(BYTES, 8192, false)]), (OK, 1));
    // Addresses that are none.
    for addr in [u64::MAX - IOVA - 511, (1 << 52) - IOVA, 1 << 40] {
        assert_eq!(request(&mut driver, IN, 0, &[(addr, 512, true)]), (IOERR, 0), "{addr:#x}");
    }
    // A header that cannot be read.
    driver.revoke(HEADER);
    assert_eq!(driver.run(0, &[(HEADER, 16, false), (STATUS, 1, true)]), 1);
    assert_eq!(driver.bytes(STATUS, 1), [IOERR]);
    assert_eq!(driver.status(), 15, "the device goes on");
}

#[test]
fn a_request_of_hundreds_of_megabytes_takes_no_memory_of_its_size() {
    let backing = Backing::null(4 << 30);
    let mut driver = Driver::attach(Block::new(&backing, Options::default()).unwrap());
    driver.start(WITH_CACHE, 64);
    // The same 8 MiB, 40 times.
    let data = vec![(BYTES, 8 << 20, true); 40];
    assert_eq!(request(&mut driver, IN, 0, &data), (OK, 40 * (8 << 20) + 1));
}

#[test]
fn errors_of_the_file_fail_the_request_and_a_driver_without_flush_hears_of_them_at_once() {
    let image = Image::new("errors", &[0; 1 << 16]);
    // The device's thread inherits what this thread may not do.
    fail(libc::SYS_fdatasync, libc::EIO);
    let new = || Block::new(&Backing::file(&image.0), Options::default()).unwrap();
    let mut driver = Driver::attach(new());
    driver.start(WITH_CACHE, 64);
    driver.bus.store(BYTES, &[5; 512]).unwrap();
    assert_eq!(request(&mut driver, OUT, 1, &[(BYTES, 512, false)]), (OK, 1));
    assert_eq!(request(&mut driver, FLUSH, 0, &[]), (IOERR, 1));
    driver.start(0, 64);
    assert_eq!(request(&mut driver, OUT, 2, &[(BYTES, 512, false)]), (IOERR, 1));
    let range = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    driver.bus.store(BYTES, &range).unwrap();
    assert_eq!(request(&mut driver, DISCARD, 0, &[(BYTES, 16, false)]), (IOERR, 1));
    assert_eq!(request(&mut driver, IN, 1, &[(BYTES, 512, true)]), (OK, 513));
    assert_eq!(driver.bytes(BYTES, 512), [5; 512]);
    drop(driver);
    fail(libc::SYS_preadv, libc::EIO);
    let mut driver = Driver::attach(new());
    driver.start(WITH_CACHE, 64);
    assert_eq!(request(&mut driver, IN, 1, &[(BYTES, 512, true)]), (IOERR, 0));
    assert_eq!(request(&mut driver, OUT, 1, &[(BYTES, 512, false)]), (OK, 1));
}

#[test]
fn options_and_backings_that_are_no_disk_are_refused() {
    let memory = Backing::memory(SIZE);
    let new = |options| Block::new(&memory, options);
    let block_size = Options { block_size: 1024, ..Options::default() };
    assert!(matches!(new(block_size), Err(BlockError::BlockSize(1024))));
    for serial in ["", "twenty-one characters", "tab\t"] {
        let options = Options { serial: Some(serial.into()), ..Options::default() };
        assert!(matches!(new(options), Err(BlockError::Serial(_))), "{serial:?}");
    }
    let empty = Block::new(&Backing::memory(0), Options::default());
    assert!(matches!(empty, Err(BlockError::Disk(DiskError::Empty { .. }))));
    let block = new(Options::default()).unwrap();
    assert_eq!((block.size(), block.serial().len()), (SIZE, 20));
}
