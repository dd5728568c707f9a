//! A block device (virtio 1.2, 5.2).

use core::sync::atomic::{AtomicU64, Ordering};

use gasp_disk::{Allocation, Backing, Data, Direction, Disk, DiskError, Failure, Part, serial};
use gasp_vdev::Class;
use parking_lot::Mutex;
use thiserror::Error;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use self::request::{HEADER, ID, Operation, RANGE, RANGES_MAX, Range, SECTOR};
use crate::device::{Kind, VirtioDevice, Waits};
use crate::queue::{ActiveQueue, Broken, Chain, Segments};

mod config;
mod request;

/// How much of a request is mapped at a time. A revoke of its memory waits for the transfer of this
/// much at most.
const STEP: u64 = 1 << 20;

/// Options of a block device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The block size that the driver is advised to use: 512 or 4096 bytes. The backing is a
    /// multiple of it.
    pub block_size: u32,
    /// Whether the driver can read only. A file is then shared with others that only read it.
    pub read_only: bool,
    /// The serial number: 1 to 20 printable ASCII characters. With `None` it is derived from the
    /// file's path, the same each time; a device without a file gets a new one.
    pub serial: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { block_size: 512, read_only: false, serial: None }
    }
}

/// Why a block device cannot be created.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The backing cannot be opened.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The block size.
    #[error("the block size must be 512 or 4096 bytes, and {0} were requested")]
    BlockSize(u32),
    /// The serial number.
    #[error("a serial must have 1 to 20 printable ASCII characters, and {0:?} was requested")]
    Serial(String),
}

/// A block device: read, write, flush, discard, write zeroes and get ID.
///
/// Data moves straight between the backing and the guest's memory, at most 1 MiB at a time. A driver
/// that does not accept `VIRTIO_BLK_F_FLUSH` has a disk without a write cache.
#[derive(Debug)]
pub struct Block {
    disk: Disk,
    serial: String,
    features: AtomicU64,
    /// Only the device's thread takes the lock.
    transfer: Mutex<Transfer>,
}

/// What a transfer uses; kept so that its memory is used again.
#[derive(Debug, Default)]
struct Transfer {
    parts: Vec<Part>,
    data: Data,
}

/// How a request fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    /// It is not supported.
    Unsupported,
    /// It cannot be carried out: the guest's memory, the range, or the backing.
    Failed,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        tracing::debug!(%failure, "a request fails");
        Self::Failed
    }
}

impl Block {
    /// Creates a block device whose blocks are stored in `backing`.
    ///
    /// # Errors
    /// If an option is out of range, or the backing is not a disk (see [`DiskError`]).
    pub fn new(backing: &Backing, options: Options) -> Result<Self, BlockError> {
        let Options { block_size, read_only, serial } = options;
        if ![512, 4096].contains(&block_size) {
            return Err(BlockError::BlockSize(block_size));
        }
        let is_serial = |text: &String| {
            let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            printable && (1..=serial::LEN_MAX).contains(&text.len())
        };
        let disk = match read_only {
            true => Disk::open_read_only(backing, block_size.trailing_zeros())?,
            false => Disk::open(backing, block_size.trailing_zeros())?,
        };
        let serial = serial.map_or_else(|| serial::of(backing), Ok)?;
        if !is_serial(&serial) {
            return Err(BlockError::Serial(serial));
        }
        let (features, transfer) = (AtomicU64::new(0), Mutex::default());
        Ok(Self { disk, serial, features, transfer })
    }

    /// The serial number, from the options or derived from the backing.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.disk.blocks() << self.disk.block_shift()
    }

    /// Carries out a request, and returns its status and how many bytes of data were written to the
    /// guest.
    fn carry_out(&self, queue: &mut ActiveQueue<'_>, chain: &Chain, room: u64) -> (u32, u64) {
        let mut header = [0; HEADER as usize];
        let done = match chain.readable.read(queue.context(), 0, &mut header) {
            Ok(()) => self.execute(queue, chain, Operation::of(header), room),
            Err(_) => Err(Refusal::Failed),
        };
        match done {
            Ok(written) => (VIRTIO_BLK_S_OK, written),
            Err(Refusal::Unsupported) => (VIRTIO_BLK_S_UNSUPP, 0),
            Err(Refusal::Failed) => (VIRTIO_BLK_S_IOERR, 0),
        }
    }

    fn execute(
        &self,
        queue: &mut ActiveQueue<'_>,
        chain: &Chain,
        operation: Operation,
        room: u64,
    ) -> Result<u64, Refusal> {
        match operation {
            Operation::Read(sector) => {
                self.check(sector, room)?;
                self.transfer(queue, sector, &chain.writable, 0..room, Direction::ToGuest)?;
                Ok(room)
            }
            Operation::Write(sector) => {
                let range = HEADER..chain.readable.len();
                self.check(sector, range.end - range.start)?;
                self.transfer(queue, sector, &chain.readable, range, Direction::FromGuest)?;
                self.write_through(queue)?;
                Ok(0)
            }
            Operation::Flush => {
                self.flush(queue)?;
                Ok(0)
            }
            Operation::GetId => {
                let mut id = [0; ID];
                let places = id.iter_mut().zip(self.serial.bytes());
                places.for_each(|(place, byte)| *place = byte);
                let id = id.get(..usize::try_from(room).unwrap_or(ID).min(ID)).unwrap_or_default();
                let written = chain.writable.write(queue.context(), 0, id);
                written.map_err(|_| Refusal::Failed)?;
                Ok(id.len() as u64)
            }
            Operation::Discard | Operation::WriteZeroes => {
                self.clear(queue, chain, operation)?;
                Ok(0)
            }
            Operation::Unknown => Err(Refusal::Unsupported),
        }
    }

    /// Refuses what is not whole sectors of the disk.
    fn check(&self, sector: u64, len: u64) -> Result<(), Refusal> {
        let sectors = self.size() / SECTOR;
        let end = sector.checked_add(len / SECTOR);
        match len.is_multiple_of(SECTOR) && end.is_some_and(|end| end <= sectors) {
            true => Ok(()),
            false => Err(Refusal::Failed),
        }
    }

    /// Moves data between the disk from `sector` on, and a range of a chain's buffers. The disk has
    /// these sectors.
    fn transfer(
        &self,
        queue: &ActiveQueue<'_>,
        sector: u64,
        segments: &Segments,
        range: core::ops::Range<u64>,
        direction: Direction,
    ) -> Result<(), Failure> {
        let mut transfer = self.transfer.lock();
        let Transfer { parts, data } = &mut *transfer;
        let mut offset = sector * SECTOR;
        for start in range.clone().step_by(STEP as usize) {
            if queue.should_stop() {
                return Err(Failure::Stopped);
            }
            let len = STEP.min(range.end - start);
            parts.clear();
            parts.extend(segments.range(start, len));
            data.map(queue.context(), parts, direction)?;
            let moved = match direction {
                Direction::ToGuest => self.disk.read(offset, data),
                Direction::FromGuest => self.disk.write(offset, data),
            };
            data.finish(queue.context(), moved)?;
            offset += len;
        }
        Ok(())
    }

    /// Discards or zeroes ranges.
    fn clear(
        &self,
        queue: &mut ActiveQueue<'_>,
        chain: &Chain,
        operation: Operation,
    ) -> Result<(), Refusal> {
        if self.disk.is_read_only() {
            return Err(Refusal::Failed);
        }
        let len = chain.readable.len() - HEADER;
        let most = u64::from(RANGES_MAX) * RANGE as u64;
        if len == 0 || len > most || !len.is_multiple_of(RANGE as u64) {
            return Err(Refusal::Failed);
        }
        let mut ranges = Vec::new();
        for at in (HEADER..chain.readable.len()).step_by(RANGE) {
            let mut bytes = [0; RANGE];
            let read = chain.readable.read(queue.context(), at, &mut bytes);
            read.map_err(|_| Refusal::Failed)?;
            ranges.push(Range::of(bytes));
        }
        // All of them are checked before the first is touched.
        for range in &ranges {
            range.may_release(operation).ok_or(Refusal::Unsupported)?;
            self.check(range.sector, u64::from(range.sectors) * SECTOR)?;
        }
        queue.end_turn();
        for range in &ranges {
            let allocation = match range.may_release(operation) {
                Some(true) => Allocation::Release,
                _ => Allocation::Keep,
            };
            let (start, len) = (range.sector * SECTOR, u64::from(range.sectors) * SECTOR);
            self.disk.zero(start, len, allocation, || queue.should_stop())?;
        }
        self.write_through(queue)
    }

    /// Flushes what was written if the driver knows of no write cache.
    fn write_through(&self, queue: &mut ActiveQueue<'_>) -> Result<(), Refusal> {
        match self.features.load(Ordering::Relaxed) & 1 << VIRTIO_BLK_F_FLUSH {
            0 => self.flush(queue),
            _ => Ok(()),
        }
    }

    /// Waits until what was written is on stable storage.
    fn flush(&self, queue: &mut ActiveQueue<'_>) -> Result<(), Refusal> {
        queue.end_turn();
        Ok(self.disk.flush()?)
    }
}

impl VirtioDevice for Block {
    fn kind(&self) -> Kind {
        let class = Class { base: 0x01, sub: 0x80, interface: 0 };
        Kind { id: VIRTIO_ID_BLOCK as u16, class }
    }

    fn queues(&self) -> Vec<u16> {
        vec![config::QUEUE]
    }

    fn features(&self) -> u64 {
        config::features(self.disk.is_read_only())
    }

    fn config(&self) -> Vec<u8> {
        config::config(self.size() / SECTOR, 1 << self.disk.block_shift())
    }

    fn start(&self, features: u64) {
        self.features.store(features, Ordering::Relaxed);
    }

    fn serve(&self, _: u16, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken> {
        while let Some(chain) = queue.next()? {
            let request = |why| Broken::Request { head: chain.head(), why };
            if chain.readable.len() < HEADER {
                return Err(request("it has no header of 16 bytes"));
            }
            // The status is the last byte that the device may write.
            let room = chain.writable.len().checked_sub(1);
            let room = room.ok_or_else(|| request("it has no room for a status"))?;
            let (status, written) = self.carry_out(queue, &chain, room);
            let answered = chain.writable.write(queue.context(), room, &[status as u8]);
            // What has ended early for that is never complete.
            if queue.should_stop() {
                break;
            }
            answered.map_err(|_| Broken::Answer { head: chain.head() })?;
            // The length counts what was written from the first byte on without a gap (2.7.8.2).
            let written = if written == room { room + 1 } else { written };
            queue.complete(&chain, u32::try_from(written).unwrap_or(u32::MAX))?;
        }
        Ok(Waits::ForDriver)
    }
}
