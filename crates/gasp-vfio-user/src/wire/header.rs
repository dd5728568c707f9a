//! The header of every message.

use zerocopy::{FromBytes, Immutable, IntoBytes};

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
