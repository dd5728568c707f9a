//! Addresses of the machine that devices' regions can be placed at.

/// Address ranges that the machine does not use: below the IOAPIC, and above all memory.
const LOW: (u64, u64) = (0xe000_0000, 0xfec0_0000);
const HIGH: (u64, u64) = (0x10_0000_0000, 0x20_0000_0000);
const PORTS: (u64, u64) = (0xc000, 0x1_0000);

/// The unused address ranges for devices' regions.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) low: (u64, u64),
    pub(super) high: (u64, u64),
    pub(super) ports: (u64, u64),
}

impl Default for Room {
    fn default() -> Self {
        Self { low: LOW, high: HIGH, ports: PORTS }
    }
}
