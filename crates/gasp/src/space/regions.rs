//! The regions of an address space, in order: add, change and remove with split and merge.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::region::{Region, RegionKind};
use crate::access::Access;
use crate::addr::GuestPhys;
use crate::error::Reason;
use crate::span::Span;
use crate::view::segment::Segment;

/// The most regions a guest can have.
pub(crate) const REGIONS_MAX: usize = 1 << 16;

/// A region, and the segment that its leaves name.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) region: Region,
    pub(crate) segment: Option<Arc<Segment>>,
}

/// All regions of a guest; no two overlap, and no two neighbours are alike.
#[derive(Clone, Debug, Default)]
pub(crate) struct Regions {
    by_start: BTreeMap<GuestPhys, Placed>,
    /// Ranges inside RAM and ROM that a loader has claimed, first to last byte.
    pub(super) claims: BTreeMap<GuestPhys, GuestPhys>,
}

impl Regions {
    /// The regions that have an address in `span`, in order.
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

    /// The first address behind the highest RAM or ROM; 0 where there is none.
    pub(crate) fn end_of_memory(&self) -> Option<GuestPhys> {
        let memory =
            |placed: &&Placed| matches!(placed.region.kind(), RegionKind::Ram | RegionKind::Rom);
        match self.iter().rev().find(memory) {
            Some(highest) => highest.region.span().last().checked_add(1),
            None => Some(GuestPhys(0)),
        }
    }

    /// Whether a region could be added.
    pub(crate) fn check_add(&self, region: &Region) -> Result<(), Reason> {
        if !region.span().is_granular() {
            return Err(Reason::Invalid("a region must start and end on a multiple of 4 KiB"));
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

    /// Whether the regions at the ends of `span` could be split there.
    pub(crate) fn check_cut(&self, span: Span<GuestPhys>) -> Result<(), Reason> {
        let inside = |addr: GuestPhys| {
            self.at(addr).is_some_and(|there| there.region.span().start() != addr)
        };
        let splits = [Some(span.start()), span.last().checked_add(1)].into_iter().flatten();
        let more = splits.filter(|&addr| inside(addr)).count();
        if more > 0 && self.by_start.len() + more > REGIONS_MAX {
            return Err(Reason::Limit { what: "regions", limit: REGIONS_MAX as u64 });
        }
        Ok(())
    }

    /// Adds a region for which [`check_add`](Self::check_add) had nothing to say.
    pub(crate) fn add(&mut self, placed: Placed) {
        let span = placed.region.span();
        self.by_start.insert(span.start(), placed);
        self.merge_around(span);
    }

    /// Removes what lies in `span`, cutting regions at its ends; gives back what it was.
    pub(crate) fn remove(&mut self, span: Span<GuestPhys>) -> Vec<Placed> {
        let removed = self.cut(span);
        self.claims.retain(|&first, &mut last| !(first <= span.last() && span.start() <= last));
        removed
    }

    /// Changes what the memory in `span` offers, as far as its kinds allow; gives back
    /// what it was before.
    pub(crate) fn set_access(&mut self, span: Span<GuestPhys>, access: Access) -> Vec<Placed> {
        self.change(span, |region| region.with_access(access & region.limit()))
    }

    /// Gives the regions in `span` a tag and an owner.
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

    /// Takes out everything in `span`, putting the rest of cut regions back.
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

    /// Joins the regions at the ends of `span` with their neighbours where they are alike.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(page: u64, pages: u64) -> Span<GuestPhys> {
        Span::new(GuestPhys(page << 12), pages << 12).unwrap()
    }

    fn placed(region: Region) -> Placed {
        Placed { region, segment: None }
    }

    fn kinds(regions: &Regions) -> Vec<Option<Option<String>>> {
        (0..64)
            .map(|page| {
                let there = regions.at(GuestPhys(page << 12))?;
                Some(there.region.owner().map(str::to_owned))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn regions_behave_as_an_array_of_pages(
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
    fn a_region_must_be_granular() {
        let odd = Span::new(GuestPhys(0x1000), 0x800).unwrap();
        let error = Regions::default().check_add(&Region::reserved(odd)).unwrap_err();
        assert!(matches!(error, Reason::Invalid(_)));
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
