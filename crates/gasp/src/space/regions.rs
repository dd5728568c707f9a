//! The regions of an address space: added, changed and removed, with split and merge.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::region::{ODD_OFFSET, Region, RegionKind};
use crate::access::Access;
use crate::addr::{GRANULE, GuestPhys};
use crate::error::Reason;
use crate::space::segment::Segment;
use crate::span::Span;

/// Maximum number of regions of a guest.
pub(crate) const REGIONS_MAX: usize = 1 << 16;

/// A region, and the segment that its leaves name if it has memory.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) region: Region,
    pub(crate) segment: Option<Arc<Segment>>,
}

/// All regions of a guest, of which no two overlap, and no two neighbours could be merged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Regions {
    by_start: BTreeMap<GuestPhys, Placed>,
    /// Ranges inside RAM and ROM that a loader has claimed: first byte to last.
    pub(super) claims: BTreeMap<GuestPhys, GuestPhys>,
}

impl Regions {
    /// The regions that overlap `span`, in order.
    pub(crate) fn overlapping(
        &self,
        span: Span<GuestPhys>,
    ) -> impl DoubleEndedIterator<Item = &Placed> {
        let before = self.by_start.range(..span.start()).next_back();
        let first = before.map_or(span.start(), |(&start, _)| start);
        self.by_start
            .range(first..=span.last())
            .map(|(_, placed)| placed)
            .filter(move |placed| placed.region.span().overlaps(&span))
    }

    /// All regions, in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Placed> {
        self.by_start.values()
    }

    /// The region at an address.
    pub(crate) fn at(&self, addr: GuestPhys) -> Option<&Placed> {
        let (_, placed) = self.by_start.range(..=addr).next_back()?;
        placed.region.span().contains(addr).then_some(placed)
    }

    /// The first address past the highest RAM or ROM; 0 without any, `None` if that ends at
    /// 2^64.
    pub(crate) fn end_of_memory(&self) -> Option<GuestPhys> {
        let memory =
            |placed: &&Placed| matches!(placed.region.kind(), RegionKind::Ram | RegionKind::Rom);
        match self.iter().rev().find(memory) {
            Some(highest) => highest.region.span().last().checked_add(1),
            None => Some(GuestPhys(0)),
        }
    }

    /// Checks whether a region can be added.
    pub(crate) fn check_add(&self, region: &Region) -> Result<(), Reason> {
        if region.kind().is_memory() && !region.span().is_granular() {
            return Err(Reason::Invalid(
                "a region of memory must start and end on a multiple of 4 KiB",
            ));
        }
        // `Region::part` of a region that begins inside a page can have any offset.
        if !region.object_offset().is_multiple_of(GRANULE) {
            return Err(ODD_OFFSET);
        }
        if let Some(there) = self.overlapping(region.span()).next() {
            return Err(Reason::Overlaps(match there.region.kind() {
                RegionKind::Ram => "a RAM region",
                RegionKind::Rom => "a ROM region",
                RegionKind::PassThrough => "a pass-through window",
                RegionKind::Reserved => "a reserved range",
                RegionKind::Device => "a device region",
            }));
        }
        if self.by_start.len() >= REGIONS_MAX {
            return Err(Reason::Limit { what: "regions", limit: REGIONS_MAX as u64 });
        }
        Ok(())
    }

    /// The first address in `span` that is in no region of an accepted kind.
    pub(crate) fn gap(
        &self,
        span: Span<GuestPhys>,
        is_such: impl Fn(RegionKind) -> bool,
    ) -> Option<GuestPhys> {
        let mut next = Some(span.start());
        for placed in self.overlapping(span) {
            let there = placed.region.span();
            if !is_such(placed.region.kind()) || next.is_none_or(|next| !there.contains(next)) {
                break;
            }
            next = there.last().checked_add(1);
        }
        next.filter(|&next| next <= span.last())
    }

    /// Checks whether the regions at the ends of `span` can be split there: regions of memory
    /// only at multiples of 4 KiB.
    pub(crate) fn check_cut(&self, span: Span<GuestPhys>) -> Result<(), Reason> {
        let cut =
            |addr: GuestPhys| self.at(addr).filter(|there| there.region.span().start() != addr);
        let splits = [Some(span.start()), span.last().checked_add(1)].into_iter().flatten();
        let between_bytes = |addr: GuestPhys| !addr.0.is_multiple_of(GRANULE);
        if splits.clone().any(|addr| {
            between_bytes(addr) && cut(addr).is_some_and(|there| there.region.kind().is_memory())
        }) {
            return Err(Reason::Invalid(
                "a range must not begin or end inside a page of memory: regions of memory are \
                 split only at multiples of 4 KiB",
            ));
        }
        let more = splits.filter(|&addr| cut(addr).is_some()).count();
        if more > 0 && self.by_start.len() + more > REGIONS_MAX {
            return Err(Reason::Limit { what: "regions", limit: REGIONS_MAX as u64 });
        }
        Ok(())
    }

    /// Adds a region, which must have passed [`check_add`](Self::check_add).
    pub(crate) fn add(&mut self, placed: Placed) {
        let span = placed.region.span();
        self.by_start.insert(span.start(), placed);
        self.merge_around(span);
    }

    /// Removes what lies in `span`, splitting regions at its ends, and the claims that overlap
    /// it. Returns the regions that were removed.
    pub(crate) fn remove(&mut self, span: Span<GuestPhys>) -> Vec<Placed> {
        let removed = self.cut(span);
        self.claims.retain(|&first, &mut last| !(first <= span.last() && span.start() <= last));
        removed
    }

    /// Changes the access that the regions in `span` offer, within what their kind and memory
    /// allow. Returns the regions as they were before.
    pub(crate) fn set_access(&mut self, span: Span<GuestPhys>, access: Access) -> Vec<Placed> {
        self.change(span, |region| region.with_access(access & region.limit()))
    }

    /// Sets the tag and the owner of the regions in `span`.
    pub(crate) fn set_tag(&mut self, span: Span<GuestPhys>, tag: u64, owner: Option<&str>) {
        self.change(span, |region| region.clone().tagged(tag).owned_by(owner));
    }

    fn change(&mut self, span: Span<GuestPhys>, change: impl Fn(&Region) -> Region) -> Vec<Placed> {
        let was = self.cut(span);
        for placed in &was {
            let region = change(&placed.region);
            let segment = placed.segment.clone();
            self.by_start.insert(region.span().start(), Placed { region, segment });
        }
        for placed in &was {
            self.merge_around(placed.region.span());
        }
        was
    }

    /// Removes everything in `span`, keeping the rest of regions that extend past it.
    fn cut(&mut self, span: Span<GuestPhys>) -> Vec<Placed> {
        let touched: Vec<GuestPhys> =
            self.overlapping(span).map(|placed| placed.region.span().start()).collect();
        let mut taken = Vec::with_capacity(touched.len());
        for start in touched {
            let Some(Placed { region, segment }) = self.by_start.remove(&start) else { continue };
            let whole = region.span();
            let left = span.start().0.checked_sub(1).map(GuestPhys);
            let left = left.and_then(|last| Span::inclusive(whole.start(), last));
            let right = span.last().checked_add(1);
            let right = right.and_then(|first| Span::inclusive(first, whole.last()));
            for rest in [left, right].into_iter().flatten() {
                if let Some(region) = region.part(rest) {
                    let placed = Placed { region, segment: segment.clone() };
                    self.by_start.insert(placed.region.span().start(), placed);
                }
            }
            if let Some(region) = region.part(span) {
                taken.push(Placed { region, segment });
            }
        }
        taken
    }

    /// Merges the regions at the ends of `span` with their neighbours if they are alike.
    fn merge_around(&mut self, span: Span<GuestPhys>) {
        for seam in [Some(span.start()), span.last().checked_add(1)].into_iter().flatten() {
            let Some(right) = self.by_start.get(&seam) else { continue };
            let Some((&start, left)) = self.by_start.range(..seam).next_back() else { continue };
            let Some(region) = left.region.joined(&right.region) else { continue };
            let segment = left.segment.clone();
            self.by_start.remove(&seam);
            self.by_start.insert(start, Placed { region, segment });
        }
    }
}

const _: () = assert!(GRANULE == 4096, "the messages above say 4 KiB");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Backing, MemoryObject};
    use proptest::prelude::*;

    /// A span in units of 1 KiB: regions without memory need no whole pages.
    fn span(start: u64, count: u64) -> Span<GuestPhys> {
        Span::new(GuestPhys(start << 10), count << 10).unwrap()
    }

    fn placed(region: Region) -> Placed {
        Placed { region, segment: None }
    }

    fn kinds(regions: &Regions) -> Vec<Option<Option<String>>> {
        (0..64)
            .map(|unit| {
                let there = regions.at(GuestPhys(unit << 10))?;
                Some(there.region.owner().map(str::to_owned))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn regions_behave_as_an_array(
            steps in prop::collection::vec((0..3, 0u64..60, 1u64..12), 1..40)
        ) {
            let mut regions = Regions::default();
            let mut model: Vec<Option<Option<String>>> = vec![None; 64];
            for (what, page, pages) in steps {
                let pages = pages.min(64 - page);
                let range = page as usize..(page + pages) as usize;
                let region = match what {
                    0 => Region::reserved(span(page, pages)),
                    1 => Region::device(span(page, pages), "uart"),
                    _ => {
                        regions.remove(span(page, pages));
                        model[range].fill(None);
                        continue;
                    }
                };
                let free = model[range.clone()].iter().all(Option::is_none);
                let checked = regions.check_add(&region);
                prop_assert_eq!(checked.is_ok(), free);
                if free {
                    let owner = region.owner().map(str::to_owned);
                    regions.add(placed(region));
                    model[range].fill(Some(owner));
                }
            }
            prop_assert_eq!(kinds(&regions), model.clone());
            // No two neighbours are alike: as few regions as the array has runs.
            let mut runs = model.clone();
            runs.dedup();
            let runs = runs.into_iter().flatten().count();
            prop_assert_eq!(regions.iter().count(), runs);
        }
    }

    #[test]
    fn only_memory_needs_whole_pages() {
        let ram = MemoryObject::ram(0x4000).prefer(&[Backing::Base]).create().unwrap();
        let part = |start, len| {
            let span = Span::new(GuestPhys(start), len).unwrap();
            Region::memory(RegionKind::Ram, span, &ram, 0).unwrap()
        };
        let mut regions = Regions::default();
        for (start, len) in [(0x1000, 0x800), (0x1800, 0x1000), (0x1001, 1)] {
            let refused = regions.check_add(&part(start, len));
            assert!(matches!(refused, Err(Reason::Invalid(_))), "{refused:?}");
            let odd = Span::new(GuestPhys(start), len).unwrap();
            regions.check_add(&Region::reserved(odd)).unwrap();
            regions.check_add(&Region::device(odd, "uart")).unwrap();
        }
        regions.add(placed(part(0x1000, 0x2000)));
        let bytes = |start, len| Span::new(GuestPhys(start), len).unwrap();
        for inside in [bytes(0x1800, 0x1800), bytes(0x1000, 0x1001), bytes(0xfff, 2)] {
            assert!(matches!(regions.check_cut(inside), Err(Reason::Invalid(_))), "{inside}");
        }
        for whole in [bytes(0x1000, 0x1000), bytes(0xfff, 0x2002), bytes(0x2000, 0x1234)] {
            assert_eq!(regions.check_cut(whole), Ok(()), "{whole}");
        }
    }

    #[test]
    fn the_offset_of_a_part_is_whole_pages_or_it_is_refused() {
        let ram = MemoryObject::ram(0x4000).prefer(&[Backing::Base]).create().unwrap();
        let whole = |start| {
            let span = Span::new(GuestPhys(start), 0x3000).unwrap();
            Region::memory(RegionKind::Ram, span, &ram, 0).unwrap()
        };
        let page = Span::new(GuestPhys(0x2000), 0x1000).unwrap();
        let regions = Regions::default();
        for (start, allowed) in [(0x1000, true), (0x1800, false), (0x1001, false)] {
            let part = whole(start).part(page).unwrap();
            assert_eq!(part.object_offset(), 0x2000 - start);
            assert_eq!(regions.check_add(&part).is_ok(), allowed, "{start:#x}");
        }
    }

    #[test]
    fn the_first_gap_is_found() {
        let mut regions = Regions::default();
        regions.add(placed(Region::device(span(0, 1), "uart")));
        regions.add(placed(Region::reserved(span(1, 2))));
        let gap = |start, count, is_such: &dyn Fn(RegionKind) -> bool| {
            regions.gap(span(start, count), is_such).map(|gap| gap.0 >> 10)
        };
        assert_eq!(gap(0, 3, &|_| true), None);
        assert_eq!(gap(0, 4, &|_| true), Some(3));
        assert_eq!(gap(8, 2, &|_| true), Some(8));
        assert_eq!(gap(0, 3, &|kind| kind == RegionKind::Device), Some(1));
    }

    #[test]
    fn regions_may_touch_the_end_of_the_address_space() {
        let mut regions = Regions::default();
        let top = Span::new(GuestPhys(u64::MAX - 0x1fff), 0x2000).unwrap();
        regions.add(placed(Region::reserved(top)));
        assert!(regions.at(GuestPhys(u64::MAX)).is_some());
        assert_eq!(regions.remove(top).len(), 1);
        assert_eq!(regions.iter().count(), 0);
    }
}
