//! Entries of submission queues and completion queues: commands and completions.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::status::Status;

/// The only namespace.
pub(super) const ONLY: u32 = 1;
/// All namespaces.
pub(super) const ALL: u32 = u32::MAX;

/// The size of a submission queue entry, and its logarithm.
pub(super) const ENTRY: u64 = size_of::<Command>() as u64;
pub(super) const ENTRY_SHIFT: u32 = ENTRY.trailing_zeros();
const _: () = assert!(ENTRY == 64);
/// The size of a completion queue entry, and its logarithm.
pub(super) const COMPLETION: u64 = size_of::<Completion>() as u64;
pub(super) const COMPLETION_SHIFT: u32 = COMPLETION.trailing_zeros();
const _: () = assert!(COMPLETION == 16);

/// A submission queue entry (NVMe 1.4, 4.2), copied out of the guest's memory once, so that what is
/// checked is what is executed.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub(super) struct Command {
    pub(super) opcode: u8,
    /// FUSE and PSDT: fused operations, scatter-gather lists.
    flags: u8,
    /// The command identifier.
    pub(super) id: U16,
    pub(super) namespace: U32,
    /// Reserved; the metadata pointer.
    _8: [u8; 16],
    pub(super) prp1: U64,
    pub(super) prp2: U64,
    /// The meaning of these depends on the opcode.
    pub(super) dword10: U32,
    pub(super) dword11: U32,
    pub(super) dword12: U32,
    pub(super) dword13: U32,
    _56: [u8; 8],
}

impl Command {
    pub(super) fn prps(&self) -> (u64, u64) {
        (self.prp1.get(), self.prp2.get())
    }

    /// The first block that an I/O command is about (6.9, 6.15, 6.17).
    pub(super) fn first_block(&self) -> u64 {
        u64::from(self.dword10.get()) | u64::from(self.dword11.get()) << 32
    }

    /// How many; the field counts from 0.
    pub(super) fn block_count(&self) -> u64 {
        u64::from(self.dword12.get() as u16) + 1
    }

    /// Refuses fused operations and scatter-gather lists, which are not supported.
    pub(super) fn check(&self) -> Result<(), Status> {
        match self.flags & 0b1100_0011 {
            0 => Ok(()),
            _ => Err(Status::INVALID_FIELD),
        }
    }
}

/// A completion queue entry (4.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Completion {
    result: U32,
    _4: [u8; 4],
    head: U16,
    queue: U16,
    command: U16,
    /// With the phase tag, which the guest checks first.
    status: U16,
}

impl Completion {
    /// A completion of a command from the submission queue `queue`, whose head is now `head`.
    pub(super) fn new(
        result: u32,
        (queue, head): (u16, u16),
        command: u16,
        status: Status,
        phase: bool,
    ) -> Self {
        Self {
            result: result.into(),
            _4: [0; 4],
            head: head.into(),
            queue: queue.into(),
            command: command.into(),
            status: status.field(phase),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_both_queues_have_the_layout_of_the_standard() {
        let bytes: [u8; ENTRY as usize] = core::array::from_fn(|at| at as u8);
        let command = Command::read_from_bytes(&bytes).unwrap();
        assert_eq!((command.opcode, command.flags, command.id.get()), (0, 1, 0x0302));
        assert_eq!(command.namespace, 0x0706_0504);
        assert_eq!(command.prps(), (0x1f1e_1d1c_1b1a_1918, 0x2726_2524_2322_2120));
        assert_eq!(command.first_block(), 0x2f2e_2d2c_2b2a_2928);
        assert_eq!(command.block_count(), 0x3130 + 1);
        assert_eq!((command.dword10.get(), command.dword11.get()), (0x2b2a_2928, 0x2f2e_2d2c));
        assert_eq!((command.dword12.get(), command.dword13.get()), (0x3332_3130, 0x3736_3534));
        let completion =
            Completion::new(0x0403_0201, (0x0c0b, 0x0a09), 0x0e0d, Status(0x0807), true);
        let bytes = [1, 2, 3, 4, 0, 0, 0, 0, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 0x10];
        assert_eq!(completion.as_bytes(), bytes);
    }
}
