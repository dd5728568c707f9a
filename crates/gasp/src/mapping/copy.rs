//! Copies in and out of guest memory, whole or not at all.
//!
//! A range that is consecutive, which is nearly every one, is one map and one copy; only
//! where it is not are its pieces collected first, so that nothing is copied if any of
//! them is refused.

use super::map::Port;
use crate::error::{Operation, Reason, Result};
use crate::map_flags::MapFlags;

impl Port<'_> {
    /// Copies out of guest memory.
    pub(crate) fn read(&self, addr: u64, into: &mut [u8], flags: MapFlags) -> Result<()> {
        let (op, len) = (Operation::Read, into.len() as u64);
        match self.map(op, addr, len, flags) {
            Ok(mapping) => mapping.read_at(0, into),
            Err(error) if is_scattered(error.reason()) => {
                self.map_scatter(op, addr, len, flags)?.read_at(0, into)
            }
            Err(error) => Err(error),
        }
    }

    /// Copies into guest memory.
    pub(crate) fn write(&self, addr: u64, from: &[u8], flags: MapFlags) -> Result<()> {
        let (op, len) = (Operation::Write, from.len() as u64);
        match self.map(op, addr, len, flags) {
            Ok(mapping) => mapping.write_at(0, from),
            Err(error) if is_scattered(error.reason()) => {
                self.map_scatter(op, addr, len, flags)?.write_at(0, from)
            }
            Err(error) => Err(error),
        }
    }
}

fn is_scattered(reason: Reason) -> bool {
    matches!(reason, Reason::NotConsecutive { .. })
}
