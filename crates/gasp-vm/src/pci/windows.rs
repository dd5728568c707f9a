//! The addresses that base address registers get before the guest starts.

use core::ops::Range;

use gasp_vdev::BarKind;

/// A memory BAR has whole pages of its own.
const LEAST: u64 = 4096;

/// The windows of each kind of BAR, and what is taken of them.
#[derive(Debug)]
pub(super) struct Windows {
    ports: Window,
    low: Window,
    high: Window,
}

#[derive(Debug)]
struct Window {
    range: Range<u64>,
    /// In order of address, without overlaps.
    taken: Vec<Range<u64>>,
}

impl Windows {
    pub(super) fn new(ports: Range<u64>, low: Range<u64>, high: Range<u64>) -> Self {
        let window = |range| Window { range, taken: Vec::new() };
        Self { ports: window(ports), low: window(low), high: window(high) }
    }

    /// Takes `len` bytes, a power of two, aligned to their length. `other` returns the end of
    /// something else in a range.
    pub(super) fn take(
        &mut self,
        kind: BarKind,
        len: u64,
        other: impl Fn(Range<u64>) -> Option<u64>,
    ) -> Option<u64> {
        let len = if kind == BarKind::Io { len } else { len.max(LEAST) };
        self.of(kind).take(len, other)
    }

    /// Gives back what [`take`](Self::take) has returned.
    pub(super) fn give_back(&mut self, kind: BarKind, start: u64) {
        self.of(kind).taken.retain(|range| range.start != start);
    }

    fn of(&mut self, kind: BarKind) -> &mut Window {
        match kind {
            BarKind::Io => &mut self.ports,
            BarKind::Memory32 => &mut self.low,
            BarKind::Memory64 => &mut self.high,
        }
    }
}

impl Window {
    fn take(&mut self, len: u64, other: impl Fn(Range<u64>) -> Option<u64>) -> Option<u64> {
        let mut at = self.range.start;
        loop {
            let start = at.checked_next_multiple_of(len)?;
            let range = start..start.checked_add(len).filter(|&end| end <= self.range.end)?;
            let index = self.taken.partition_point(|taken| taken.end <= range.start);
            let ours = self.taken.get(index).filter(|taken| taken.start < range.end);
            match ours.map(|taken| taken.end).or_else(|| other(range.clone())) {
                Some(end) => at = end.max(start.checked_add(1)?),
                None => {
                    self.taken.insert(index, range);
                    return Some(start);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_aligned_avoid_what_is_there_and_come_back() {
        let mut windows = Windows::new(0x1000..0x2000, 0x10_0000..0x11_0000, 0..0);
        let free = |_: Range<u64>| None;
        let [io, low] = [BarKind::Io, BarKind::Memory32];
        assert_eq!(windows.take(io, 0x20, free), Some(0x1000));
        assert_eq!(windows.take(io, 0x100, free), Some(0x1100));
        assert_eq!(windows.take(io, 0x20, free), Some(0x1020));
        assert_eq!(windows.take(low, 16, free), Some(0x10_0000));
        assert_eq!(windows.take(low, 16, free), Some(0x10_1000), "a page of its own");
        let region = |range: Range<u64>| {
            (range.start < 0x10_5800 && range.end > 0x10_2000).then_some(0x10_5800)
        };
        assert_eq!(windows.take(low, 4096, region), Some(0x10_6000));
        assert_eq!(windows.take(low, 0x8000, free), Some(0x10_8000));
        assert_eq!(windows.take(low, 0x8000, free), None);
        windows.give_back(low, 0x10_0000);
        assert_eq!(windows.take(low, 4096, free), Some(0x10_0000));
        assert_eq!(windows.take(BarKind::Memory64, 4096, free), None);
    }
}
