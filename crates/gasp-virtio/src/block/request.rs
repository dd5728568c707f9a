//! The requests of a block device (virtio 1.2, 5.2.6).

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

/// The unit of all positions and lengths, whatever the block size.
pub(super) const SECTOR: u64 = 512;
/// Type, reserved, sector.
pub(super) const HEADER: u64 = 16;
/// The ranges of one request to discard or zero.
pub(super) const RANGES_MAX: u32 = 16;
/// Sector, number of sectors, flags.
pub(super) const RANGE: usize = 16;
/// The length of the answer to "get ID".
pub(super) const ID: usize = 20;

/// What is requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    /// From this sector on.
    Read(u64),
    /// From this sector on.
    Write(u64),
    Flush,
    GetId,
    Discard,
    WriteZeroes,
    Unknown,
}

/// A range to discard or zero, in sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    pub(super) sector: u64,
    pub(super) sectors: u32,
    pub(super) flags: u32,
}

impl Operation {
    pub(super) fn of(header: [u8; HEADER as usize]) -> Self {
        let [kind, _] = halves(header);
        let sector = u64::from_le_bytes(last(header));
        match kind {
            VIRTIO_BLK_T_IN => Self::Read(sector),
            VIRTIO_BLK_T_OUT => Self::Write(sector),
            VIRTIO_BLK_T_FLUSH => Self::Flush,
            VIRTIO_BLK_T_GET_ID => Self::GetId,
            VIRTIO_BLK_T_DISCARD => Self::Discard,
            VIRTIO_BLK_T_WRITE_ZEROES => Self::WriteZeroes,
            _ => Self::Unknown,
        }
    }
}

impl Range {
    pub(super) fn of(bytes: [u8; RANGE]) -> Self {
        let (sector, [sectors, flags]) = (u64::from_le_bytes(first(bytes)), tail(bytes));
        Self { sector, sectors, flags }
    }

    /// Whether the storage may be released, if the flags are ones that this request may have.
    pub(super) fn may_release(self, operation: Operation) -> Option<bool> {
        match (operation, self.flags) {
            (Operation::Discard, 0) => Some(true),
            (Operation::WriteZeroes, 0) => Some(false),
            (Operation::WriteZeroes, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) => Some(true),
            _ => None,
        }
    }
}

fn first([a, b, c, d, e, f, g, h, ..]: [u8; 16]) -> [u8; 8] {
    [a, b, c, d, e, f, g, h]
}

fn last([.., a, b, c, d, e, f, g, h]: [u8; 16]) -> [u8; 8] {
    [a, b, c, d, e, f, g, h]
}

fn pair([a, b, c, d, e, f, g, h]: [u8; 8]) -> [u32; 2] {
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

fn halves(bytes: [u8; 16]) -> [u32; 2] {
    pair(first(bytes))
}

fn tail(bytes: [u8; 16]) -> [u32; 2] {
    pair(last(bytes))
}
