//! The device status register and the features of the transport (virtio 1.2, 2.1 and 6).

/// DRIVER_OK: the driver has started the device.
pub const DRIVER_OK: u8 = 4;
/// FEATURES_OK: features are agreed upon.
pub const FEATURES_OK: u8 = 8;
/// DEVICE_NEEDS_RESET: the device has stopped until the driver resets it.
pub const NEEDS_RESET: u8 = 64;
/// The bits that a driver can set: ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, FAILED.
pub(super) const OF_DRIVER: u8 = 1 | 2 | DRIVER_OK | FEATURES_OK | 128;

/// `VIRTIO_F_INDIRECT_DESC`.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`.
pub const EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`, without which no driver can use a device.
pub const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_ACCESS_PLATFORM`: the device is behind the guest's IOMMU.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// The features that the transport offers for every device.
pub(super) const OF_TRANSPORT: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1 | ACCESS_PLATFORM;
