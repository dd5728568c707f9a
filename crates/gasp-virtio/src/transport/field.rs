//! The fields of the common configuration, by offset (virtio 1.2, 4.1.4.3).

/// A field of the common configuration: the names are those of virtio 1.2, 4.1.4.3. Other transports
/// have registers of the same meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// In bytes.
    pub(super) offset: u64,
    /// In bytes; at most 8.
    pub(super) len: usize,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $offset:literal, $len:literal;)*) => {
        impl Field {
            $($(#[$doc])* pub const $name: Self = Self { offset: $offset, len: $len };)*
        }
    };
}

fields! {
    /// Which 32 bits `DEVICE_FEATURE` shows.
    DEVICE_FEATURE_SELECT = 0x00, 4;
    /// The offered features; read only.
    DEVICE_FEATURE = 0x04, 4;
    /// Which 32 bits `DRIVER_FEATURE` is.
    DRIVER_FEATURE_SELECT = 0x08, 4;
    /// The accepted features.
    DRIVER_FEATURE = 0x0c, 4;
    /// The MSI-X vector for changes of the configuration.
    CONFIG_MSIX_VECTOR = 0x10, 2;
    /// The number of queues; read only.
    NUM_QUEUES = 0x12, 2;
    /// The device status: 0 resets the device.
    DEVICE_STATUS = 0x14, 1;
    /// Counts changes of the configuration; read only.
    CONFIG_GENERATION = 0x15, 1;
    /// The queue that the fields below are of.
    QUEUE_SELECT = 0x16, 2;
    /// Its entries: at first as many as it can have. 0 if there is no such queue.
    QUEUE_SIZE = 0x18, 2;
    /// Its MSI-X vector.
    QUEUE_MSIX_VECTOR = 0x1a, 2;
    /// 1 enables it.
    QUEUE_ENABLE = 0x1c, 2;
    /// Where it is notified; read only.
    QUEUE_NOTIFY_OFF = 0x1e, 2;
    /// The device address of its descriptor table.
    QUEUE_DESC = 0x20, 8;
    /// The device address of its available ring.
    QUEUE_DRIVER = 0x28, 8;
    /// The device address of its used ring.
    QUEUE_DEVICE = 0x30, 8;
}

/// The three parts of a queue.
pub(super) const PLACES: [Field; 3] = [Field::QUEUE_DESC, Field::QUEUE_DRIVER, Field::QUEUE_DEVICE];

/// The fields that can be written, in the order in which a wide write reaches them.
pub(super) const WRITABLE: [Field; 12] = [
    Field::DEVICE_FEATURE_SELECT,
    Field::DRIVER_FEATURE_SELECT,
    Field::DRIVER_FEATURE,
    Field::CONFIG_MSIX_VECTOR,
    Field::DEVICE_STATUS,
    Field::QUEUE_SELECT,
    Field::QUEUE_SIZE,
    Field::QUEUE_MSIX_VECTOR,
    Field::QUEUE_ENABLE,
    Field::QUEUE_DESC,
    Field::QUEUE_DRIVER,
    Field::QUEUE_DEVICE,
];

impl Field {
    /// Its half of 32 bits: the low one, or the high one of a field of 64 bits.
    pub(super) fn half(self, high: bool) -> Self {
        let offset = if high { self.offset + 4 } else { self.offset };
        Self { offset, len: self.len.min(4) }
    }
}
