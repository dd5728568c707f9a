//! The projection of guest memory onto table words: a guest-physical range, in parts of one
//! target each.

use super::entry::Behind;
use crate::addr::{GRANULE, GuestPhys};
use crate::space::{Placed, RegionKind, Regions};
use crate::span::Span;

/// The parts of `span` with the target of each, in address order and without gaps.
///
/// `span` must be granular, and so is every part: regions without memory, which may begin
/// and end at any byte, count as holes.
pub(crate) fn project(
    regions: &Regions,
    span: Span<GuestPhys>,
) -> impl Iterator<Item = (Span<GuestPhys>, Behind)> {
    let mut next = Some(span.start());
    let has_memory = |placed: &&Placed| placed.region.object().is_some();
    let mut rest = regions.overlapping(span).filter(has_memory).peekable();
    core::iter::from_fn(move || {
        let start = next.filter(|&start| start <= span.last())?;
        let (last, behind) = match rest.peek() {
            Some(placed) if placed.region.span().contains(start) => {
                let region = &placed.region;
                let last = region.span().last().min(span.last());
                let behind = match (&placed.segment, region.object()) {
                    (Some(segment), Some(_)) => Behind::Memory {
                        segment: segment.index(),
                        page: segment.offset(start) / GRANULE,
                        offered: region.access(),
                        ram: region.kind() == RegionKind::Ram,
                    },
                    _ => hole(start),
                };
                rest.next();
                (last, behind)
            }
            Some(placed) => {
                let last = GuestPhys(placed.region.span().start().0 - 1);
                (last, hole(start))
            }
            None => (span.last(), hole(start)),
        };
        next = last.checked_add(1);
        Some((Span::inclusive(start, last)?, behind))
    })
}

fn hole(start: GuestPhys) -> Behind {
    Behind::Hole { guest_page: start.0 / GRANULE }
}
