//! Register accesses: of 1, 2, 4 or 8 bytes, aligned, inside a BAR.

/// The width of an access.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Width {
    /// 1 byte.
    One = 1,
    /// 2 bytes.
    Two = 2,
    /// 4 bytes.
    Four = 4,
    /// 8 bytes.
    Eight = 8,
}

impl Width {
    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self as u64
    }

    /// The bits of a value of this width.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

/// One access to a register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Register {
    /// The BAR.
    pub bar: u8,
    /// The offset in the BAR; a multiple of the width.
    pub offset: u64,
    /// The width.
    pub width: Width,
}

impl Register {
    /// The value that the access reads from a register of 8 bytes at `base` that holds `whole`.
    /// Guests may read such a register in halves.
    pub fn part_of(self, base: u64, whole: u64) -> u64 {
        let shift = 8 * (self.offset.wrapping_sub(base) & 7);
        (whole >> shift) & self.width.mask()
    }

    /// The value of a register of 8 bytes at `base` that held `whole`, after the access has written
    /// `value` to it.
    pub fn merged(self, base: u64, whole: u64, value: u64) -> u64 {
        let shift = 8 * (self.offset.wrapping_sub(base) & 7);
        let mask = self.width.mask() << shift;
        (whole & !mask) | (value << shift & mask)
    }
}

/// The aligned accesses that make up `[offset, offset + len)`, in order: as wide as
/// alignment and length allow. The range does not wrap.
pub(crate) fn accesses(offset: u64, len: usize) -> impl Iterator<Item = (usize, u64, Width)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = offset.wrapping_add(done as u64);
        let widths = [Width::Eight, Width::Four, Width::Two, Width::One];
        let fits = |width: &Width| {
            at.is_multiple_of(width.bytes()) && width.bytes() <= (len - done) as u64
        };
        let width = widths.into_iter().find(fits)?;
        let access = (done, at, width);
        done += width as usize;
        Some(access)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_aligned_access_is_one_access() {
        for width in [Width::One, Width::Two, Width::Four, Width::Eight] {
            let all: Vec<_> = accesses(16, width as usize).collect();
            assert_eq!(all, [(0, 16, width)]);
        }
    }

    #[test]
    fn halves_of_a_wide_register_read_and_write_their_own_bits() {
        let high = Register { bar: 0, offset: 0xc, width: Width::Four };
        assert_eq!(high.part_of(8, 0x1111_2222_3333_4444), 0x1111_2222);
        assert_eq!(high.merged(8, 0x1111_2222_3333_4444, 0xdead), 0xdead_3333_4444);
        let all = Register { bar: 0, offset: 8, width: Width::Eight };
        assert_eq!(all.merged(8, 1, u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn accesses_are_aligned_and_cover_the_range_once(offset in 0u64..64, len in 0usize..64) {
            let mut next = 0;
            for (done, at, width) in accesses(offset, len) {
                prop_assert_eq!(done, next);
                prop_assert_eq!(at, offset + done as u64);
                prop_assert!(at.is_multiple_of(width.bytes()));
                next += width as usize;
            }
            prop_assert_eq!(next, len);
        }
    }
}
