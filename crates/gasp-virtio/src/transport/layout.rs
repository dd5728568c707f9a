//! Where the registers are, and the capabilities that say so (virtio 1.2, 4.1.4).

use gasp_vdev::{Bar, Identity, Model, Msix, VendorCapability, Window};

use crate::device::Kind;

/// The vendor ID of all virtio devices, and the first device ID of those without a legacy interface
/// (virtio 1.2, 4.1.2).
pub(super) const VENDOR: u16 = 0x1af4;
const MODERN: u16 = 0x1040;

/// The BAR that has all registers, the MSI-X table and its pending bits: each in pages of its own.
pub const BAR: u8 = 0;
/// Its length in bytes.
pub const BAR_SIZE: u64 = 0x8000;
pub(super) const COMMON: u64 = 0x0000;
pub(super) const ISR: u64 = 0x1000;
pub(super) const DEVICE: u64 = 0x2000;
pub(super) const NOTIFY: u64 = 0x3000;
pub(super) const TABLE: u32 = 0x4000;
pub(super) const PENDING: u32 = 0x6000;

/// The length of the common configuration, up to and without what newer features add.
pub(super) const COMMON_LEN: u64 = 0x38;
/// The largest device configuration.
pub const DEVICE_MAX: u64 = NOTIFY - DEVICE;
/// The bytes between the notification registers of two queues.
pub const NOTIFY_STEP: u32 = 4;
/// As many queues as the notification registers and the pending bits have room for.
pub const QUEUES_MAX: usize = 256;

/// What an access reaches, with the offset in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Area {
    /// The [common configuration](super::CommonConfig).
    Common(u64),
    /// The ISR status, one byte.
    Isr(u64),
    /// The device's own configuration.
    Device(u64),
    /// The notification registers, [`NOTIFY_STEP`] bytes for each queue.
    Notify(u64),
}

/// The area of an offset in the BAR.
pub fn area(offset: u64) -> Option<Area> {
    match offset {
        COMMON..ISR => Some(Area::Common(offset - COMMON)),
        ISR..DEVICE => Some(Area::Isr(offset - ISR)),
        DEVICE..NOTIFY => Some(Area::Device(offset - DEVICE)),
        NOTIFY..0x4000 => Some(Area::Notify(offset - NOTIFY)),
        _ => None,
    }
}

/// Types of capabilities (4.1.4: `cfg_type`).
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// The PCI function of a device of this kind, with this many queues and bytes of configuration: one
/// BAR with all registers, whose [areas](area) are these; MSI-X with a vector for each queue and one
/// for the configuration; the pin; the capabilities that tell a driver.
pub fn model(kind: Kind, subsystem_vendor: u16, queues: usize, config: usize) -> Model {
    let (queues, config) = (queues.min(QUEUES_MAX), config.min(DEVICE_MAX as usize));
    let id = MODERN.saturating_add(kind.id);
    let identity = Identity {
        vendor: VENDOR,
        device: id,
        subsystem_vendor,
        subsystem: id,
        revision: 1,
        class: kind.class,
    };
    // At most `QUEUES_MAX` and one.
    let vectors = queues as u16 + 1;
    let msix = Msix { vectors, bar: BAR, table: TABLE, pending: PENDING };
    let model = Model::new(identity).bar(Bar::memory64(BAR, BAR_SIZE)).pin().msix(msix);
    capabilities(queues, config).into_iter().fold(model, Model::vendor)
}

/// The capabilities of a device with this many queues and bytes of configuration.
fn capabilities(queues: usize, config: usize) -> Vec<VendorCapability> {
    let notify_len = queues as u64 * u64::from(NOTIFY_STEP);
    let mut notify = contents(NOTIFY_CFG, NOTIFY, notify_len);
    notify.extend(NOTIFY_STEP.to_le_bytes());
    let mut all = vec![
        VendorCapability::new(contents(COMMON_CFG, COMMON, COMMON_LEN)),
        VendorCapability::new(notify),
        VendorCapability::new(contents(ISR_CFG, ISR, 1)),
    ];
    if config > 0 {
        all.push(VendorCapability::new(contents(DEVICE_CFG, DEVICE, config as u64)));
    }
    all.push(window());
    all
}

/// Type, BAR, ID and padding, offset, length: what follows ID, pointer and length of a capability.
fn contents(kind: u8, offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![kind, BAR, 0, 0, 0];
    // Offsets and lengths are those of a BAR of 32 KiB.
    bytes.extend((offset as u32).to_le_bytes());
    bytes.extend((len as u32).to_le_bytes());
    bytes
}

/// The window through which a guest that cannot map the BAR reaches it (4.1.4.9).
fn window() -> VendorCapability {
    let mut bytes = contents(PCI_CFG, 0, 0);
    bytes.extend([0; 4]);
    let mut writable = vec![0, 0xff, 0, 0, 0];
    writable.extend([0xff; 12]);
    let window = Some(Window { bar: 1, offset: 5, len: 9, data: 13 });
    VendorCapability { contents: bytes, writable, window }
}
