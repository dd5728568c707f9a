//! Registers of which a constant image and what has been written are two structures of C, divided by
//! slices: a PCI configuration space.

use crate::abi::{PCI_CFG_SIZE_EXPRESS, Slice};

/// The most slices.
pub(crate) const SLICES_MAX: usize = 32;

/// An access to a configuration space: 1, 2 or 4 bytes of the 4,096.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reach {
    offset: usize,
    len: usize,
}

impl Reach {
    /// The access of a location of type `QST_PCI`, whose lower 12 bits are the offset.
    pub(crate) fn of(location: u64, len: u64) -> Option<Self> {
        let offset = (location & u64::from(PCI_CFG_SIZE_EXPRESS - 1)) as usize;
        let len = [1, 2, 4].into_iter().find(|&width| width as u64 == len)?;
        (offset + len <= PCI_CFG_SIZE_EXPRESS as usize).then_some(Self { offset, len })
    }

    /// The bytes of the access.
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// Of each byte of this access that is in a slice: its number in the access, the bits of it that
    /// can be written, and where the structure has them.
    fn bytes_of(self, slice: &Slice) -> impl Iterator<Item = (usize, u8, usize)> {
        let (first, store) = (usize::from(slice.offset), usize::from(slice.store_offset));
        let writable = slice.writable.to_le_bytes();
        (0..usize::from(slice.nbytes)).zip(writable).filter_map(move |(byte, bits)| {
            let at = (first + byte).checked_sub(self.offset)?;
            (at < self.len).then_some((at, bits, store + byte))
        })
    }
}

/// The slices before the one that ends them: those of 1, 2 or 4 bytes, with their numbers.
fn valid(slices: &[Slice]) -> impl Iterator<Item = (u32, &Slice)> {
    let used = (0..).zip(slices).take(SLICES_MAX).take_while(|(_, slice)| slice.nbytes != 0);
    used.filter(|(_, slice)| matches!(slice.nbytes, 1 | 2 | 4))
}

/// Reads: of each slice the bits that can be written as `stored` has them, all else as the image.
/// Returns the bytes, and the set of slices that were read.
pub(crate) fn read(
    reach: Reach,
    slices: &[Slice],
    image: &[u8],
    stored: impl Fn(usize) -> u8,
) -> ([u8; 4], u32) {
    let mut data = [0; 4];
    for (byte, place) in data.iter_mut().take(reach.len).enumerate() {
        *place = image.get(reach.offset + byte).copied().unwrap_or(0);
    }
    let mut set = 0;
    for (number, slice) in valid(slices) {
        for (at, bits, store) in reach.bytes_of(slice) {
            if let Some(place) = data.get_mut(at) {
                *place = (*place & !bits) | (stored(store) & bits);
            }
            set |= 1 << number;
        }
    }
    (data, set)
}

/// Writes to the bits of each slice that can be written: `store` changes the given bits of a byte.
/// Returns the set of slices that were written to.
pub(crate) fn write(
    reach: Reach,
    slices: &[Slice],
    data: [u8; 4],
    mut store: impl FnMut(usize, u8, u8),
) -> u32 {
    let mut set = 0;
    for (number, slice) in valid(slices) {
        for (at, bits, place) in reach.bytes_of(slice) {
            store(place, bits, data.get(at).copied().unwrap_or(0));
            set |= 1 << number;
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn slice(offset: u16, nbytes: u8, store_offset: u16, writable: u32) -> Slice {
        Slice { writable, offset, store_offset, nbytes, spare: 0, tag: 0 }
    }

    const SLICES: [Slice; 4] = [
        slice(4, 2, 0, 0x0507),
        slice(0x10, 4, 2, 0xffff_f000),
        slice(0x3c, 1, 6, 0xff),
        slice(0, 0, 0, 0),
    ];

    fn access(offset: u64, len: u64) -> Reach {
        Reach::of(0xabc << 12 | offset, len).unwrap()
    }

    #[test]
    fn reads_are_of_the_image_but_for_the_bits_that_can_be_written() {
        let image: Vec<u8> = (0..=255).collect();
        let stored = [0xff, 0xff, 1, 2, 3, 4, 0x77];
        let read = |offset, len| read(access(offset, len), &SLICES, &image, |at| stored[at]);
        // Command: 0x0504 of the image, with the bits 0x0507 of what is stored; status of the image.
        assert_eq!(read(4, 4), ([0x07, 0x05, 6, 7], 1));
        assert_eq!(read(5, 1), ([0x05, 0, 0, 0], 1));
        assert_eq!(read(3, 2), ([3, 0x07, 0, 0], 1));
        // The lower 12 bits of the BAR are of the image.
        assert_eq!(read(0x10, 4), ([0x10, 0x11 & 0x0f, 3, 4], 2));
        assert_eq!(read(0x12, 2), ([3, 4, 0, 0], 2));
        assert_eq!(read(0x0e, 4), ([0x0e, 0x0f, 0x10, 0x01], 2));
        assert_eq!(read(0x3c, 1), ([0x77, 0, 0, 0], 4));
        assert_eq!(read(0x20, 4), ([0x20, 0x21, 0x22, 0x23], 0));
        assert_eq!(read(0x100, 4), ([0; 4], 0), "past the image");
    }

    #[test]
    fn writes_change_the_bits_that_can_be_written_alone() {
        let mut stored = [0; 7];
        let mut write = |offset, len, data: u32| {
            let store = |at: usize, bits: u8, value: u8| {
                stored[at] = (stored[at] & !bits) | (value & bits);
            };
            super::write(access(offset, len), &SLICES, data.to_le_bytes(), store)
        };
        assert_eq!(write(0x10, 4, 0xffff_ffff), 2);
        assert_eq!(write(4, 4, 0xffff_ffff), 1);
        assert_eq!(write(0x3b, 2, 0x5566), 4);
        assert_eq!(write(0x20, 4, 0xffff_ffff), 0);
        assert_eq!(stored, [0x07, 0x05, 0, 0xf0, 0xff, 0xff, 0x55]);
    }

    #[test]
    fn slices_past_the_last_and_of_other_lengths_do_nothing() {
        let mut many = [slice(0, 1, 0, 0xff); SLICES_MAX + 4];
        assert_eq!(write(access(0, 1), &many, [1; 4], |_, _, _| {}), u32::MAX);
        many[1].nbytes = 0;
        assert_eq!(write(access(0, 1), &many, [1; 4], |_, _, _| {}), 1);
        many[0].nbytes = 3;
        assert_eq!(write(access(0, 1), &many, [1; 4], |_, _, _| {}), 0);
        let last = [slice(0xffff, 4, 0xffff, u32::MAX)];
        assert_eq!(read(access(0xffc, 4), &last, &[], |_| 0), ([0; 4], 0));
    }

    #[test]
    fn accesses_are_of_1_2_or_4_bytes_within_the_space() {
        for (offset, len, is_valid) in [
            (0xffc, 4, true),
            (0xfff, 1, true),
            (0xffd, 4, false),
            (0xfff, 2, false),
            (0, 0, false),
            (0, 3, false),
            (0, 8, false),
            (0, u64::MAX, false),
            (u64::MAX, 1, true),
        ] {
            assert_eq!(Reach::of(offset, len).is_some(), is_valid, "{offset:#x} {len}");
        }
    }
}
