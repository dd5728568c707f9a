//! The walk over a guest's RAM and ROM, entry by entry.

use super::region::RegionKind;
use super::regions::Regions;
use crate::addr::{GuestPhys, HostPhys};
use crate::span::Span;

/// Options of a walk over RAM and ROM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    /// Maximum length of an entry in bytes; 0 for no limit.
    pub max_len: u64,
    /// Whether entries have host-physical addresses, and so end where the host-physical run
    /// ends.
    pub host: bool,
}

/// One entry of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkEntry {
    /// The guest-physical range.
    pub guest: Span<GuestPhys>,
    /// Host-physical address of the range; `None` if not requested or not known.
    pub host: Option<HostPhys>,
    /// [`RegionKind::Ram`] or [`RegionKind::Rom`].
    pub kind: RegionKind,
}

impl Regions {
    /// The entries of RAM and ROM, in order.
    pub(crate) fn walk(&self, walk: Walk) -> impl Iterator<Item = WalkEntry> {
        let mut from = Some(GuestPhys(0));
        std::iter::from_fn(move || {
            let entry = self.walk_from(from?, walk)?;
            from = entry.guest.last().checked_add(1);
            Some(entry)
        })
    }

    /// The first entry at or after `from`; it begins at `from` if that is in RAM or ROM.
    pub(crate) fn walk_from(&self, from: GuestPhys, walk: Walk) -> Option<WalkEntry> {
        // No guest has addresses of more than 52 bits.
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
            && let Some(object) = placed.region.object()
        {
            let offset =
                placed.region.object_offset() + (span.start().0 - placed.region.span().start().0);
            if let Ok(run) = object.phys_run(offset, len) {
                (host, len) = (Some(run.addr), run.len);
            }
        }
        let guest = Span::new(span.start(), len).unwrap_or(span);
        WalkEntry { guest, host, kind }
    }
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

    fn spans(walk: Walk) -> Vec<(u64, u64)> {
        regions().walk(walk).map(|entry| (entry.guest.start().0, entry.guest.len())).collect()
    }

    #[test]
    fn entries_tile_the_memory_and_keep_to_the_maximum() {
        let walk = Walk { max_len: 0x3000, host: false };
        assert_eq!(spans(walk), [(0x1000, 0x3000), (0x4000, 0x3000), (0x7000, 0x2000)]);
        let whole = Walk { max_len: 0, host: false };
        assert_eq!(spans(whole), [(0x1000, 0x8000)]);
        let host: u64 = spans(Walk { max_len: 0, host: true }).iter().map(|e| e.1).sum();
        assert_eq!(host, 0x8000);
    }

    #[test]
    fn a_walk_may_begin_inside_a_region() {
        let walk = Walk { max_len: 0x1800, host: false };
        let inside = regions().walk_from(GuestPhys(0x1234), walk);
        assert_eq!(
            inside.map(|entry| (entry.guest.start().0, entry.guest.len())),
            Some((0x1234, 0x1800))
        );
        assert_eq!(regions().walk_from(GuestPhys(0x9000), walk), None);
    }
}
