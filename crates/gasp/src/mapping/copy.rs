//! Copies in and out of guest memory, whole or not at all.

use super::map::Port;
use crate::access::MapFlags;
use crate::error::{Operation, Result};

impl Port<'_> {
    /// Copies out of guest memory, across pieces. Nothing is copied if any of it is
    /// refused.
    pub(crate) fn read(&self, addr: u64, into: &mut [u8], flags: MapFlags) -> Result<()> {
        self.map_scatter(Operation::Read, addr, into.len() as u64, flags)?.read_at(0, into)
    }

    /// Copies into guest memory, across pieces. Nothing is copied if any of it is
    /// refused.
    pub(crate) fn write(&self, addr: u64, from: &[u8], flags: MapFlags) -> Result<()> {
        self.map_scatter(Operation::Write, addr, from.len() as u64, flags)?.write_at(0, from)
    }
}
