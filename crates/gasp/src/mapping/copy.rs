//! Copies in and out of guest memory, whole or not at all.
//!
//! A range in one page, as nearly every one is, takes the short path of a map. Other ranges are
//! mapped whole first, in pieces if need be, so that nothing is copied if a part is refused.

use super::failed::{Failed, Outcome};
use super::handle::Mapping;
use super::port::Port;
use super::scatter::Scatter;
use crate::error::{Operation, Reason, Result};
use crate::map_flags::MapFlags;

impl Port<'_> {
    /// Copies out of guest memory.
    pub(crate) fn read(&self, addr: u64, into: &mut [u8], flags: MapFlags) -> Outcome<()> {
        let len = into.len() as u64;
        match Self::map_page(|| Some(*self), addr, len, flags) {
            Some(mapping) => Ok(mapping.read_at(0, into)?),
            None => Ok(self.map_for_copy(Operation::Read, addr, len, flags)?.read(into)?),
        }
    }

    /// Copies into guest memory.
    pub(crate) fn write(&self, addr: u64, from: &[u8], flags: MapFlags) -> Outcome<()> {
        let len = from.len() as u64;
        match Self::map_page(|| Some(*self), addr, len, flags) {
            Some(mapping) => Ok(mapping.write_at(0, from)?),
            None => Ok(self.map_for_copy(Operation::Write, addr, len, flags)?.write(from)?),
        }
    }

    /// Maps the range: as one mapping if it is consecutive, in pieces otherwise.
    #[inline(never)]
    fn map_for_copy(&self, op: Operation, addr: u64, len: u64, flags: MapFlags) -> Outcome<Mapped> {
        match self.map(op, addr, len, flags) {
            Ok(mapping) => Ok(Mapped::Whole(mapping)),
            Err(Failed::Error(error)) if is_scattered(error.reason()) => {
                self.map_scatter(op, addr, len, flags).map(Mapped::Scattered)
            }
            Err(failed) => Err(failed),
        }
    }
}

/// The mapping that a copy reads or writes.
enum Mapped {
    Whole(Mapping),
    Scattered(Scatter),
}

impl Mapped {
    fn read(&self, into: &mut [u8]) -> Result<()> {
        match self {
            Self::Whole(mapping) => mapping.read_at(0, into),
            Self::Scattered(scatter) => scatter.read_at(0, into),
        }
    }

    fn write(&self, from: &[u8]) -> Result<()> {
        match self {
            Self::Whole(mapping) => mapping.write_at(0, from),
            Self::Scattered(scatter) => scatter.write_at(0, from),
        }
    }
}

fn is_scattered(reason: Reason) -> bool {
    matches!(reason, Reason::NotConsecutive { .. })
}
