//! Encoding and decoding of messages: the header, fields in the host's byte order, and the
//! layout of each command.
//!
//! No input is trusted: a missing field is a [`Refused`], never a panic, and no length from
//! outside is used before it has been compared with what was received.

mod fields;
mod messages;
pub(crate) mod version;

pub(crate) use fields::{Fields, Reply};
pub(crate) use messages::{
    Bitmap, DeviceInfo, DmaMap, DmaUnmap, IrqInfo, IrqSet, RegionAccess, RegionInfo, SparseMmap,
    WRITE_MULTI_ENTRY,
};

use gasp::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The errno that a command is answered with, and the reason.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} ({errno})")]
pub(crate) struct Refused {
    pub(crate) errno: Errno,
    pub(crate) what: String,
}

impl Refused {
    #[cold]
    pub(crate) fn new(errno: Errno, what: impl Into<String>) -> Self {
        Self { errno, what: what.into() }
    }

    #[cold]
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::new(Errno::INVAL, what)
    }
}

impl From<gasp::Error> for Refused {
    fn from(error: gasp::Error) -> Self {
        Self::new(error.errno(), error.to_string())
    }
}

/// The numbers of the commands.
pub(crate) mod command {
    pub(crate) const VERSION: u16 = 1;
    pub(crate) const DMA_MAP: u16 = 2;
    pub(crate) const DMA_UNMAP: u16 = 3;
    pub(crate) const DEVICE_GET_INFO: u16 = 4;
    pub(crate) const DEVICE_GET_REGION_INFO: u16 = 5;
    pub(crate) const DEVICE_GET_REGION_IO_FDS: u16 = 6;
    pub(crate) const DEVICE_GET_IRQ_INFO: u16 = 7;
    pub(crate) const DEVICE_SET_IRQS: u16 = 8;
    pub(crate) const REGION_READ: u16 = 9;
    pub(crate) const REGION_WRITE: u16 = 10;
    pub(crate) const DMA_READ: u16 = 11;
    pub(crate) const DMA_WRITE: u16 = 12;
    pub(crate) const DEVICE_RESET: u16 = 13;
    pub(crate) const REGION_WRITE_MULTI: u16 = 15;
    pub(crate) const DEVICE_FEATURE: u16 = 16;
    pub(crate) const MIG_DATA_READ: u16 = 17;
    pub(crate) const MIG_DATA_WRITE: u16 = 18;

    /// The name of a command, for logs.
    pub(crate) fn name(command: u16) -> &'static str {
        match command {
            VERSION => "VERSION",
            DMA_MAP => "DMA_MAP",
            DMA_UNMAP => "DMA_UNMAP",
            DEVICE_GET_INFO => "DEVICE_GET_INFO",
            DEVICE_GET_REGION_INFO => "DEVICE_GET_REGION_INFO",
            DEVICE_GET_REGION_IO_FDS => "DEVICE_GET_REGION_IO_FDS",
            DEVICE_GET_IRQ_INFO => "DEVICE_GET_IRQ_INFO",
            DEVICE_SET_IRQS => "DEVICE_SET_IRQS",
            REGION_READ => "REGION_READ",
            REGION_WRITE => "REGION_WRITE",
            DMA_READ => "DMA_READ",
            DMA_WRITE => "DMA_WRITE",
            DEVICE_RESET => "DEVICE_RESET",
            REGION_WRITE_MULTI => "REGION_WRITE_MULTI",
            DEVICE_FEATURE => "DEVICE_FEATURE",
            MIG_DATA_READ => "MIG_DATA_READ",
            MIG_DATA_WRITE => "MIG_DATA_WRITE",
            _ => "unknown command",
        }
    }
}

/// The header of every message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Header {
    /// Chosen by the sender of the command, and repeated in the reply.
    pub(crate) id: u16,
    /// The number of the command.
    pub(crate) command: u16,
    /// Size of the message in bytes, including this header.
    pub(crate) size: u32,
    pub(crate) flags: u32,
    /// The errno of a reply.
    pub(crate) error: u32,
}

const _: () = assert!(Header::SIZE == 16);

impl Header {
    /// Size of a header in bytes.
    pub(crate) const SIZE: usize = size_of::<Self>();
    /// The bits of the flags that distinguish commands from replies.
    pub(crate) const TYPE: u32 = 0xf;
    /// A reply.
    pub(crate) const REPLY: u32 = 1;
    /// A command without a reply.
    pub(crate) const NO_REPLY: u32 = 1 << 4;
    /// An error reply.
    pub(crate) const ERROR: u32 = 1 << 5;

    pub(crate) fn is_reply(&self) -> bool {
        self.flags & Self::TYPE == Self::REPLY
    }

    pub(crate) fn wants_reply(&self) -> bool {
        self.flags & Self::NO_REPLY == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_sixteen_bytes_in_the_order_of_the_protocol() {
        let header = Header {
            id: 0x0101,
            command: 0x0202,
            size: 0x0303_0303,
            flags: 0x0404_0404,
            error: 0x0505_0505,
        };
        assert_eq!(header.as_bytes(), [1, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5]);
    }
}
