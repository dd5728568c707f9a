//! What is behind device addresses, and how many table entries that takes.

use crate::addr::{DeviceAddr, GuestPhys};
use crate::space::Regions;
use crate::span::Span;
use crate::view::entry::Behind;
use crate::view::project::project;

/// The cost of finding one piece, in words of [`Work`](crate::view::work::Work).
pub(super) const PIECE_COST: u64 = 8;

/// What is behind the device addresses `device`, of which the first leads to `guest`, in pieces.
pub(super) fn project_device(
    regions: &Regions,
    device: Span<DeviceAddr>,
    guest: GuestPhys,
) -> impl Iterator<Item = (Span<DeviceAddr>, Behind)> {
    let span = Span::new(guest, device.len()).ok();
    span.into_iter().flat_map(|span| project(regions, span)).filter_map(move |(piece, behind)| {
        let offset = piece.start().0 - guest.0;
        let start = device.start().checked_add(offset)?;
        Some((Span::new(start, piece.len()).ok()?, behind))
    })
}

/// The parts of `whole` before and after `part`, which must lie inside it.
pub(super) fn around(
    whole: Span<DeviceAddr>,
    part: Span<DeviceAddr>,
) -> impl Iterator<Item = Span<DeviceAddr>> {
    let before = part.start().0.checked_sub(1).map(DeviceAddr);
    let before = before.and_then(|last| Span::inclusive(whole.start(), last));
    let after = part.last().checked_add(1);
    let after = after.and_then(|first| Span::inclusive(first, whole.last()));
    before.into_iter().chain(after)
}

/// The number of table entries that a range of whole granules takes, if one region is behind
/// all of it.
pub(super) fn entries(span: Span<DeviceAddr>) -> u64 {
    let (mut start, end) = (span.start().0 >> 12, (span.last().0 >> 12) + 1);
    let mut count = 0;
    for shift in [9, 18] {
        // Up to the next larger page, or to the end of the whole pages of this size.
        let size = shift - 9;
        let whole = (end >> size << size).max(start);
        let aligned = start.next_multiple_of(1 << shift).min(whole);
        count += (aligned - start) >> size;
        start = aligned;
    }
    let mut rest = end - start;
    for shift in [18, 9, 0] {
        count += rest >> shift;
        rest &= (1 << shift) - 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_counts_the_largest_aligned_pages(start in 0u64..1 << 20, len in 1u64..1 << 20) {
            let span = Span::new(DeviceAddr(start << 12), len << 12).unwrap();
            let (mut page, end, mut count) = (start, start + len, 0);
            while page < end {
                let fits = |pages: u64| page.is_multiple_of(pages) && page + pages <= end;
                page += [1 << 18, 1 << 9, 1].into_iter().find(|&pages| fits(pages)).unwrap();
                count += 1;
            }
            prop_assert_eq!(entries(span), count);
        }
    }
}
