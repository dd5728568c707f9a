//! The device status register and the features of the transport (virtio 1.2, 2.1 and 6).

pub(super) const DRIVER_OK: u8 = 4;
pub(super) const FEATURES_OK: u8 = 8;
pub(super) const NEEDS_RESET: u8 = 64;
/// The bits that a driver can set: ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, FAILED.
pub(super) const OF_DRIVER: u8 = 1 | 2 | DRIVER_OK | FEATURES_OK | 128;

pub(super) const INDIRECT_DESC: u64 = 1 << 28;
pub(super) const EVENT_IDX: u64 = 1 << 29;
pub(super) const VERSION_1: u64 = 1 << 32;
pub(super) const ACCESS_PLATFORM: u64 = 1 << 33;
/// The features that the transport offers for every device.
pub(super) const OF_TRANSPORT: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1 | ACCESS_PLATFORM;
