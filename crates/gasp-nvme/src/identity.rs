//! What the controller says of itself, whatever it is made of.

use gasp_vdev::{Class, Identity};

/// The most that one command moves, as a power of two of 4 KiB pages: 512 KiB. Whoever
/// takes the memory back waits no longer than for this much.
pub(super) const TRANSFER_SHIFT: u32 = 7;
pub(super) const TRANSFER_MAX: u64 = gasp::GRANULE << TRANSFER_SHIFT;

/// The revision of the firmware.
pub(super) const REVISION: &str = env!("CARGO_PKG_VERSION");

/// Text as NVMe has it: padded with spaces, and cut off if it is too long.
pub(super) fn padded<const LEN: usize>(text: &str) -> [u8; LEN] {
    let mut bytes = text.bytes();
    core::array::from_fn(|_| bytes.next().unwrap_or(b' '))
}

pub(super) const IDENTITY: Identity = Identity {
    // QEMU's vendor number for devices that exist nowhere else.
    vendor: 0x1234,
    device: 0x6e76,
    subsystem_vendor: 0x1234,
    subsystem: 2,
    revision: 1,
    // Mass storage: non-volatile memory, NVM Express.
    class: Class { base: 0x01, sub: 0x08, interface: 0x02 },
};
