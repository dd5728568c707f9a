//! Revoking grants.
#![allow(unsafe_code, reason = "shares segments and frees nodes under what guards them")]

use core::convert::Infallible;
use core::ops::ControlFlow;
use core::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::asking::Asking;
use super::chunks::{GuestMemory, free, free_retired, in_chunks};
use super::domain::DomainInner;
use super::project::entries;
use crate::addr::{DeviceAddr, GRANULE};
use crate::error::Reason;
use crate::mapping::{Drain, Keep, Revocation};
use crate::space::segment::SEGMENTS;
use crate::span::Span;
use crate::view::entry::{Behind, Leaf};
use crate::view::table::{Retired, Table};

impl DomainInner {
    /// Revokes the grants of `spans`, with one scan; the drain waits for the mappings that
    /// existed before (decision 15).
    ///
    /// Entries that extend past a span are cut, which can make more of them. If that would
    /// exceed the domain's limit, it fails and changes nothing.
    pub(crate) fn revoke(
        &self,
        memory: GuestMemory<'_>,
        spans: &[Span<DeviceAddr>],
    ) -> Result<Drain, Reason> {
        if !self.takes_grants() {
            return Err(Reason::Invalid("a domain that bypasses, denies or asks has no grants"));
        }
        let spans = self.rounded(spans);
        let _changes = self.changes.lock();
        self.check_cuts(memory, &spans)?;
        Ok(self.take_out(memory, &spans, None))
    }

    /// Takes the answers of `spans` out of the table, whole pages, with one scan. Those that are on
    /// their way are void. The drain waits for the mappings of what was taken out.
    pub(crate) fn invalidate(
        &self,
        memory: GuestMemory<'_>,
        spans: &[Span<DeviceAddr>],
    ) -> Result<Drain, Reason> {
        let Some(asking) = &self.asking else {
            return Err(Reason::Invalid("only a domain that asks has answers to invalidate"));
        };
        asking.invalidations.fetch_add(1, Ordering::Relaxed);
        let spans = self.whole_pages(asking, &self.rounded(spans));
        let _invalidating = asking.questions.invalidate(&spans);
        let _changes = self.changes.lock();
        Ok(self.take_out(memory, &spans, Some(asking)))
    }

    /// The spans, with all of the pages and words that their ends are in.
    fn whole_pages(&self, asking: &Asking, spans: &[Span<DeviceAddr>]) -> Spans {
        let mut whole = Spans::new();
        for some in spans.chunks(SOME) {
            // Whatever is entered in the table is recorded under the same lock.
            let _writer = self.view.writer();
            whole.extend(some.iter().map(|&span| self.whole_page(asking, span)));
        }
        joined(whole)
    }

    /// [`whole_pages`](Self::whole_pages) of one span, with the table locked.
    fn whole_page(&self, asking: &Asking, span: Span<DeviceAddr>) -> Span<DeviceAddr> {
        asking.parts.around(around_words(&self.view.table, span))
    }

    /// The spans in whole granules, in order and apart, inside the guest's address width: nothing
    /// is ever in the table past it.
    fn rounded(&self, spans: &[Span<DeviceAddr>]) -> Spans {
        let all = self.addresses();
        let inside = |span: &Span<DeviceAddr>| {
            span.rounded_out().map_or(Some(all), |span| all.intersection(&span))
        };
        joined(spans.iter().filter_map(inside).collect())
    }

    /// Takes `spans` out of the table, in a domain that is `asking` with the rest of the pages that
    /// they end in, and scans for the mappings of what was in it. The caller has the lock of changes.
    fn take_out(
        &self,
        memory: GuestMemory<'_>,
        spans: &[Span<DeviceAddr>],
        asking: Option<&Asking>,
    ) -> Drain {
        let mut revocation = Revocation::default();
        let mut kept = Kept::default();
        let mut retired = Retired::default();
        for &span in spans {
            let mut span = self.clear(memory, span, asking, &mut kept, &mut retired);
            // An answer that was entered before it could become void, or a change of the regions,
            // may have made the last page larger since it was looked for.
            while let Some((asking, whole)) =
                asking.and_then(|asking| Some((asking, self.is_larger(asking, span)?)))
            {
                span = self.clear(memory, whole, Some(asking), &mut kept, &mut retired);
            }
            revocation.range(self.view.id(), span);
        }
        let keep = kept.keep;
        // The scan is under the lock of changes, so that it does not find mappings of grants that
        // are added after this revoke; nor are answers entered before it.
        let drain = revocation.scan(self.policy, || keep);
        // SAFETY: `free` asks that the nodes are of this view's table and that a scan waited for
        // every reader that was in it when they were taken from its writer: `clear` took them
        // from it, and the scan came after.
        unsafe { free(&self.view, retired) };
        drain
    }

    /// The whole pages that `span`, which is no longer in the table, ends in, if they are larger. If
    /// not, they are no longer recorded.
    fn is_larger(&self, asking: &Asking, span: Span<DeviceAddr>) -> Option<Span<DeviceAddr>> {
        let _writer = self.view.writer();
        let whole = self.whole_page(asking, span);
        if whole == span {
            asking.parts.remove(span);
        }
        (whole != span).then_some(whole)
    }

    /// Revokes all grants of a domain that is marked as removed. No device is attached, so every
    /// mapping created through it is in the drain of an earlier revoke or detach.
    pub(crate) fn retire(&self, memory: GuestMemory<'_>) {
        // A grant that was being added when the domain was marked has been added after this.
        let _changes = self.changes.lock();
        if let Some(asking) = &self.asking {
            // An answer that is entered after this finds the domain removed.
            drop(asking.questions.invalidate(&[self.addresses()]));
        }
        if self.has_table() {
            let _: ControlFlow<Infallible> =
                in_chunks(&self.view, memory, self.addresses(), |_, writer, rest| {
                    ControlFlow::Continue(self.view.table.clear(writer, rest))
                });
            // The call that moved the last device away returned the drain of its mappings.
            free_retired(&self.view);
        }
    }

    /// Removes the entries of a span, in chunks. Adds the memory that they led to to `kept`, and
    /// the nodes that are no longer needed to `retired`. Returns the span, with the words at its
    /// ends in a domain that is `asking`, where none is cut.
    fn clear(
        &self,
        memory: GuestMemory<'_>,
        span: Span<DeviceAddr>,
        asking: Option<&Asking>,
        kept: &mut Kept,
        retired: &mut Retired,
    ) -> Span<DeviceAddr> {
        let table = &self.view.table;
        let mut cleared = span;
        let _: ControlFlow<Infallible> = in_chunks(&self.view, memory, span, |_, writer, rest| {
            let rest = asking.map_or(rest, |_| around_words(table, rest));
            cleared = cleared.hull(&rest);
            let next = table.update(writer, rest, |_, leaf| {
                if let Behind::Memory { segment, .. } = leaf.behind()
                    && kept.segments.insert(segment)
                {
                    // SAFETY: `share` asks that the segment has been added, and for the lock
                    // under which segments are removed. The leaf was in the table until now,
                    // and names only a segment that was added and not removed; the lock is that
                    // of the regions, which this chunk holds.
                    kept.keep.push(unsafe { memory.segments.share(segment) });
                }
                None
            });
            if next.is_none() {
                retired.append(writer.take_retired());
            }
            ControlFlow::Continue(next)
        });
        cleared
    }

    /// Checks that the entries at the ends of `spans` can be cut there within the limit.
    fn check_cuts(
        &self,
        memory: GuestMemory<'_>,
        spans: &[Span<DeviceAddr>],
    ) -> Result<(), Reason> {
        let (mut cuts, mut leaves) = (Cuts::default(), 0);
        for some in spans.chunks(SOME) {
            let writer = self.view.writer();
            leaves = writer.leaves();
            some.iter().for_each(|&span| cuts.span(&self.view.table, span));
        }
        let new = cuts.new_entries();
        let limit = self.limit;
        if new == 0 || leaves.saturating_add(new) <= limit {
            return Ok(());
        }
        // Entries that are removed make room for new ones.
        let mut gone = 0_u64;
        for &span in spans {
            let _: ControlFlow<Infallible> =
                in_chunks(&self.view, memory, span, |_, writer, rest| {
                    self.view.table.visit(&mut writer.work, rest, |whole, _| {
                        gone += u64::from(span.covers(&whole) && rest.contains(whole.start()));
                        ControlFlow::Continue(())
                    })
                });
        }
        match leaves.saturating_sub(gone).saturating_add(new) > limit {
            true => Err(Reason::Limit { what: "table entries of the domain", limit }),
            false => Ok(()),
        }
    }
}

/// How many spans are looked at each time the table is locked.
const SOME: usize = 1024;

type Spans = SmallVec<[Span<DeviceAddr>; 1]>;

/// A count of the entries that spans, in order and apart, cut.
#[derive(Default)]
struct Cuts {
    /// The number of entries that are cut, and of those that replace them.
    cut: u64,
    created: u64,
    /// The part past the last span of the entry that it ends in.
    remainder: Option<Span<DeviceAddr>>,
}

impl Cuts {
    /// Counts the next span. The caller holds the table's writer.
    fn span(&mut self, table: &Table, span: Span<DeviceAddr>) {
        let begins_in_remainder = self.remainder.is_some_and(|part| part.contains(span.start()));
        if !begins_in_remainder {
            self.end_entry();
            self.begin_entry(entry_at(table, span.start()), span);
        }
        if let Some(remainder) = self.remainder.take() {
            let before = span.start().0.checked_sub(1).map(DeviceAddr);
            self.add(before.and_then(|last| Span::inclusive(remainder.start(), last)));
            self.remainder = after(remainder, span);
            if remainder.contains(span.last()) {
                return;
            }
        }
        self.begin_entry(entry_at(table, span.last()), span);
        self.remainder = self.remainder.and_then(|entry| after(entry, span));
    }

    /// The number of entries that the cuts add in the end, not counting those that are removed
    /// whole.
    fn new_entries(mut self) -> u64 {
        self.end_entry();
        self.created.saturating_sub(self.cut)
    }

    fn begin_entry(&mut self, entry: Option<Span<DeviceAddr>>, span: Span<DeviceAddr>) {
        self.cut += u64::from(entry.is_some_and(|entry| !span.covers(&entry)));
        self.remainder = entry;
    }

    fn end_entry(&mut self) {
        let remainder = self.remainder.take();
        self.add(remainder);
    }

    fn add(&mut self, part: Option<Span<DeviceAddr>>) {
        self.created = self.created.saturating_add(part.map_or(0, entries));
    }
}

/// The whole range of the table's entry at an address.
fn entry_at(table: &Table, addr: DeviceAddr) -> Option<Span<DeviceAddr>> {
    let found = table.find(addr.0);
    Leaf::stored(found.word)?;
    Span::new(DeviceAddr(addr.0 & !(found.size() - 1)), found.size()).ok()
}

/// The span, with the entries that its ends are in.
fn around_words(table: &Table, span: Span<DeviceAddr>) -> Span<DeviceAddr> {
    let ends = [span.start(), span.last()].into_iter().filter_map(|at| entry_at(table, at));
    ends.fold(span, |span, entry| span.hull(&entry))
}

/// The part of `entry` past `span`.
fn after(entry: Span<DeviceAddr>, span: Span<DeviceAddr>) -> Option<Span<DeviceAddr>> {
    Span::inclusive(span.last().checked_add(1)?, entry.last())
}

/// The spans in order, those that touch joined, so that no address is counted twice.
fn joined(mut spans: Spans) -> Spans {
    spans.sort_unstable_by_key(Span::start);
    spans.dedup_by(|next, span| {
        let touches = span.last().checked_add(1).is_none_or(|after| next.start() <= after);
        let both = Span::inclusive(span.start(), span.last().max(next.last()));
        if let (true, Some(both)) = (touches, both) {
            *span = both;
        }
        touches
    });
    spans
}

/// The memory that removed entries led to, each segment once.
#[derive(Default)]
struct Kept {
    segments: SegmentSet,
    keep: Keep,
}

/// A set of segment numbers.
#[derive(Default)]
struct SegmentSet([u64; SEGMENTS / 64]);

impl SegmentSet {
    /// Adds a segment, and returns whether it is new.
    fn insert(&mut self, segment: usize) -> bool {
        let Some(word) = self.0.get_mut(segment / 64) else { return false };
        let bit = 1 << (segment % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

const _: () = assert!(GRANULE == 4096, "entries are counted in granules of 4 KiB");
