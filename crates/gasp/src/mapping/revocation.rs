//! The mappings that a revoke has to find, and the scan for them.

use super::detached::Keep;
use super::drain::{Drain, DrainPolicy};
use crate::addr::DeviceAddr;
use crate::protocol::{Use, scan};
use crate::span::Span;

/// A set of mappings to be revoked: those of ranges, of devices, or of whole views.
#[derive(Default)]
pub(crate) struct Revocation {
    views: Vec<u32>,
    vdevs: Vec<(u32, u32)>,
    ranges: Vec<ViewRange>,
}

/// A range of addresses of one view.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct ViewRange {
    view: u32,
    first: u64,
    last: u64,
}

impl Revocation {
    /// Adds mappings through `view` that overlap `span`.
    pub(crate) fn range(&mut self, view: u32, span: Span<DeviceAddr>) {
        self.ranges.push(ViewRange { view, first: span.start().0, last: span.last().0 });
    }

    /// Adds all mappings through `view`.
    pub(crate) fn view(&mut self, view: u32) {
        self.views.push(view);
    }

    /// Adds all mappings of `vdev` through `view`.
    pub(crate) fn vdev(&mut self, view: u32, vdev: u32) {
        self.vdevs.push((view, vdev));
    }

    /// Waits for look-ups in progress and collects the mappings. When it returns, no reader is in
    /// anything that was removed from the views before the call.
    ///
    /// `keep` returns the memory behind the mappings; it is called only if there are any.
    pub(crate) fn scan(self, policy: DrainPolicy, keep: impl FnOnce() -> Keep) -> Drain {
        let sorted = self.sorted();
        let holders = scan(|found| sorted.covers(found));
        let keep = if holders.is_empty() { Keep::new() } else { keep() };
        Drain::new(holders, keep, policy)
    }

    /// The same set in order, with overlapping ranges joined, for a binary search: the scan looks
    /// up each mapping of the process in it.
    fn sorted(mut self) -> Sorted {
        self.views.sort_unstable();
        self.vdevs.sort_unstable();
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|next, range| {
            let joined = next.view == range.view && next.first <= range.last;
            if joined {
                range.last = range.last.max(next.last);
            }
            joined
        });
        Sorted(self)
    }
}

/// A revocation whose parts are in order and do not overlap.
struct Sorted(Revocation);

impl Sorted {
    fn covers(&self, found: Use) -> bool {
        let Revocation { views, vdevs, ranges } = &self.0;
        views.binary_search(&found.view).is_ok()
            || vdevs.binary_search(&(found.view, found.vdev)).is_ok()
            || {
                // The last range that begins at or before the mapping's last address.
                let end = (found.view, found.last);
                let after = ranges.partition_point(|range| (range.view, range.first) <= end);
                let range = after.checked_sub(1).and_then(|index| ranges.get(index));
                range.is_some_and(|range| range.view == found.view && found.first <= range.last)
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    fn found(view: u32, vdev: u32, first: u64, last: u64) -> Use {
        Use { stamp: 2, view, vdev, first, last }
    }

    proptest! {
        #[test]
        fn a_mapping_is_found_if_any_part_is_about_it(
            ranges in prop::collection::vec((0u32..3, 0u64..40, 1u64..12), 0..8),
            views in prop::collection::vec(0u32..3, 0..2),
            vdevs in prop::collection::vec((0u32..3, 0u32..3), 0..3),
        ) {
            let mut revocation = Revocation::default();
            for &(view, start, len) in &ranges {
                revocation.range(view, Span::new(DeviceAddr(start), len).unwrap());
            }
            views.iter().for_each(|&view| revocation.view(view));
            vdevs.iter().for_each(|&(view, vdev)| revocation.vdev(view, vdev));
            let sorted = revocation.sorted();
            for view in 0..3 {
                for vdev in 0..3 {
                    for (first, len) in (0..56).flat_map(|first| [1, 2, 7].map(|len| (first, len))) {
                        let last = first + len - 1;
                        let overlaps = |&(of, start, len): &(u32, u64, u64)| {
                            of == view && start <= last && first < start + len
                        };
                        let expected = views.contains(&view)
                            || vdevs.contains(&(view, vdev))
                            || ranges.iter().any(overlaps);
                        prop_assert_eq!(sorted.covers(found(view, vdev, first, last)), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn parts_reach_both_ends_of_the_addresses() {
        let mut revocation = Revocation::default();
        revocation
            .range(1, Span::inclusive(DeviceAddr(u64::MAX - 1), DeviceAddr(u64::MAX)).unwrap());
        revocation.range(1, Span::new(DeviceAddr(0), 1).unwrap());
        let sorted = revocation.sorted();
        assert!(sorted.covers(found(1, 0, 0, 0)) && sorted.covers(found(1, 0, u64::MAX, u64::MAX)));
        assert!(
            !sorted.covers(found(1, 0, 1, u64::MAX - 2))
                && !sorted.covers(found(0, 0, 0, u64::MAX))
        );
        assert!(!sorted.covers(found(2, 0, 0, u64::MAX)));
    }

    #[test]
    fn very_many_parts_take_little_longer_than_few() {
        let time = |parts: u64| {
            let mut revocation = Revocation::default();
            for part in 0..parts {
                let start = DeviceAddr((parts - part) * 0x2000);
                revocation.range(7, Span::new(start, 0x1000).unwrap());
            }
            let sorted = revocation.sorted();
            let once = || {
                let started = Instant::now();
                let covered = (0..2000)
                    .filter(|&page| sorted.covers(found(7, 1, page << 50 | 1, page << 50 | 1)));
                assert_eq!(covered.count(), 0);
                started.elapsed()
            };
            (0..5).map(|_| once()).min().unwrap_or(Duration::ZERO)
        };
        let (few, many) = (time(4), time(1 << 14));
        assert!(many < few * 100, "4 parts take {few:?}, 16,384 {many:?}");
    }
}
