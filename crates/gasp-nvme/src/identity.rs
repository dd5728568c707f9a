//! The controller's identity, whatever its backing.

use gasp_vdev::{Class, Identity};

/// The most that one command moves, as a power of two of 4 KiB pages: 512 KiB. A guest that revokes
/// memory waits for a transfer of this much at most.
pub(super) const TRANSFER_SHIFT: u32 = 7;
pub(super) const TRANSFER_MAX: u64 = gasp::GRANULE << TRANSFER_SHIFT;

/// The firmware revision.
pub(super) const REVISION: &str = env!("CARGO_PKG_VERSION");

/// Text as NVMe stores it: padded with spaces, and truncated if it is too long.
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
