//! The ranges of a configuration that have memory.

use super::plan::{Content, RegionPlan};
use crate::addr::GuestPhys;
use crate::span::Span;

/// Ranges with memory of some kinds, in order and merged.
pub(super) struct Memory(Vec<Span<GuestPhys>>);

impl Memory {
    /// The ranges of the regions whose content `counts`.
    pub(super) fn of(regions: &[RegionPlan], counts: impl Fn(&Content) -> bool) -> Self {
        let memory = regions.iter().filter(|region| counts(&region.content));
        let mut spans: Vec<_> = memory.map(|region| region.span).collect();
        spans.sort_by_key(Span::start);
        let mut joined: Vec<Span<GuestPhys>> = Vec::with_capacity(spans.len());
        for span in spans {
            let last = joined.last_mut();
            match last.filter(|last| last.last().checked_add(1) == Some(span.start())) {
                Some(last) => *last = Span::inclusive(last.start(), span.last()).unwrap_or(span),
                None => joined.push(span),
            }
        }
        Self(joined)
    }

    /// The first address of `span` without memory, if there is one.
    pub(super) fn hole(&self, span: Span<GuestPhys>) -> Option<GuestPhys> {
        let after = self.0.partition_point(|memory| memory.start() <= span.start());
        let memory = after.checked_sub(1).and_then(|index| self.0.get(index));
        let end = memory.filter(|memory| memory.contains(span.start())).map(Span::last);
        match end {
            Some(end) if span.last() <= end => None,
            Some(end) => Some(end.checked_add(1).unwrap_or(end)),
            None => Some(span.start()),
        }
    }
}
