//! Addresses for vdevs that have none.

use crate::request::Space;

/// Addresses for vdevs that have none: their VMM does not tell where it puts a BAR.
pub(super) struct Nominal {
    memory: u64,
    port: u64,
}

impl Default for Nominal {
    fn default() -> Self {
        Self { memory: 0x8000_0000, port: 0xc000 }
    }
}

impl Nominal {
    /// The next range of so many bytes or ports, aligned to the power of two from there on.
    pub(super) fn next(&mut self, space: Space, len: u64) -> Option<u64> {
        let align = len.checked_next_power_of_two()?;
        let (next, end) = match space {
            Space::Ports => (&mut self.port, 0x1_0000),
            Space::Memory | Space::Pci => (&mut self.memory, u64::MAX),
        };
        let start = next.checked_next_multiple_of(align)?;
        let after = start.checked_add(align).filter(|after| *after <= end)?;
        *next = after;
        Some(start)
    }
}
