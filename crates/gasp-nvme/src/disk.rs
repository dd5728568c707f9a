//! A namespace's blocks in their backing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::anonymous::Anonymous;
use super::backing::{Backing, Kind};
use super::data::{Data, Direction};
use super::error::NvmeError;
use super::status::Status;
use super::throttle::Throttle;
use super::{image, vectored};

/// A namespace's blocks.
#[derive(Debug)]
pub(super) struct Disk {
    store: Store,
    blocks: u64,
    /// The logarithm of a block's size.
    shift: u32,
    failures: Throttle,
}

#[derive(Debug)]
enum Store {
    File(File),
    /// Only the device's thread takes the lock.
    Memory(Mutex<Anonymous>),
    Null,
}

/// How much is zeroed between two checks of whether to stop: a guest may zero a whole disk with one
/// command, and if the file system has no call for it, zeros are written.
const PIECE: u64 = 16 << 20;

/// What becomes of the storage allocated for zeroed blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Allocation {
    Keep,
    Release,
}

impl Disk {
    /// Opens the backing; `1 << shift` is a block's size.
    pub(super) fn open(backing: &Backing, shift: u32) -> Result<Self, NvmeError> {
        let (store, size) = match &backing.0 {
            Kind::File(path) => {
                let (file, size) = image::open(path)?;
                (Store::File(file), size)
            }
            Kind::Memory(size) => {
                check_size(backing, *size, shift)?;
                let memory = Anonymous::new(*size)
                    .map_err(|errno| NvmeError::Memory { size: *size, errno })?;
                (Store::Memory(Mutex::new(memory)), *size)
            }
            Kind::Null(size) => (Store::Null, *size),
        };
        check_size(backing, size, shift)?;
        Ok(Self { store, blocks: size >> shift, shift, failures: Throttle::default() })
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    pub(super) fn block_shift(&self) -> u32 {
        self.shift
    }

    /// Reads into all of `data` from byte `offset` on; it ends inside the disk.
    pub(super) fn read(&self, offset: u64, data: &mut Data) -> Result<(), Status> {
        match &self.store {
            Store::File(file) => vectored::transfer(file, offset, data, Direction::ToGuest)
                .map_err(|error| self.status_of(&error, Status::READ_ERROR)),
            Store::Memory(memory) => {
                let memory = memory.lock();
                // The offset is inside this memory, so it fits a `usize`.
                data.copy_to_guest(memory.get(offset as usize..).unwrap_or_default())
            }
            Store::Null => data.zero_guest(),
        }
    }

    /// Writes all of `data` from byte `offset` on; it ends inside the disk.
    pub(super) fn write(&self, offset: u64, data: &mut Data) -> Result<(), Status> {
        match &self.store {
            Store::File(file) => vectored::transfer(file, offset, data, Direction::FromGuest)
                .map_err(|error| self.status_of(&error, Status::WRITE_FAULT)),
            Store::Memory(memory) => {
                let mut memory = memory.lock();
                data.copy_from_guest(memory.get_mut(offset as usize..).unwrap_or_default())
            }
            Store::Null => Ok(()),
        }
    }

    /// Zeros `[offset, offset + len)`, which is inside the disk, unless `should_stop` ends it
    /// before.
    pub(super) fn zero(
        &self,
        offset: u64,
        len: u64,
        allocation: Allocation,
        should_stop: impl Fn() -> bool,
    ) -> Result<(), Status> {
        let mut done = 0;
        while done < len {
            if should_stop() {
                return Err(Status::ABORTED);
            }
            let part = PIECE.min(len - done);
            self.zero_piece(offset + done, part, allocation)?;
            done += part;
        }
        Ok(())
    }

    fn zero_piece(&self, offset: u64, len: u64, allocation: Allocation) -> Result<(), Status> {
        match &self.store {
            Store::File(file) => zero_file(file, offset, len, allocation)
                .map_err(|error| self.status_of(&error, Status::WRITE_FAULT)),
            Store::Memory(memory) => {
                let mut memory = memory.lock();
                memory.zero(offset as usize..(offset + len) as usize);
                Ok(())
            }
            Store::Null => Ok(()),
        }
    }

    /// Flushes written data to stable storage.
    pub(super) fn flush(&self) -> Result<(), Status> {
        match &self.store {
            Store::File(file) => {
                file.sync_data().map_err(|error| self.status_of(&error, Status::WRITE_FAULT))
            }
            Store::Memory(_) | Store::Null => Ok(()),
        }
    }

    /// The status for an error of the file system; `otherwise` if there is no better one. Logs it.
    #[cold]
    fn status_of(&self, error: &io::Error, otherwise: Status) -> Status {
        if let Some(times) = self.failures.next_logged() {
            tracing::warn!(%error, times, "I/O on a disk's file fails");
        }
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::FAULT) => Status::DATA_TRANSFER,
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Status::CAPACITY,
            Some(Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN) => Status::INTERNAL,
            _ => otherwise,
        }
    }
}

/// A disk is whole blocks, at least one, and no larger than a file can be, whose offsets are
/// signed.
fn check_size(backing: &Backing, size: u64, shift: u32) -> Result<(), NvmeError> {
    let (backing, block) = (backing.clone(), 1 << shift);
    match size {
        0 => Err(NvmeError::Empty { backing }),
        _ if i64::try_from(size).is_err() => Err(NvmeError::TooLarge { backing }),
        _ if !size.is_multiple_of(block) => Err(NvmeError::Tail { backing, size, block }),
        _ => Ok(()),
    }
}

/// Extends a file that has become shorter up to `end`, as a write does: otherwise the zeros could
/// not be read.
fn extend(file: &File, end: u64) -> io::Result<()> {
    let metadata = file.metadata()?;
    match end.checked_sub(1) {
        Some(last) if metadata.is_file() && metadata.len() < end => file.write_all_at(&[0], last),
        _ => Ok(()),
    }
}

fn zero_file(file: &File, offset: u64, len: u64, allocation: Allocation) -> io::Result<()> {
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    let ways = match allocation {
        Allocation::Release => [punch, zero],
        Allocation::Keep => [zero, punch],
    };
    for way in ways {
        match rustix::io::retry_on_intr(|| fallocate(file, way, offset, len)) {
            Ok(()) => return extend(file, offset + len),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let zeros = [0; 64 << 10];
    let mut done = 0;
    while done < len {
        let part = zeros.len().min(usize::try_from(len - done).unwrap_or(zeros.len()));
        let zeros = zeros.get(..part).unwrap_or_default();
        file.write_all_at(zeros, offset + done)?;
        done += part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber, subscriber};

    use super::*;

    /// Counts log lines.
    struct Log(Arc<AtomicU32>);

    impl Subscriber for Log {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn zeroing_much_stops_between_two_pieces_when_it_is_to() {
        let size = 3 * PIECE + 512;
        let disk = Disk::open(&Backing::memory(size), 9).unwrap();
        let Store::Memory(memory) = &disk.store else { unreachable!() };
        let looks = Cell::new(0);
        let stop_at = |last: u32| {
            memory.lock().fill(0xaa);
            looks.set(0);
            let done = disk.zero(512, size - 1024, Allocation::Keep, || {
                looks.set(looks.get() + 1);
                looks.get() == last
            });
            let memory = memory.lock();
            let zeros = memory.iter().filter(|&&byte| byte == 0).count() as u64;
            assert!(zeros == 0 || memory[512] == 0, "from the first one on");
            (done, looks.get(), zeros)
        };
        assert_eq!(stop_at(1), (Err(Status::ABORTED), 1, 0));
        assert_eq!(stop_at(3), (Err(Status::ABORTED), 3, 2 * PIECE));
        assert_eq!(stop_at(u32::MAX), (Ok(()), 3, size - 1024));
    }

    #[test]
    fn a_disk_that_fails_for_ever_does_not_fill_the_log() {
        let disk = Disk::open(&Backing::null(512), 9).unwrap();
        let lines = Arc::default();
        subscriber::with_default(Log(Arc::clone(&lines)), || {
            for _ in 0..100_000 {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                assert_eq!(disk.status_of(&error, Status::READ_ERROR), Status::READ_ERROR);
            }
        });
        assert_eq!(lines.load(Ordering::Relaxed), 17, "1, 2, 4 … 65,536");
    }
}
