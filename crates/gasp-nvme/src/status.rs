//! The status field of a completion (NVMe 1.4, 4.6.1).

use gasp_disk::Failure;
use zerocopy::little_endian::U16;

/// Status code type and status code, as in the status field without its phase tag, and the "do not
/// retry" bit if a retry would fail, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Status(pub(super) u16);

/// The status field's "do not retry" bit, and the bit for more in the error log.
const DNR: u16 = 1 << 14;
const MORE: u16 = 1 << 13;
const TYPE: u16 = 0b111 << 8;
/// Status code types (4.6.1.1).
const SPECIFIC: u16 = 1 << 8;
const MEDIA: u16 = 2 << 8;

impl Status {
    pub(super) const SUCCESS: Self = Self(0);

    // Generic (4.6.1.2.1).
    pub(super) const INVALID_OPCODE: Self = Self(0x01 | DNR);
    pub(super) const INVALID_FIELD: Self = Self(0x02 | DNR);
    /// No "do not retry": the guest may have mapped the memory for the device when it tries again.
    pub(super) const DATA_TRANSFER: Self = Self(0x04);
    /// The host cannot do it now, for example because it has no memory.
    pub(super) const INTERNAL: Self = Self(0x06);
    pub(super) const ABORTED: Self = Self(0x07 | DNR);
    pub(super) const INVALID_NAMESPACE: Self = Self(0x0b | DNR);
    pub(super) const SEQUENCE: Self = Self(0x0c | DNR);
    pub(super) const PRP_OFFSET: Self = Self(0x13 | DNR);
    pub(super) const LBA_RANGE: Self = Self(0x80 | DNR);
    pub(super) const CAPACITY: Self = Self(0x81 | DNR);

    // Specific to commands (4.6.1.2.2).
    pub(super) const NO_COMPLETION_QUEUE: Self = Self(SPECIFIC | DNR);
    pub(super) const QUEUE_IDENTIFIER: Self = Self(SPECIFIC | 0x01 | DNR);
    pub(super) const QUEUE_SIZE: Self = Self(SPECIFIC | 0x02 | DNR);
    pub(super) const TOO_MANY_EVENT_REQUESTS: Self = Self(SPECIFIC | 0x05 | DNR);
    pub(super) const INTERRUPT_VECTOR: Self = Self(SPECIFIC | 0x08 | DNR);
    pub(super) const LOG_PAGE: Self = Self(SPECIFIC | 0x09 | DNR);
    pub(super) const QUEUE_DELETION: Self = Self(SPECIFIC | 0x0c | DNR);
    pub(super) const NOT_SAVEABLE: Self = Self(SPECIFIC | 0x0d | DNR);
    pub(super) const NOT_OF_NAMESPACE: Self = Self(SPECIFIC | 0x0f | DNR);

    // Of media and data integrity (4.6.1.2.3).
    pub(super) const WRITE_FAULT: Self = Self(MEDIA | 0x80);
    pub(super) const READ_ERROR: Self = Self(MEDIA | 0x81);

    /// The status field of a completion queue entry, with the phase tag.
    pub(super) fn field(self, phase: bool) -> U16 {
        U16::new(self.0 << 1 | u16::from(phase))
    }

    /// The same status, of a command that has an entry in the error log.
    pub(super) fn with_more(self) -> Self {
        Self(self.0 | MORE)
    }

    /// Whether it is an error of the backing.
    pub(super) fn is_of_media(self) -> bool {
        self.0 & TYPE == MEDIA
    }

    /// The byte of the command that is wrong, and in the upper byte the bit, if the status alone
    /// determines it (5.14.1.1: parameter error location).
    pub(super) fn location(self) -> u16 {
        match self {
            Self::INVALID_OPCODE => 0,
            Self::INVALID_NAMESPACE | Self::NOT_OF_NAMESPACE => 4,
            Self::LOG_PAGE => 40,
            Self::QUEUE_SIZE => 42,
            Self::NOT_SAVEABLE => 43 | 7 << 8,
            Self::INTERRUPT_VECTOR => 46,
            _ => u16::MAX,
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Memory => Self::DATA_TRANSFER,
            Failure::Full => Self::CAPACITY,
            Failure::Busy => Self::INTERNAL,
            Failure::Read => Self::READ_ERROR,
            Failure::Write | Failure::ReadOnly => Self::WRITE_FAULT,
            Failure::Stopped => Self::ABORTED,
        }
    }
}
