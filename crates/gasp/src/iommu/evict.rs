//! Eviction from the table of a domain that asks.
//!
//! A hand goes round the table in order of address, and removes some hundreds of words at a time:
//! one membarrier(2) and one scan for all of them, so a miss costs the same however large the table
//! is. Words in a range that is being fetched are passed over. If nearly all are, the search for
//! others looks at a bounded number of words, and goes on after other threads have had the table.
//!
//! | one thread evicts, with the hand | the others |
//! |---|---|
//! | lock the table; mark words as being evicted; unlock | |
//! | scan for what is held | maps miss those words, and enter other answers |
//! | lock the table; remove the words, but those that are held; unlock | |
//!
//! Look-ups do not find a word that is being evicted, so whatever holds it was there before the scan.
//! To those who change the table it is there, so a change of memory or an invalidation meets it.
//! Either may replace or remove it; then the eviction leaves that as it is. A thread with an answer
//! for such a word waits for the end of the eviction: an answer never replaces a word.
//!
//! Large tables are evicted from before they are full, so that other threads seldom wait for room.
#![allow(unsafe_code, reason = "frees nodes after the scan that makes it safe")]

use core::ops::ControlFlow;
use core::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::asking::Asking;
use super::domain::DomainInner;
use crate::addr::DeviceAddr;
use crate::protocol::scan;
use crate::span::Span;
use crate::view::entry::Leaf;
use crate::view::table::{Retired, Writer};

/// The most words that are removed at a time.
const BATCH: u64 = 512;

/// The most evictions for one answer.
const EVICTIONS: u32 = 64;

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

    fn contains(&self, addr: u64) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= addr);
        let range = after.checked_sub(1).and_then(|index| self.0.get(index));
        range.is_some_and(|&(_, last)| addr <= last)
    }

    /// Whether one of them has an address of `word`.
    fn overlap(&self, word: Span<DeviceAddr>) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= word.last().0);
        let range = after.checked_sub(1).and_then(|index| self.0.get(index));
        range.is_some_and(|&(_, last)| word.start().0 <= last)
    }
}

/// A search for translations to evict, which goes on until there is room.
#[derive(Default)]
pub(super) struct Search {
    /// The present round, once it has begun.
    round: Option<Round>,
    /// The number of evictions so far.
    count: u32,
    is_exhausted: bool,
}

impl Search {
    /// Whether nothing was found in a whole round, or too little for what is to be entered.
    pub(super) fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }
}

/// A search once round the table.
struct Round {
    /// Where it began, and where it continues.
    first: DeviceAddr,
    next: DeviceAddr,
    /// Whether it has been at the end of the table.
    has_wrapped: bool,
    /// What it has found held.
    held: Ranges,
}

impl Round {
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
    /// Whether entering what took the table from `before` words to `after` calls for an eviction
    /// ahead of need: once, so that a table full of what is held is not searched for every answer.
    pub(super) fn is_nearly_full(&self, before: u64, after: u64) -> bool {
        let mark = self.limit - self.margin();
        before < mark && mark <= after && mark < self.limit
    }

    /// Evicts some translations before the table is full, unless another thread does or nothing is
    /// found at once. The table must not be locked.
    pub(super) fn evict_ahead(&self, asking: &Asking) {
        if let Some(mut hand) = asking.hand.try_lock() {
            drop(self.evict(asking, &mut hand, &mut Search::default()));
        }
    }

    /// Evicts some translations, continuing `search`, or waits while another thread does. The table
    /// must not be locked, and is when this returns.
    pub(super) fn make_room<'a>(
        &'a self,
        asking: &Asking,
        search: &mut Search,
    ) -> MutexGuard<'a, Writer> {
        match asking.hand.try_lock() {
            Some(mut hand) => self.evict(asking, &mut hand, search),
            None => {
                asking.wait_for_eviction();
                self.view.writer()
            }
        }
    }

    /// Evicts some translations, if it finds any that can be. Returns with the table locked, so that
    /// no other thread takes the room.
    fn evict<'a>(
        &'a self,
        asking: &Asking,
        hand: &mut DeviceAddr,
        search: &mut Search,
    ) -> MutexGuard<'a, Writer> {
        let round = search.round.get_or_insert_with(|| Round::begin(*hand));
        let Some(rest) = round.rest(self.addresses()) else {
            search.is_exhausted = true;
            return self.view.writer();
        };
        let mut writer = self.view.writer();
        let in_use = asking.questions.in_use();
        let in_use = Ranges::new(in_use.iter().map(ends));
        let (victims, next) = self.begin_eviction(&mut writer, rest, |word| {
            !in_use.overlap(word) && !round.held.overlap(word)
        });
        *hand = next.unwrap_or_default();
        search.is_exhausted = next.is_none() && round.has_wrapped;
        round.go_on(next);
        if victims.is_empty() {
            MutexGuard::unlock_fair(writer);
            return self.view.writer();
        }
        let retired = writer.take_retired();
        drop(writer);
        round.held = self.held();
        let held = victims.iter().filter(|&&word| round.held.overlap(word));
        let held = Ranges::new(held.map(ends));
        let mut writer = self.view.writer();
        let gone = self.end_eviction(&mut writer, &victims, &held);
        // SAFETY: `free` asks that the nodes came from this view's writer, and that every reader
        // that was in the table then has left it: they were taken above, before the scan of `held`,
        // which waits for those readers.
        unsafe { free_all(&mut writer, retired) };
        if gone > 0 {
            asking.evicted.fetch_add(gone, Ordering::Relaxed);
            search.round = None;
            search.count += 1;
            search.is_exhausted = search.count >= EVICTIONS;
        }
        writer
    }

    /// Begins to evict up to a batch of the words of `rest` that `picks` allows. Returns them, in
    /// order, and the address in `rest` to continue at; `None` at the end.
    fn begin_eviction(
        &self,
        writer: &mut Writer,
        rest: Span<DeviceAddr>,
        picks: impl Fn(Span<DeviceAddr>) -> bool,
    ) -> (Vec<Span<DeviceAddr>>, Option<DeviceAddr>) {
        let batch = self.batch() as usize;
        let mut victims = Vec::with_capacity(batch);
        let visited = self.view.table.begin_eviction(writer, rest, |word| {
            if victims.len() == batch {
                return ControlFlow::Break(word.start());
            }
            let picked = picks(word);
            if picked {
                victims.push(word);
            }
            ControlFlow::Continue(picked)
        });
        let next = match visited {
            ControlFlow::Continue(next) => next,
            ControlFlow::Break(next) => Some(next),
        };
        (victims, next.filter(|&next| next <= rest.last()))
    }

    /// Removes what is still being evicted of `victims`, but keeps what lies in `held`. Returns the
    /// number of words that are gone.
    fn end_eviction(
        &self,
        writer: &mut Writer,
        victims: &[Span<DeviceAddr>],
        held: &Ranges,
    ) -> u64 {
        let before = writer.leaves();
        let (Some(first), Some(last)) = (victims.first(), victims.last()) else { return 0 };
        let mut rest = Some(first.hull(last));
        while let Some(span) = rest {
            let next = self.view.table.update(writer, span, |addr, leaf| {
                match (leaf.is_evicting(), held.contains(addr)) {
                    (false, _) => Some(leaf),
                    (true, true) => Some(leaf.kept()),
                    (true, false) => None,
                }
            });
            writer.work.begin();
            rest = next.and_then(|next| Span::inclusive(next, span.last()));
        }
        before - writer.leaves()
    }

    /// What holds words of the domain, and was there when this was called.
    fn held(&self) -> Ranges {
        let mut held = Vec::new();
        scan(|found| {
            if found.view == self.view.id() {
                held.push((found.first, found.last));
            }
            false
        });
        Ranges::new(held)
    }

    /// Removes a word, and returns `true`, unless it is held. The caller has locked the writer, so
    /// nothing else sees that a word which is held is gone for a moment; but maps that meet it miss.
    pub(super) fn remove_if_unheld(&self, writer: &mut Writer, (word, leaf): Word) -> bool {
        let table = &self.view.table;
        writer.work.begin();
        let paused = table.clear(writer, word);
        debug_assert!(paused.is_none(), "a chunk has room for one word");
        let retired = writer.take_retired();
        let is_held = self.held().overlap(word);
        if is_held {
            writer.work.begin();
            let paused = table.fill(writer, word, leaf);
            debug_assert!(paused.is_none(), "a chunk has room for one word");
        }
        // SAFETY: `free_all` asks that the nodes came from this writer, and that every reader that
        // was in the table then has left it: they were taken above, before the scan of `held`, which
        // waits for those readers.
        unsafe { free_all(writer, retired) };
        !is_held
    }

    /// The number of words that are evicted at a time.
    fn batch(&self) -> u64 {
        (self.limit / 8).clamp(1, BATCH)
    }

    /// The number of words that are left free for other threads while one evicts. Small tables are
    /// used to their last word.
    fn margin(&self) -> u64 {
        if self.limit < 2 * BATCH { 0 } else { self.batch() / 2 }
    }
}

/// The first and the last address of a span.
fn ends(span: &Span<DeviceAddr>) -> (u64, u64) {
    (span.start().0, span.last().0)
}

/// Frees retired nodes. The work of that is bounded by what one chunk could retire.
///
/// # Safety
/// The nodes came from this writer, and every reader that was in the table then has left it.
unsafe fn free_all(writer: &mut Writer, mut retired: Retired) {
    while !retired.is_empty() {
        writer.work.begin();
        // SAFETY: `Writer::free` asks for the contract of this function.
        unsafe { writer.free(&mut retired) };
    }
    writer.work.begin();
}
