//! What the guest puts into submission queues, and gets in completion queues.

use super::status::Status;

/// The only namespace.
pub(super) const ONLY: u32 = 1;
/// All namespaces.
pub(super) const ALL: u32 = u32::MAX;

/// The size of a submission queue entry (NVMe 1.4, 4.2), and its logarithm.
pub(super) const ENTRY: usize = 64;
pub(super) const ENTRY_SHIFT: u32 = 6;
/// The size of a completion queue entry (4.6), and its logarithm.
pub(super) const COMPLETION: u64 = 16;
pub(super) const COMPLETION_SHIFT: u32 = 4;

/// A submission queue entry, copied out of the guest's memory once: what is checked is
/// what is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command([u8; ENTRY]);

impl Command {
    pub(super) fn new(bytes: [u8; ENTRY]) -> Self {
        Self(bytes)
    }

    /// One of its 16 dwords.
    pub(super) fn dword(&self, index: usize) -> u32 {
        let bytes = self.0.get(4 * index..).and_then(|bytes| bytes.first_chunk());
        u32::from_le_bytes(bytes.copied().unwrap_or_default())
    }

    fn qword(&self, index: usize) -> u64 {
        u64::from(self.dword(index)) | u64::from(self.dword(index + 1)) << 32
    }

    pub(super) fn opcode(&self) -> u8 {
        self.dword(0) as u8
    }

    /// What the guest calls it.
    pub(super) fn id(&self) -> u16 {
        (self.dword(0) >> 16) as u16
    }

    pub(super) fn namespace(&self) -> u32 {
        self.dword(1)
    }

    pub(super) fn prp1(&self) -> u64 {
        self.qword(6)
    }

    pub(super) fn prp2(&self) -> u64 {
        self.qword(8)
    }

    /// The first block that an I/O command is about (6.9, 6.15, 6.17).
    pub(super) fn first_block(&self) -> u64 {
        self.qword(10)
    }

    /// How many; the field counts from 0.
    pub(super) fn block_count(&self) -> u64 {
        u64::from(self.dword(12) as u16) + 1
    }

    /// Fused operations and scatter-gather lists are not supported (4.2: FUSE and PSDT).
    pub(super) fn check(&self) -> Result<(), Status> {
        match self.dword(0) & (0b11 << 8 | 0b11 << 14) {
            0 => Ok(()),
            _ => Err(Status::INVALID_FIELD),
        }
    }
}

/// The two halves of a completion queue entry. The phase tag is in the second, which is
/// what the guest looks at first.
pub(super) fn completion(
    result: u32,
    (queue, head): (u16, u16),
    command: u16,
    status: Status,
    phase: bool,
) -> (u64, u64) {
    let high = u64::from(head)
        | u64::from(queue) << 16
        | u64::from(command) << 32
        | u64::from(status.0 << 1 | u16::from(phase)) << 48;
    (u64::from(result), high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_taken_apart_and_a_completion_put_together_as_in_the_specification() {
        let mut bytes = [0; ENTRY];
        bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
        let command = Command::new(bytes);
        assert_eq!(command.opcode(), 0);
        assert_eq!(command.id(), 0x0302);
        assert_eq!(command.namespace(), 0x0706_0504);
        assert_eq!(command.prp1(), 0x1f1e_1d1c_1b1a_1918);
        assert_eq!(command.prp2(), 0x2726_2524_2322_2120);
        assert_eq!(command.first_block(), 0x2f2e_2d2c_2b2a_2928);
        assert_eq!(command.block_count(), 0x3130 + 1);
        assert_eq!(command.dword(16), 0, "there is none");
        let (low, high) = completion(7, (3, 4), 5, Status::LBA_RANGE, true);
        assert_eq!((low, high), (7, 0x8101_0005_0003_0004));
    }
}
