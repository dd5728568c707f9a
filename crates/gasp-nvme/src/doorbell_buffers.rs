//! The two pages of a guest that shadow its doorbells.

use core::sync::atomic::Ordering;

use gasp::{DeviceAddr, Dma, MapFlags, Mapping};
use gasp_vdev::{DeviceContext, DmaError, Register, Width};
use zerocopy::little_endian::U32;

use super::registers::DOORBELLS;

/// The doorbell of a queue, or its event index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// The tail of a submission queue.
    Tail = 0,
    /// The head of a completion queue.
    Head = 1,
}

/// What the controller knows of a queue's shadow doorbell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// The value that was read last.
    value: u32,
    /// The event index.
    pub(super) event: u32,
    /// The guest has written it. Until then it may still write the register alone.
    is_used: bool,
}

impl Known {
    /// Whether the guest uses the shadow doorbell, and the register's value says nothing.
    pub(super) fn is_used(&self) -> bool {
        self.is_used
    }

    /// Takes the value that was read. Returns whether it is new.
    pub(super) fn take(&mut self, value: u32) -> bool {
        let is_new = core::mem::replace(&mut self.value, value) != value;
        self.is_used |= is_new;
        is_new
    }
}

/// The two pages of the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct DoorbellBuffers {
    pub(super) doorbells: u64,
    pub(super) events: u64,
}

impl DoorbellBuffers {
    /// The offset of a queue's entry in both pages.
    pub(super) fn offset(id: u16, side: Side) -> u64 {
        8 * u64::from(id) + 4 * side as u64
    }

    /// Reads the doorbells of the I/O queues from 1 to `last`.
    pub(super) fn read(
        self,
        device: &DeviceContext,
        last: u16,
        mut each: impl FnMut(u16, Side, u32),
    ) -> Result<(), DmaError> {
        let first = Self::offset(1, Side::Tail);
        let (at, len) = (DeviceAddr(self.doorbells + first), 8 * usize::from(last));
        let cells = match device.map(at, len as u64, MapFlags::READ) {
            Ok(cells) => Cells::Mapped(cells),
            Err(DmaError::NoDescriptor { .. }) => {
                let mut copy = vec![0; len];
                device.read(at, &mut copy)?;
                Cells::Copied(copy)
            }
            Err(error) => return Err(error),
        };
        for id in 1..=last {
            for side in [Side::Tail, Side::Head] {
                each(id, side, cells.load((Self::offset(id, side) - first) as usize)?);
            }
        }
        Ok(())
    }

    pub(super) fn write(
        device: &DeviceContext,
        page: u64,
        offset: u64,
        value: u32,
    ) -> Result<(), DmaError> {
        let at = DeviceAddr(page + offset);
        match device.map(at, 4, MapFlags::WRITE) {
            Ok(cell) => Ok(cell.store(0, value.to_le(), Ordering::Release)?),
            Err(DmaError::NoDescriptor { .. }) => device.write_obj(at, &U32::new(value)),
            Err(error) => Err(error),
        }
    }

    /// Begins to use a queue's entries, at the doorbell's value of before. The guest may have left
    /// what an earlier queue had.
    pub(super) fn begin(
        self,
        device: &DeviceContext,
        id: u16,
        side: Side,
        value: u32,
    ) -> Result<Known, DmaError> {
        let offset = Self::offset(id, side);
        Self::write(device, self.doorbells, offset, value)?;
        Self::write(device, self.events, offset, value)?;
        Ok(Known { value, event: value, is_used: false })
    }
}

/// The shadow doorbells, as they are read.
enum Cells {
    Mapped(Mapping),
    /// By a message to the VMM.
    Copied(Vec<u8>),
}

impl Cells {
    fn load(&self, offset: usize) -> Result<u32, DmaError> {
        match self {
            Self::Mapped(cells) => Ok(u32::from_le(cells.load(offset, Ordering::Acquire)?)),
            Self::Copied(copy) => {
                let cell = copy.get(offset..).and_then(|rest| rest.first_chunk());
                Ok(cell.map_or(0, |cell| u32::from_le_bytes(*cell)))
            }
        }
    }
}

/// The register of a doorbell.
pub(super) fn register(id: u16, side: Side) -> Register {
    Register { bar: 0, offset: DOORBELLS + DoorbellBuffers::offset(id, side), width: Width::Four }
}
