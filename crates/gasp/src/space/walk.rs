//! Walking a guest's RAM and ROM, entry by entry.

use super::region::RegionKind;
use super::regions::Regions;
use crate::addr::{GuestPhys, HostPhys};
use crate::span::Span;

/// How to walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    /// No entry is longer than this; 0 stands for no limit.
    pub max_len: u64,
    /// Whether entries tell their host-physical address, and so end where it does not go
    /// on.
    pub host: bool,
}

/// One entry of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkEntry {
    /// Where it is in the guest, and how long.
    pub guest: Span<GuestPhys>,
    /// Where it is in the host; `None` where that was not asked for or is not known.
    pub host: Option<HostPhys>,
    /// RAM or ROM.
    pub kind: RegionKind,
}

impl Regions {
    /// Calls `each` with every entry of RAM and ROM that `filter` lets through, in order,
    /// until it says `false`.
    ///
    /// The filter is given a range and gives back its first part that is to be walked; it
    /// is asked again about what is behind that part. `None` skips the rest.
    pub(crate) fn walk(
        &self,
        walk: Walk,
        mut filter: impl FnMut(Span<GuestPhys>) -> Option<Span<GuestPhys>>,
        mut each: impl FnMut(WalkEntry) -> bool,
    ) {
        for placed in self.iter() {
            let kind = placed.region.kind();
            if !matches!(kind, RegionKind::Ram | RegionKind::Rom) {
                continue;
            }
            let mut rest = Some(placed.region.span());
            while let Some(block) = rest {
                let allowed = filter(block).and_then(|part| part.intersection(&block));
                let Some(allowed) = allowed else { break };
                let mut next = Some(allowed);
                while let Some(span) = next {
                    let entry = self.entry(placed, span, walk, kind);
                    if !each(entry) {
                        return;
                    }
                    next = behind(entry.guest, span.last());
                }
                rest = behind(allowed, block.last());
            }
        }
    }

    /// The first entry at or behind `from`.
    pub(crate) fn walk_from(&self, from: GuestPhys, walk: Walk) -> Option<WalkEntry> {
        // No guest's addresses are longer than 52 bits.
        let rest = Span::inclusive(from, GuestPhys((1 << 52) - 1))?;
        let memory = |kind| matches!(kind, RegionKind::Ram | RegionKind::Rom);
        let placed = self.overlapping(rest).find(|placed| memory(placed.region.kind()))?;
        let span = placed.region.span().intersection(&rest)?;
        Some(self.entry(placed, span, walk, placed.region.kind()))
    }

    fn entry(
        &self,
        placed: &super::Placed,
        span: Span<GuestPhys>,
        walk: Walk,
        kind: RegionKind,
    ) -> WalkEntry {
        let max = if walk.max_len == 0 { u64::MAX } else { walk.max_len };
        let mut len = span.len().min(max);
        let mut host = None;
        if walk.host
            && let Some((object, offset)) = placed.region.backing()
        {
            let at = offset + (span.start().0 - placed.region.span().start().0);
            if let Ok(run) = object.phys_run(at, len) {
                (host, len) = (Some(run.addr), run.len);
            }
        }
        let guest = Span::new(span.start(), len).unwrap_or(span);
        WalkEntry { guest, host, kind }
    }
}

/// What is left behind `done` up to `last`.
fn behind(done: Span<GuestPhys>, last: GuestPhys) -> Option<Span<GuestPhys>> {
    Span::inclusive(done.last().checked_add(1)?, last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Backing, MemoryObject};
    use crate::space::{Placed, Region};

    fn regions() -> Regions {
        let ram = MemoryObject::ram(0x8000).prefer(&[Backing::Base]).create().unwrap();
        let mut regions = Regions::default();
        let region = Region::ram(GuestPhys(0x1000), &ram).unwrap();
        regions.add(Placed { region, segment: None });
        regions
    }

    fn spans(
        walk: Walk,
        filter: impl FnMut(Span<GuestPhys>) -> Option<Span<GuestPhys>>,
    ) -> Vec<(u64, u64)> {
        let mut seen = Vec::new();
        regions().walk(walk, filter, |entry| {
            seen.push((entry.guest.start().0, entry.guest.len()));
            true
        });
        seen
    }

    #[test]
    fn entries_tile_the_memory_and_keep_to_the_maximum() {
        let walk = Walk { max_len: 0x3000, host: false };
        assert_eq!(spans(walk, Some), [(0x1000, 0x3000), (0x4000, 0x3000), (0x7000, 0x2000)]);
        let whole = Walk { max_len: 0, host: false };
        assert_eq!(spans(whole, Some), [(0x1000, 0x8000)]);
        let host: u64 = spans(Walk { max_len: 0, host: true }, Some).iter().map(|e| e.1).sum();
        assert_eq!(host, 0x8000);
    }

    #[test]
    fn step_by_step_gives_the_same_entries() {
        let regions = regions();
        for walk in [Walk { max_len: 0x1800, host: false }, Walk { max_len: 0, host: true }] {
            let mut whole = Vec::new();
            regions.walk(walk, Some, |entry| {
                whole.push(entry);
                true
            });
            let mut steps = Vec::new();
            let mut from = Some(GuestPhys(0));
            while let Some(entry) = from.and_then(|from| regions.walk_from(from, walk)) {
                steps.push(entry);
                from = entry.guest.last().checked_add(1);
            }
            assert_eq!(steps, whole);
        }
        let inside = regions.walk_from(GuestPhys(0x1234), Walk { max_len: 0, host: false });
        assert_eq!(inside.map(|entry| entry.guest.start().0), Some(0x1234));
    }

    #[test]
    fn a_filter_is_asked_again_about_what_is_behind_the_part_it_allowed() {
        let allow = [(0x2000, 0x1000), (0x5000, 0x1000)];
        let filter = |block: Span<GuestPhys>| {
            allow.iter().find_map(|&(start, len)| {
                Span::new(GuestPhys(start), len).unwrap().intersection(&block)
            })
        };
        let walk = Walk { max_len: 0x800, host: false };
        assert_eq!(
            spans(walk, filter),
            [(0x2000, 0x800), (0x2800, 0x800), (0x5000, 0x800), (0x5800, 0x800)]
        );
    }
}
