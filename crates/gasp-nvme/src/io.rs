//! I/O commands (NVMe 1.4, 6).

use gasp_disk::{Allocation, Direction};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::command::{ALL, Command, ONLY};
use super::controller::{Controller, Work};
use super::identity::TRANSFER_MAX;
use super::prp::find_parts;
use super::status::Status;
use super::subsystem::Subsystem;

/// Opcodes.
const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const WRITE_ZEROES: u8 = 0x08;
const DATASET_MANAGEMENT: u8 = 0x09;

/// Bits of dword 12: the blocks may be deallocated (6.17), and must be on stable storage (6.15:
/// FUA).
const DEALLOCATE: u32 = 1 << 25;
const FORCE: u32 = 1 << 30;
/// The bit of dword 11 for deallocation (6.7). Other hints are ignored.
const HINT_DEALLOCATE: u32 = 1 << 2;
const RANGES_MAX: usize = 256;

/// A range of Dataset Management (6.7).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Range {
    attributes: U32,
    count: U32,
    first: U64,
}
const _: () = assert!(size_of::<Range>() == 16);

impl Controller {
    /// Executes an I/O command. Returns how many bytes it moved.
    pub(super) fn transfer(&mut self, work: &Work<'_>, command: &Command) -> Result<u64, Status> {
        self.data.moved = 0;
        command.check()?;
        match (command.opcode, command.namespace.get()) {
            (FLUSH, ONLY | ALL) => {
                work.subsystem.disk.flush()?;
                work.subsystem.counters.flushed();
                Ok(0)
            }
            (READ, ONLY) => self.read(work, command),
            (WRITE, ONLY) => self.write(work, command),
            (WRITE_ZEROES, ONLY) => self.write_zeroes(work, command),
            (DATASET_MANAGEMENT, ONLY) => self.manage(work, command),
            (FLUSH | READ | WRITE | WRITE_ZEROES | DATASET_MANAGEMENT, _) => {
                Err(Status::INVALID_NAMESPACE)
            }
            _ => Err(Status::INVALID_OPCODE),
        }
    }

    /// Read (6.9).
    fn read(&mut self, work: &Work<'_>, command: &Command) -> Result<u64, Status> {
        let (offset, len) = data_of(work.subsystem, command)?;
        self.map(work, command, len, Direction::ToGuest)?;
        let read = work.subsystem.disk.read(offset, &mut self.data);
        self.data.finish(work.device, read)?;
        work.subsystem.counters.read(len);
        Ok(len)
    }

    /// Write (6.15).
    fn write(&mut self, work: &Work<'_>, command: &Command) -> Result<u64, Status> {
        let (offset, len) = data_of(work.subsystem, command)?;
        self.map(work, command, len, Direction::FromGuest)?;
        let written = work.subsystem.disk.write(offset, &mut self.data);
        // Released before the flush, which does not need the guest's memory.
        self.data.release();
        written?;
        self.flush_if_needed(work, command)?;
        work.subsystem.counters.written(len);
        Ok(len)
    }

    /// Write Zeroes (6.17).
    fn write_zeroes(&mut self, work: &Work<'_>, command: &Command) -> Result<u64, Status> {
        let (offset, len) = bytes_of(work.subsystem, command.first_block(), command.block_count())?;
        let allocation = match command.dword12.get() & DEALLOCATE {
            0 => Allocation::Keep,
            _ => Allocation::Release,
        };
        work.subsystem.disk.zero(offset, len, allocation, || work.should_stop())?;
        self.flush_if_needed(work, command)?;
        work.subsystem.counters.zeroed();
        Ok(0)
    }

    /// Dataset Management (6.7).
    fn manage(&mut self, work: &Work<'_>, command: &Command) -> Result<u64, Status> {
        let mut ranges = [Range::new_zeroed(); RANGES_MAX];
        // The field counts from 0.
        let last = usize::from(command.dword10.get() as u8);
        let ranges = ranges.get_mut(..=last).unwrap_or_default();
        self.map(work, command, size_of_val(ranges) as u64, Direction::FromGuest)?;
        let copied = self.data.copy_from_guest(ranges.as_mut_bytes());
        self.data.release();
        copied?;
        let ranges = ranges
            .iter()
            .map(|range| bytes_of(work.subsystem, range.first.get(), range.count.get().into()));
        // All of them are checked before the first is touched.
        ranges.clone().try_for_each(|range| range.map(|_| ()))?;
        for (offset, len) in ranges.flatten() {
            if work.should_stop() {
                return Err(Status::ABORTED);
            }
            if command.dword11.get() & HINT_DEALLOCATE != 0 && len > 0 {
                work.subsystem
                    .disk
                    .zero(offset, len, Allocation::Release, || work.should_stop())?;
            }
        }
        self.flush_if_needed(work, command)?;
        work.subsystem.counters.zeroed();
        Ok(0)
    }

    /// The first block that failed, of a command of this queue (5.14.1.1: LBA); 0 if it is not
    /// about blocks, or has them in its data.
    pub(super) fn failed_block(&self, work: &Work<'_>, queue: u16, command: &Command) -> u64 {
        let first = command.first_block();
        match command.opcode {
            _ if queue == 0 => 0,
            READ | WRITE => {
                first.saturating_add(self.data.moved >> work.subsystem.disk.block_shift())
            }
            WRITE_ZEROES => first,
            _ => 0,
        }
    }

    /// Maps the data of a command.
    fn map(
        &mut self,
        work: &Work<'_>,
        command: &Command,
        len: u64,
        direction: Direction,
    ) -> Result<(), Status> {
        find_parts(work.device, command.prps(), len, self.page, &mut self.parts)?;
        Ok(self.data.map(work.device, &self.parts, direction)?)
    }

    /// Flushes what was written if the command requires it, or the write cache is disabled.
    fn flush_if_needed(&self, work: &Work<'_>, command: &Command) -> Result<(), Status> {
        match command.dword12.get() & FORCE != 0 || !self.features.may_cache() {
            true => Ok(work.subsystem.disk.flush()?),
            false => Ok(()),
        }
    }
}

/// The offset and the length in bytes of a read or a write.
fn data_of(subsystem: &Subsystem, command: &Command) -> Result<(u64, u64), Status> {
    let count = command.block_count();
    // At most 64 Ki blocks, so this does not overflow.
    if count << subsystem.disk.block_shift() > TRANSFER_MAX {
        return Err(Status::INVALID_FIELD);
    }
    bytes_of(subsystem, command.first_block(), count)
}

/// The offset and the length in bytes of a range of blocks, if the disk has it.
fn bytes_of(subsystem: &Subsystem, first: u64, count: u64) -> Result<(u64, u64), Status> {
    let end = first.checked_add(count).filter(|&end| end <= subsystem.disk.blocks());
    let shift = subsystem.disk.block_shift();
    // The size of the whole disk in bytes does not overflow.
    end.map(|_| (first << shift, count << shift)).ok_or(Status::LBA_RANGE)
}
