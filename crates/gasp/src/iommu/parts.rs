//! The pages of a translator that are in the table in parts.
//!
//! An answer is one word if the memory behind it and the words that are there allow it; if not,
//! only a part of its page is entered, and the other parts when they are asked about. A change of
//! the regions cuts words as well. An invalidation of any part of such a page takes all of it out,
//! so this is the record of where those pages begin and end.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::addr::DeviceAddr;
use crate::span::Span;

/// The most pages that are told apart; those that are left over when their words are evicted count.
const MOST: usize = 1 << 16;

/// The first and the last address of each page. Pages are powers of two, so two of them are apart
/// or one lies in the other; then only the larger one is recorded.
#[derive(Default)]
pub(super) struct Parts(Mutex<BTreeMap<u64, u64>>);

impl Parts {
    /// Records a page.
    pub(super) fn add(&self, page: Span<DeviceAddr>) {
        let mut pages = self.0.lock();
        insert(&mut pages, (page.start().0, page.last().0));
        // Too many: coarser ones, which the invalidation of a part takes out as well.
        for shift in [30, 39, 63] {
            if pages.len() <= MOST {
                break;
            }
            let within = (1 << shift) - 1;
            for (first, last) in core::mem::take(&mut *pages) {
                insert(&mut pages, (first & !within, last | within));
            }
        }
    }

    /// The span, with the pages that its ends are in.
    pub(super) fn around(&self, span: Span<DeviceAddr>) -> Span<DeviceAddr> {
        let pages = self.0.lock();
        let first = containing(&pages, span.start().0).map_or(span.start().0, |(first, _)| first);
        let last = containing(&pages, span.last().0).map_or(span.last().0, |(_, last)| last);
        Span::inclusive(DeviceAddr(first), DeviceAddr(last)).unwrap_or(span)
    }

    /// Removes the pages that lie in `span`.
    pub(super) fn remove(&self, span: Span<DeviceAddr>) {
        let mut pages = self.0.lock();
        if !pages.is_empty() {
            remove(&mut pages, (span.start().0, span.last().0));
        }
    }
}

/// The page that an address is in.
fn containing(pages: &BTreeMap<u64, u64>, addr: u64) -> Option<(u64, u64)> {
    let (&first, &last) = pages.range(..=addr).next_back()?;
    (addr <= last).then_some((first, last))
}

fn insert(pages: &mut BTreeMap<u64, u64>, page: (u64, u64)) {
    if containing(pages, page.0).is_none_or(|(_, last)| last < page.1) {
        remove(pages, page);
        pages.insert(page.0, page.1);
    }
}

/// Removes the pages that lie in the range.
fn remove(pages: &mut BTreeMap<u64, u64>, (first, last): (u64, u64)) {
    while let Some((&next, _)) = pages.range(first..=last).find(|&(_, &end)| end <= last) {
        pages.remove(&next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: u64, last: u64) -> Span<DeviceAddr> {
        Span::inclusive(DeviceAddr(first), DeviceAddr(last)).unwrap()
    }

    #[test]
    fn a_span_grows_over_the_pages_of_its_ends_alone() {
        let parts = Parts::default();
        parts.add(span(0x20_0000, 0x3f_ffff));
        parts.add(span(0x4000_0000, 0x7fff_ffff));
        assert_eq!(parts.around(span(0x20_1000, 0x20_1fff)), span(0x20_0000, 0x3f_ffff));
        assert_eq!(parts.around(span(0x1f_f000, 0x1f_ffff)), span(0x1f_f000, 0x1f_ffff));
        assert_eq!(parts.around(span(0x40_0000, 0x40_0fff)), span(0x40_0000, 0x40_0fff));
        assert_eq!(parts.around(span(0x3f_f000, 0x4000_0fff)), span(0x20_0000, 0x7fff_ffff));
        // The smaller one is in the larger one, in whichever order they come.
        parts.add(span(0x4020_0000, 0x403f_ffff));
        parts.add(span(0, 0x3fff_ffff));
        assert_eq!(parts.0.lock().len(), 2);
        parts.remove(span(0, 0x4fff_ffff));
        assert_eq!(*parts.0.lock(), BTreeMap::from([(0x4000_0000, 0x7fff_ffff)]));
    }

    #[test]
    fn the_record_is_bounded_and_never_too_small() {
        let parts = Parts::default();
        let pages = |step: u64| (0..MOST as u64 + 1).map(move |page| (page * step) << 21);
        for step in [3, 512, 1 << 18] {
            for first in pages(step) {
                parts.add(span(first, first + 0x1f_ffff));
                assert!(parts.0.lock().len() <= MOST);
            }
            for first in pages(step) {
                let within = span(first + 0x1000, first + 0x1fff);
                assert!(parts.around(within).covers(&span(first, first + 0x1f_ffff)));
            }
        }
    }
}
