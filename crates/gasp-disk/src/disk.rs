//! A disk's blocks in their backing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use gasp_vdev::Throttle;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::anonymous::Anonymous;
use crate::backing::{Backing, Kind};
use crate::data::{Data, Direction};
use crate::error::{DiskError, Failure};
use crate::{image, vectored};

/// A disk's blocks in their backing.
#[derive(Debug)]
pub struct Disk {
    store: Store,
    read_only: bool,
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
pub enum Allocation {
    /// It is kept.
    Keep,
    /// It is released to the host.
    Release,
}

impl Disk {
    /// Opens the backing for reading and writing; `1 << shift` is a block's size in bytes.
    ///
    /// # Errors
    /// If the backing is empty, too large or not a multiple of the block size, the file cannot be
    /// opened, is in use or not a disk, or the memory cannot be mapped.
    pub fn open(backing: &Backing, shift: u32) -> Result<Self, DiskError> {
        Self::open_for(backing, shift, false)
    }

    /// Opens the backing for reading only. A file is shared with others that only read it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_read_only(backing: &Backing, shift: u32) -> Result<Self, DiskError> {
        Self::open_for(backing, shift, true)
    }

    fn open_for(backing: &Backing, shift: u32, read_only: bool) -> Result<Self, DiskError> {
        let (store, size) = match &backing.0 {
            Kind::File(path) => {
                let (file, size) = image::open(path, read_only)?;
                (Store::File(file), size)
            }
            Kind::Memory(size) => {
                check_size(backing, *size, shift)?;
                let memory = Anonymous::new(*size)
                    .map_err(|errno| DiskError::Memory { size: *size, errno })?;
                (Store::Memory(Mutex::new(memory)), *size)
            }
            Kind::Null(size) => (Store::Null, *size),
        };
        check_size(backing, size, shift)?;
        let failures = Throttle::default();
        Ok(Self { store, read_only, blocks: size >> shift, shift, failures })
    }

    /// The number of blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Whether it is open for reading only.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The logarithm of a block's size in bytes.
    pub fn block_shift(&self) -> u32 {
        self.shift
    }

    /// Reads into all of `data` from byte `offset` on; it ends inside the disk.
    ///
    /// # Errors
    /// [`Failure::Memory`] if the guest's memory cannot be accessed, [`Failure::Read`] if the file
    /// cannot be read, [`Failure::Busy`] if the host has no memory for it.
    pub fn read(&self, offset: u64, data: &mut Data) -> Result<(), Failure> {
        match &self.store {
            Store::File(file) => vectored::transfer(file, offset, data, Direction::ToGuest)
                .map_err(|error| self.failure_of(&error, Failure::Read)),
            Store::Memory(memory) => {
                let memory = memory.lock();
                // The offset is inside this memory, so it fits a `usize`.
                data.copy_to_guest(memory.get(offset as usize..).unwrap_or_default())
            }
            Store::Null => data.zero_guest(),
        }
    }

    /// Writes all of `data` from byte `offset` on; it ends inside the disk.
    ///
    /// # Errors
    /// As [`read`](Self::read), for writing; [`Failure::Full`] if there is no room for it,
    /// [`Failure::ReadOnly`] if the disk is.
    pub fn write(&self, offset: u64, data: &mut Data) -> Result<(), Failure> {
        self.check_writable()?;
        match &self.store {
            Store::File(file) => vectored::transfer(file, offset, data, Direction::FromGuest)
                .map_err(|error| self.failure_of(&error, Failure::Write)),
            Store::Memory(memory) => {
                let mut memory = memory.lock();
                data.copy_from_guest(memory.get_mut(offset as usize..).unwrap_or_default())
            }
            Store::Null => Ok(()),
        }
    }

    /// Zeros `[offset, offset + len)`, which is inside the disk, unless `should_stop` ends it
    /// before.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`Failure::Stopped`] if `should_stop` has ended it.
    pub fn zero(
        &self,
        offset: u64,
        len: u64,
        allocation: Allocation,
        should_stop: impl Fn() -> bool,
    ) -> Result<(), Failure> {
        self.check_writable()?;
        let mut done = 0;
        while done < len {
            if should_stop() {
                return Err(Failure::Stopped);
            }
            let part = PIECE.min(len - done);
            self.zero_piece(offset + done, part, allocation)?;
            done += part;
        }
        Ok(())
    }

    fn zero_piece(&self, offset: u64, len: u64, allocation: Allocation) -> Result<(), Failure> {
        match &self.store {
            Store::File(file) => zero_file(file, offset, len, allocation)
                .map_err(|error| self.failure_of(&error, Failure::Write)),
            Store::Memory(memory) => {
                let mut memory = memory.lock();
                memory.zero(offset as usize..(offset + len) as usize);
                Ok(())
            }
            Store::Null => Ok(()),
        }
    }

    fn check_writable(&self) -> Result<(), Failure> {
        if self.read_only { Err(Failure::ReadOnly) } else { Ok(()) }
    }

    /// Flushes written data to stable storage.
    ///
    /// # Errors
    /// [`Failure::Write`], or [`Failure::Full`], if that fails.
    pub fn flush(&self) -> Result<(), Failure> {
        match &self.store {
            Store::File(file) => {
                file.sync_data().map_err(|error| self.failure_of(&error, Failure::Write))
            }
            Store::Memory(_) | Store::Null => Ok(()),
        }
    }

    /// The failure for an error of the file system; `otherwise` if there is no better one. Logs it.
    #[cold]
    fn failure_of(&self, error: &io::Error, otherwise: Failure) -> Failure {
        if let Some(times) = self.failures.next_logged() {
            tracing::warn!(%error, times, "I/O on a disk's file fails");
        }
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::FAULT) => Failure::Memory,
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Failure::Full,
            Some(Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN) => Failure::Busy,
            _ => otherwise,
        }
    }
}

/// A disk is whole blocks, at least one, and no larger than a file can be, whose offsets are
/// signed.
fn check_size(backing: &Backing, size: u64, shift: u32) -> Result<(), DiskError> {
    let (backing, block) = (backing.clone(), 1 << shift);
    match size {
        0 => Err(DiskError::Empty { backing }),
        _ if i64::try_from(size).is_err() => Err(DiskError::TooLarge { backing }),
        _ if !size.is_multiple_of(block) => Err(DiskError::Tail { backing, size, block }),
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
        assert_eq!(stop_at(1), (Err(Failure::Stopped), 1, 0));
        assert_eq!(stop_at(3), (Err(Failure::Stopped), 3, 2 * PIECE));
        assert_eq!(stop_at(u32::MAX), (Ok(()), 3, size - 1024));
    }

    #[test]
    fn a_disk_that_fails_for_ever_does_not_fill_the_log() {
        let disk = Disk::open(&Backing::null(512), 9).unwrap();
        let lines = Arc::default();
        subscriber::with_default(Log(Arc::clone(&lines)), || {
            for _ in 0..100_000 {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                assert_eq!(disk.failure_of(&error, Failure::Read), Failure::Read);
            }
        });
        assert_eq!(lines.load(Ordering::Relaxed), 17, "1, 2, 4 … 65,536");
    }

    #[test]
    fn a_disk_for_reading_only_is_shared_with_its_like_and_never_written() {
        let path = std::env::temp_dir().join(format!("gasp-disk-ro-{}", std::process::id()));
        std::fs::write(&path, [7; 512]).unwrap();
        let backing = Backing::file(&path);
        let disk = Disk::open_read_only(&backing, 9).unwrap();
        let second = Disk::open_read_only(&backing, 9);
        let writer = Disk::open(&backing, 9);
        assert!(disk.is_read_only() && second.is_ok());
        assert!(matches!(writer, Err(DiskError::InUse { .. })), "{writer:?}");
        assert_eq!(disk.write(0, &mut Data::default()), Err(Failure::ReadOnly));
        assert_eq!(disk.zero(0, 512, Allocation::Release, || false), Err(Failure::ReadOnly));
        // What is in memory could be written, and is not.
        let memory = Disk::open_read_only(&Backing::memory(512), 9).unwrap();
        assert_eq!(memory.zero(0, 512, Allocation::Keep, || false), Err(Failure::ReadOnly));
        assert_eq!(std::fs::read(&path).unwrap(), [7; 512]);
        std::fs::remove_file(&path).unwrap();
    }
}
