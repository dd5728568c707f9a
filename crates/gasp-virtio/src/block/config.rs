//! The configuration of a block device (virtio 1.2, 5.2.4).

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::request::RANGES_MAX;

/// The size of the queue.
pub(super) const QUEUE: u16 = 256;
/// As many buffers as a chain has besides header and status.
const SEGMENTS: u32 = QUEUE as u32 - 2;
const LEN: usize = 60;

/// The features of a disk.
pub(super) fn features(read_only: bool) -> u64 {
    let always = 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_FLUSH;
    match read_only {
        true => always | 1 << VIRTIO_BLK_F_RO,
        false => always | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES,
    }
}

/// The configuration of a disk of this many sectors of 512 bytes, with blocks of this many bytes.
pub(super) fn config(sectors: u64, block: u32) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    let mut put = |at: usize, field: &[u8]| {
        let places = bytes.iter_mut().skip(at);
        places.zip(field).for_each(|(place, byte)| *place = *byte);
    };
    put(0, &sectors.to_le_bytes());
    put(12, &SEGMENTS.to_le_bytes());
    put(20, &block.to_le_bytes());
    // One queue.
    put(34, &1_u16.to_le_bytes());
    // Discard and write zeroes: sectors of a range, ranges, and the alignment of discards.
    for (at, value) in [(36, u32::MAX), (40, RANGES_MAX), (44, block / 512)] {
        put(at, &value.to_le_bytes());
    }
    for (at, value) in [(48, u32::MAX), (52, RANGES_MAX)] {
        put(at, &value.to_le_bytes());
    }
    // Zeroed sectors may be released.
    put(56, &[1]);
    bytes
}
