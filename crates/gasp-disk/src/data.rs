//! The data of a transfer: mapped in place in the guest's memory, for as long as the transfer takes.

use gasp::{DeviceAddr, MapFlags, Mapping, Scatter};
use gasp_vdev::{DeviceContext, DmaError};

use crate::error::Failure;

/// A part of the data: consecutive device addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The device address of its first byte.
    pub addr: u64,
    /// Its length in bytes; not 0.
    pub len: u64,
}

/// The direction of a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The device writes the guest's memory.
    ToGuest,
    /// The device reads the guest's memory.
    FromGuest,
}

/// One part of the data.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Contiguous in the process, too.
    Whole(Mapping),
    /// Contiguous only in device addresses.
    Scattered(Scatter),
    /// A copy of memory that is reached only by messages.
    Copied(DeviceAddr, Vec<u8>),
}

/// All of the data of a transfer, in order.
#[derive(Debug, Default)]
pub struct Data {
    pieces: Vec<Piece>,
    direction: Option<Direction>,
    /// The number of bytes that the last transfer between a file and the guest moved, if it failed.
    pub moved: u64,
}

/// A source of zeros.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

impl Data {
    /// Maps all parts, or nothing. Memory that is reached only by messages is copied to or from a
    /// buffer of a part's length: bound that.
    ///
    /// # Errors
    /// [`Failure::Memory`] if the guest's IOMMU, or its memory, does not allow a part.
    pub fn map(
        &mut self,
        device: &DeviceContext,
        parts: &[Part],
        direction: Direction,
    ) -> Result<(), Failure> {
        self.release();
        self.direction = Some(direction);
        for part in parts {
            match Piece::map(device, *part, direction) {
                Ok(piece) => self.pieces.push(piece),
                Err(error) => {
                    self.release();
                    return Err(refused(&error));
                }
            }
        }
        Ok(())
    }

    /// Unmaps all parts.
    pub fn release(&mut self) {
        self.pieces.clear();
    }

    /// Ends the use of the data: if the transfer was complete, sends what goes to the guest by
    /// messages. Unmaps all parts in any case. Stops at the first message that fails: a VMM that
    /// does not answer one would not answer the others, either.
    ///
    /// # Errors
    /// That of the transfer, or [`Failure::Memory`] if a message fails.
    pub fn finish(
        &mut self,
        device: &DeviceContext,
        complete: Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut pieces = self.pieces.iter();
        let sent = match (complete, self.direction) {
            (Ok(()), Some(Direction::ToGuest)) => pieces.try_for_each(|piece| match piece {
                Piece::Copied(addr, bytes) => {
                    device.write(*addr, bytes).map_err(|error| refused(&error))
                }
                _ => Ok(()),
            }),
            _ => complete,
        };
        self.release();
        sent
    }

    pub(crate) fn pieces(&mut self) -> &mut [Piece] {
        &mut self.pieces
    }

    /// Copies `from` to the guest. The lengths are the same.
    ///
    /// # Errors
    /// [`Failure::Memory`] if an access fails.
    pub fn copy_to_guest(&mut self, from: &[u8]) -> Result<(), Failure> {
        let mut rest = from;
        for piece in &mut self.pieces {
            let (part, after) = rest.split_at_checked(piece.len()).unwrap_or_default();
            rest = after;
            piece.write(0, part)?;
        }
        Ok(())
    }

    /// Copies the guest's data to `into`. The lengths are the same.
    ///
    /// # Errors
    /// [`Failure::Memory`] if an access fails.
    pub fn copy_from_guest(&self, into: &mut [u8]) -> Result<(), Failure> {
        let mut rest = into;
        for piece in &self.pieces {
            let (part, after) = rest.split_at_mut_checked(piece.len()).unwrap_or_default();
            rest = after;
            match piece {
                Piece::Whole(mapping) => mapping.read_at(0, part).map_err(failed)?,
                Piece::Scattered(scatter) => scatter.read_at(0, part).map_err(failed)?,
                Piece::Copied(_, bytes) => part.copy_from_slice(bytes),
            }
        }
        Ok(())
    }

    /// Zeros the guest's memory.
    pub(crate) fn zero_guest(&mut self) -> Result<(), Failure> {
        for piece in &mut self.pieces {
            for done in (0..piece.len()).step_by(ZEROS.len()) {
                let zeros = ZEROS.get(..piece.len() - done).unwrap_or(&ZEROS);
                piece.write(done, zeros)?;
            }
        }
        Ok(())
    }
}

impl Piece {
    fn map(device: &DeviceContext, part: Part, direction: Direction) -> Result<Self, DmaError> {
        let Part { addr, len } = part;
        let (at, flags) = match direction {
            Direction::ToGuest => (DeviceAddr(addr), MapFlags::WRITE),
            Direction::FromGuest => (DeviceAddr(addr), MapFlags::READ),
        };
        let mapped = match addr % gasp::GRANULE + len <= gasp::GRANULE {
            true => device.map(at, len, flags).map(Self::Whole),
            false => device.map_scatter(at, len, flags).map(Self::Scattered),
        };
        match mapped {
            Err(DmaError::NoDescriptor { .. }) => {
                // Callers bound the length.
                let mut bytes = vec![0; len as usize];
                if direction == Direction::FromGuest {
                    device.read(at, &mut bytes)?;
                }
                Ok(Self::Copied(at, bytes))
            }
            mapped => mapped,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Whole(mapping) => mapping.len(),
            Self::Scattered(scatter) => scatter.len(),
            Self::Copied(_, bytes) => bytes.len(),
        }
    }

    fn write(&mut self, offset: usize, from: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Whole(mapping) => mapping.write_at(offset, from).map_err(failed),
            Self::Scattered(scatter) => scatter.write_at(offset, from).map_err(failed),
            Self::Copied(_, bytes) => {
                let into = bytes.iter_mut().skip(offset);
                into.zip(from).for_each(|(into, from)| *into = *from);
                Ok(())
            }
        }
    }
}

/// The status for an access that the engine refuses.
#[cold]
fn refused(error: &DmaError) -> Failure {
    tracing::debug!(%error, "data cannot be accessed");
    Failure::Memory
}

/// An access to a mapping failed, although its range was inside and its access allowed.
#[cold]
fn failed(error: gasp::Error) -> Failure {
    tracing::error!(%error, "an access inside a mapping failed");
    Failure::Memory
}
