//! Eviction from the table of a domain that asks.
//!
//! A hand goes round the table in order of address, and removes some hundreds of words at a time:
//! one membarrier(2) and one scan for all of them, so a miss costs the same however large the table
//! is. A word that the scan finds held is put back, and those in a range that is being fetched are
//! passed over. If nearly all are, the search for others looks at a bounded number of words, and
//! goes on after other threads have had the table.
#![allow(unsafe_code, reason = "frees nodes after the scan that makes it safe")]

use core::ops::ControlFlow;
use core::sync::atomic::Ordering;

use super::asking::Asking;
use super::domain::DomainInner;
use crate::addr::DeviceAddr;
use crate::protocol::scan;
use crate::span::Span;
use crate::view::entry::Leaf;
use crate::view::table::Writer;

/// The most words that are removed at a time.
const BATCH: u64 = 512;

/// A word of the table.
pub(super) type Word = (Span<DeviceAddr>, Leaf);

/// Ranges of addresses, from the first to the last of each, in order and apart: a guest can hold as
/// many as its table has words, and each word is looked up in them.
#[derive(Default)]
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    fn new(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, range| {
            let joined = next.0 <= range.1;
            if joined {
                range.1 = range.1.max(next.1);
            }
            joined
        });
        Self(ranges)
    }

    /// Whether one of them has an address of `word`.
    fn overlap(&self, word: Span<DeviceAddr>) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= word.last().0);
        let range = after.checked_sub(1).and_then(|index| self.0.get(index));
        range.is_some_and(|&(_, last)| word.start().0 <= last)
    }
}

/// A search for translations to evict: once round the table.
pub(super) struct Eviction {
    /// Where it began, and where it continues.
    first: DeviceAddr,
    next: DeviceAddr,
    /// Whether it has been at the end of the table.
    has_wrapped: bool,
    /// What it has found held, or being fetched.
    held: Ranges,
}

/// The result of a part of the search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Evicted {
    /// Some were evicted.
    Some,
    /// All are held or being fetched.
    None,
    /// None was evicted yet: the caller unlocks the table, and searches on.
    Later,
}

impl Eviction {
    fn begin(hand: DeviceAddr) -> Self {
        Self { first: hand, next: hand, has_wrapped: false, held: Ranges::default() }
    }

    /// What has not been searched yet, up to the end of the table or of the round.
    fn rest(&self, all: Span<DeviceAddr>) -> Option<Span<DeviceAddr>> {
        let last = match self.has_wrapped {
            false => all.last(),
            true => DeviceAddr(self.first.0.checked_sub(1)?),
        };
        Span::inclusive(self.next, last)
    }

    /// Continues at `next`, or at the beginning of the table.
    fn go_on(&mut self, next: Option<DeviceAddr>) {
        match next {
            Some(next) => self.next = next,
            None => (self.next, self.has_wrapped) = (DeviceAddr(0), true),
        }
    }
}

impl DomainInner {
    /// Evicts some translations: begins a search, or continues `eviction`.
    ///
    /// The caller has locked the table's writer, so nothing else sees that words which are held
    /// are gone for a moment; but maps that meet such a word miss.
    pub(super) fn evict(
        &self,
        writer: &mut Writer,
        asking: &Asking,
        eviction: &mut Option<Eviction>,
    ) -> Evicted {
        let mut hand = asking.hand.lock();
        let search = eviction.get_or_insert_with(|| Eviction::begin(*hand));
        let in_use = asking.questions.in_use();
        let in_use = Ranges::new(in_use.iter().map(|span| (span.start().0, span.last().0)));
        let count = (self.limit / 8).clamp(1, BATCH) as usize;
        let Some(rest) = search.rest(self.addresses()) else {
            return Evicted::None;
        };
        let passes = |word| !in_use.overlap(word) && !search.held.overlap(word);
        let (victims, next) = self.victims(writer, rest, count, passes);
        *hand = next.unwrap_or_default();
        let is_end = next.is_none() && search.has_wrapped;
        search.go_on(next);
        if !victims.is_empty() {
            search.held = self.remove_unheld(writer, &victims);
            let gone = victims.iter().filter(|&&(word, _)| !search.held.overlap(word)).count();
            if gone > 0 {
                asking.evicted.fetch_add(gone as u64, Ordering::Relaxed);
                *eviction = None;
                return Evicted::Some;
            }
        }
        if is_end { Evicted::None } else { Evicted::Later }
    }

    /// Removes a word, and returns `true`, unless it is held. The caller has locked the writer.
    pub(super) fn remove_if_unheld(&self, writer: &mut Writer, word: Word) -> bool {
        !self.remove_unheld(writer, &[word]).overlap(word.0)
    }

    /// Up to `count` words of the beginning of `rest`, and the address in it to continue at; `None`
    /// at the end.
    fn victims(
        &self,
        writer: &mut Writer,
        rest: Span<DeviceAddr>,
        count: usize,
        passes: impl Fn(Span<DeviceAddr>) -> bool,
    ) -> (Vec<Word>, Option<DeviceAddr>) {
        let mut victims = Vec::with_capacity(count);
        writer.work.begin();
        let visited = self.view.table.visit(&mut writer.work, rest, |word, leaf| {
            if passes(word) {
                victims.push((word, leaf));
            }
            match victims.len() < count {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(word.last().checked_add(1)),
            }
        });
        let next = match visited {
            ControlFlow::Continue(next) => next,
            ControlFlow::Break(next) => next,
        };
        (victims, next.filter(|&next| next <= rest.last()))
    }

    /// Removes `victims`, puts back those that are held, and returns what holds words of the
    /// domain.
    fn remove_unheld(&self, writer: &mut Writer, victims: &[Word]) -> Ranges {
        let table = &self.view.table;
        for &(word, _) in victims {
            writer.work.begin();
            let paused = table.clear(writer, word);
            debug_assert!(paused.is_none(), "a chunk has room for one word");
        }
        let mut retired = writer.take_retired();
        let mut held = Vec::new();
        scan(|found| {
            if found.view == self.view.id() {
                held.push((found.first, found.last));
            }
            false
        });
        let held = Ranges::new(held);
        for &(word, leaf) in victims {
            if held.overlap(word) {
                writer.work.begin();
                let paused = table.fill(writer, word, leaf);
                debug_assert!(paused.is_none(), "a chunk has room for one word");
            }
        }
        while !retired.is_empty() {
            writer.work.begin();
            // SAFETY: `Writer::free` asks that the nodes came from this writer, and that every
            // reader that was in the table then has left it: they were taken above, and the scan,
            // which waits for those readers, came after.
            unsafe { writer.free(&mut retired) };
        }
        held
    }
}
