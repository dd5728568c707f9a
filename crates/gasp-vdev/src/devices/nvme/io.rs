//! I/O commands (NVMe 1.4, 6).

use super::command::Command;
use super::controller::{Context, Controller};
use super::data::Direction;
use super::disk::Room;
use super::identify::{ALL, ONLY};
use super::prp::find_parts;
use super::status::Status;
use super::{Nvme, TRANSFER_MAX};

/// Opcodes.
const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const WRITE_ZEROES: u8 = 0x08;
const DATASET_MANAGEMENT: u8 = 0x09;

/// Bits of dword 12: the blocks may be given back (6.17), and must outlast a power failure
/// (6.15: FUA).
const DEALLOCATE: u32 = 1 << 25;
const FORCE: u32 = 1 << 30;
/// The bit of dword 11 that means deallocation (6.7). Other hints are ignored.
const HINT_DEALLOCATE: u32 = 1 << 2;
/// The size of a range that is hinted at: attributes, count, first block.
const RANGE: usize = 16;
const RANGES_MAX: usize = 256;

impl Controller {
    /// Does an I/O command. Returns how many bytes it moved.
    pub(super) fn transfer(&mut self, at: &Context<'_>, command: &Command) -> Result<u64, Status> {
        self.data.moved = 0;
        command.check()?;
        match (command.opcode(), command.namespace()) {
            (FLUSH, ONLY | ALL) => {
                at.nvme.disk.flush()?;
                at.nvme.counters.flushed();
                Ok(0)
            }
            (READ, ONLY) => self.read(at, command),
            (WRITE, ONLY) => self.write(at, command),
            (WRITE_ZEROES, ONLY) => self.write_zeroes(at, command),
            (DATASET_MANAGEMENT, ONLY) => self.manage(at, command),
            (FLUSH | READ | WRITE | WRITE_ZEROES | DATASET_MANAGEMENT, _) => {
                Err(Status::INVALID_NAMESPACE)
            }
            _ => Err(Status::INVALID_OPCODE),
        }
    }

    /// Read (6.9).
    fn read(&mut self, at: &Context<'_>, command: &Command) -> Result<u64, Status> {
        let (offset, len) = data_of(at.nvme, command)?;
        self.map(at, command, len, Direction::ToGuest)?;
        let read = at.nvme.disk.read(offset, &mut self.data);
        self.data.finish(at.bus, read)?;
        at.nvme.counters.read(len);
        Ok(len)
    }

    /// Write (6.15).
    fn write(&mut self, at: &Context<'_>, command: &Command) -> Result<u64, Status> {
        let (offset, len) = data_of(at.nvme, command)?;
        self.map(at, command, len, Direction::FromGuest)?;
        let written = at.nvme.disk.write(offset, &mut self.data);
        // The guest's memory is not needed for what follows.
        self.data.release();
        written?;
        self.settle(at, command)?;
        at.nvme.counters.written(len);
        Ok(len)
    }

    /// Write Zeroes (6.17).
    fn write_zeroes(&mut self, at: &Context<'_>, command: &Command) -> Result<u64, Status> {
        let (offset, len) = bytes_of(at.nvme, command.first_block(), command.block_count())?;
        let room = match command.dword(12) & DEALLOCATE {
            0 => Room::Keep,
            _ => Room::GiveBack,
        };
        at.nvme.disk.zero(offset, len, room, || at.should_stop())?;
        self.settle(at, command)?;
        at.nvme.counters.zeroed();
        Ok(0)
    }

    /// Dataset Management (6.7).
    fn manage(&mut self, at: &Context<'_>, command: &Command) -> Result<u64, Status> {
        let len = RANGE * (usize::from(command.dword(10) as u8) + 1);
        let mut ranges = [0; RANGE * RANGES_MAX];
        let ranges = ranges.get_mut(..len).unwrap_or_default();
        self.map(at, command, len as u64, Direction::FromGuest)?;
        let got = self.data.get(ranges);
        self.data.release();
        got?;
        let ranges = ranges.chunks_exact(RANGE).map(|range| {
            let number = range.first_chunk().map_or(0, |bytes| u128::from_le_bytes(*bytes));
            let (count, first) = (u64::from((number >> 32) as u32), (number >> 64) as u64);
            bytes_of(at.nvme, first, count)
        });
        // All of them must be there before the first is touched.
        ranges.clone().try_for_each(|range| range.map(|_| ()))?;
        for (offset, len) in ranges.flatten() {
            if at.should_stop() {
                return Err(Status::ABORTED);
            }
            if command.dword(11) & HINT_DEALLOCATE != 0 && len > 0 {
                at.nvme.disk.zero(offset, len, Room::GiveBack, || at.should_stop())?;
            }
        }
        self.settle(at, command)?;
        at.nvme.counters.zeroed();
        Ok(0)
    }

    /// The first block that failed, of a command of this queue (5.14.1.1: LBA); 0 if it is not
    /// about blocks, or says itself which in its data.
    pub(super) fn failed_block(&self, at: &Context<'_>, queue: u16, command: &Command) -> u64 {
        let first = command.first_block();
        match command.opcode() {
            _ if queue == 0 => 0,
            READ | WRITE => first.saturating_add(self.data.moved >> at.nvme.disk.block_shift()),
            WRITE_ZEROES => first,
            _ => 0,
        }
    }

    /// Maps the data of a command.
    fn map(
        &mut self,
        at: &Context<'_>,
        command: &Command,
        len: u64,
        direction: Direction,
    ) -> Result<(), Status> {
        find_parts(at.bus, (command.prp1(), command.prp2()), len, self.page, &mut self.parts)?;
        self.data.map(at.bus, &self.parts, direction)
    }

    /// Flushes what was written if the command, or the guest for all commands, wants it.
    fn settle(&self, at: &Context<'_>, command: &Command) -> Result<(), Status> {
        match command.dword(12) & FORCE != 0 || !self.features.may_cache() {
            true => at.nvme.disk.flush(),
            false => Ok(()),
        }
    }
}

/// Where on the disk the data of a read or a write is, and how long.
fn data_of(nvme: &Nvme, command: &Command) -> Result<(u64, u64), Status> {
    let count = command.block_count();
    // At most 64 Ki blocks, so this does not overflow.
    if count << nvme.disk.block_shift() > TRANSFER_MAX {
        return Err(Status::INVALID_FIELD);
    }
    bytes_of(nvme, command.first_block(), count)
}

/// Blocks as bytes, if the disk has them.
fn bytes_of(nvme: &Nvme, first: u64, count: u64) -> Result<(u64, u64), Status> {
    let end = first.checked_add(count).filter(|&end| end <= nvme.disk.blocks());
    let shift = nvme.disk.block_shift();
    // The size of the whole disk in bytes does not overflow.
    end.map(|_| (first << shift, count << shift)).ok_or(Status::LBA_RANGE)
}
