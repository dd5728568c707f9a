//! The levels of a table, and the units of address space that one word stands for.

use crate::addr::{DeviceAddr, GRANULE};
use crate::span::Span;

pub(super) const PAGE_SHIFT: u32 = 12;
pub(super) const TOP_SHIFT: u32 = 30;
pub(super) const LEVEL_BITS: u32 = 9;
pub(super) const MIDDLE_SHIFT: u32 = TOP_SHIFT - LEVEL_BITS;
const _: () = assert!(1 << PAGE_SHIFT == GRANULE);

/// The range of addresses of one word: aligned, of 1 GiB, 2 MiB or 4 KiB.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    pub(super) start: u64,
    pub(super) shift: u32,
}

impl Unit {
    fn last(self) -> u64 {
        self.start + ((1 << self.shift) - 1)
    }

    pub(super) fn span(self) -> Option<Span<DeviceAddr>> {
        Span::inclusive(DeviceAddr(self.start), DeviceAddr(self.last()))
    }

    pub(super) fn within(self, (first, last): (u64, u64)) -> bool {
        first <= self.start && self.last() <= last
    }

    pub(super) fn child(self, index: u64) -> Self {
        let shift = self.shift - LEVEL_BITS;
        Self { start: self.start + (index << shift), shift }
    }

    /// The indices of the first and last child that overlap `range`, which overlaps the unit.
    pub(super) fn children(self, (first, last): (u64, u64)) -> (u64, u64) {
        let shift = self.shift - LEVEL_BITS;
        let index = |addr: u64| (addr - self.start) >> shift;
        (index(first.max(self.start)), index(last.min(self.last())))
    }
}
