//! The search for free ranges, in the address space and inside RAM and ROM.

use super::region::RegionKind;
use super::regions::Regions;
use crate::addr::GuestPhys;
use crate::error::Reason;
use crate::span::Span;

/// Requirements of a search for a free range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Search {
    /// Length of the range in bytes; 0 is refused (`EINVAL`).
    pub size: u64,
    /// Alignment of its start in bytes: a power of two; 0 and 1 accept any address.
    pub align: u64,
    /// Lowest address that the range may have.
    pub min: GuestPhys,
    /// Highest address that the range may have, inclusive.
    pub max: GuestPhys,
}

impl Search {
    /// A search for `size` bytes at any address that is a multiple of `align`.
    pub fn new(size: u64, align: u64) -> Self {
        Self { size, align, min: GuestPhys(0), max: GuestPhys(u64::MAX) }
    }

    /// The same search, restricted to the addresses from `min` to `max`, both inclusive.
    #[must_use]
    pub fn within(self, min: GuestPhys, max: GuestPhys) -> Self {
        Self { min, max, ..self }
    }

    fn check(&self) -> Result<(), Reason> {
        if self.size == 0 {
            return Err(Reason::ZeroLength);
        }
        if self.align > 1 && !self.align.is_power_of_two() {
            return Err(Reason::Invalid("the alignment must be a power of two"));
        }
        Ok(())
    }

    /// The lowest range in `[first, last]` that meets the requirements.
    fn fit(&self, first: GuestPhys, last: GuestPhys) -> Option<Span<GuestPhys>> {
        let start = first.max(self.min).0.checked_next_multiple_of(self.align.max(1))?;
        let span = Span::new(GuestPhys(start), self.size).ok()?;
        (span.last() <= last.min(self.max)).then_some(span)
    }
}

impl Regions {
    /// Finds the lowest range without any region, in an address space of `width` bits.
    pub(crate) fn find_free(&self, search: Search, width: u32) -> Result<Span<GuestPhys>, Reason> {
        search.check()?;
        let end = 1_u64.checked_shl(width).map_or(u64::MAX, |end| end - 1);
        let mut first = GuestPhys(0);
        for placed in self.iter() {
            let span = placed.region.span();
            let gap = span.start().0.checked_sub(1).filter(|&last| first.0 <= last);
            if let Some(found) = gap.and_then(|last| search.fit(first, GuestPhys(last))) {
                return Ok(found);
            }
            match span.last().checked_add(1) {
                Some(next) => first = next,
                None => return Err(Reason::NoRoom),
            }
        }
        search.fit(first, GuestPhys(end)).ok_or(Reason::NoRoom)
    }

    /// Finds the lowest range inside one RAM or ROM region that is not claimed, and claims it.
    pub(crate) fn claim_free(&mut self, search: Search) -> Result<Span<GuestPhys>, Reason> {
        search.check()?;
        let memory = |kind| matches!(kind, RegionKind::Ram | RegionKind::Rom);
        let found = self.iter().filter(|placed| memory(placed.region.kind())).find_map(|placed| {
            let span = placed.region.span();
            let mut first = span.start();
            for (&claimed, &last) in self.claims.range(..=span.last()) {
                let before = claimed.0.checked_sub(1).filter(|&before| first.0 <= before);
                if let Some(found) = before.and_then(|gap| search.fit(first, GuestPhys(gap))) {
                    return Some(found);
                }
                first = first.max(last.checked_add(1)?);
            }
            search.fit(first, span.last()).filter(|found| first <= found.start())
        });
        let found = found.ok_or(Reason::NoRoom)?;
        self.claims.insert(found.start(), found.last());
        Ok(found)
    }

    /// Claims a given range, all of which must be RAM or ROM.
    pub(crate) fn claim(&mut self, span: Span<GuestPhys>) -> Result<(), Reason> {
        let memory = |kind| matches!(kind, RegionKind::Ram | RegionKind::Rom);
        if let Some(gap) = self.gap(span, memory) {
            return Err(Reason::NoMemory { addr: gap });
        }
        if self.claims.iter().any(|(&first, &last)| first <= span.last() && span.start() <= last) {
            return Err(Reason::Overlaps("a claimed range"));
        }
        self.claims.insert(span.start(), span.last());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Backing, MemoryObject};
    use crate::space::{Placed, Region};

    fn span(start: u64, len: u64) -> Span<GuestPhys> {
        Span::new(GuestPhys(start), len).unwrap()
    }

    fn with(reserved: &[(u64, u64)]) -> Regions {
        let mut regions = Regions::default();
        for &(start, len) in reserved {
            let region = Region::reserved(span(start, len));
            regions.add(Placed { region, segment: None });
        }
        regions
    }

    #[test]
    fn the_lowest_gap_that_fits_is_found() {
        let regions = with(&[(0, 0x1000), (0x3000, 0x1000), (0x8000, 0x1000)]);
        let find = |search| regions.find_free(search, 40).map(|found| found.start().0);
        assert_eq!(find(Search::new(0x2000, 0)), Ok(0x1000));
        assert_eq!(find(Search::new(0x2001, 0)), Ok(0x4000));
        assert_eq!(find(Search::new(0x1000, 0x2000)), Ok(0x2000));
        assert_eq!(find(Search::new(0x5000, 0x1000)), Ok(0x9000));
        let low = GuestPhys(0x2800);
        assert_eq!(find(Search::new(0x1000, 1).within(low, GuestPhys(0x4fff))), Ok(0x4000));
        assert_eq!(
            find(Search::new(0x1000, 1).within(low, GuestPhys(0x4ffe))),
            Err(Reason::NoRoom)
        );
        assert_eq!(find(Search::new(1 << 40, 0)), Err(Reason::NoRoom));
        assert_eq!(find(Search::new(0, 0)), Err(Reason::ZeroLength));
        assert!(matches!(find(Search::new(1, 3)), Err(Reason::Invalid(_))));
        assert_eq!(find(Search::new(u64::MAX, 1 << 63)), Err(Reason::NoRoom));
    }

    #[test]
    fn space_inside_ram_is_handed_out_once() {
        let ram = MemoryObject::ram(0x4000).prefer(&[Backing::Base]).create().unwrap();
        let mut regions = with(&[(0x4000, 0x1000)]);
        let region = Region::ram(GuestPhys(0), &ram).unwrap();
        regions.add(Placed { region, segment: None });
        let mut starts = Vec::new();
        while let Ok(found) = regions.claim_free(Search::new(0x1000, 0x1000)) {
            starts.push(found.start().0);
        }
        assert_eq!(starts, [0, 0x1000, 0x2000, 0x3000]);
        assert!(matches!(regions.claim(span(0x1800, 8)), Err(Reason::Overlaps(_))));
        assert_eq!(
            regions.claim(span(0x4000, 8)),
            Err(Reason::NoMemory { addr: GuestPhys(0x4000) })
        );
    }
}
