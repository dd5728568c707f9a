//! Eviction from the table of a domain that asks.
//!
//! A hand goes round the table in order of address, and removes some hundreds of words at a time:
//! one membarrier(2) and one scan for all of them, so a miss costs the same however large the table
//! is. A word that the scan finds held is put back, and those in a range that is being fetched are
//! passed over.
#![allow(unsafe_code, reason = "frees nodes after the scan that makes it safe")]

use core::ops::ControlFlow;

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

impl DomainInner {
    /// Evicts some translations. Returns `false` if all are held or being fetched.
    ///
    /// The caller has locked the table's writer, so nothing else sees that words which are held
    /// are gone for a moment; but maps that meet such a word miss.
    pub(super) fn evict(&self, writer: &mut Writer, asking: &Asking) -> bool {
        let mut hand = asking.hand.lock();
        let in_use = asking.questions.in_use();
        let in_use = Ranges::new(in_use.iter().map(|span| (span.start().0, span.last().0)));
        let count = (self.limit / 8).clamp(1, BATCH) as usize;
        let mut held = Ranges::default();
        let mut wrapped = 0;
        while wrapped < 2 {
            let passes = |word| !in_use.overlap(word) && !held.overlap(word);
            let (victims, next) = self.victims(writer, *hand, count, passes);
            *hand = next.unwrap_or_default();
            wrapped += u32::from(next.is_none());
            if victims.is_empty() {
                continue;
            }
            held = self.remove_unheld(writer, &victims);
            if victims.iter().any(|&(word, _)| !held.overlap(word)) {
                return true;
            }
        }
        false
    }

    /// Removes a word, and returns `true`, unless it is held. The caller has locked the writer.
    pub(super) fn remove_if_unheld(&self, writer: &mut Writer, word: Word) -> bool {
        !self.remove_unheld(writer, &[word]).overlap(word.0)
    }

    /// Up to `count` words from `from` on, and the address to continue at; `None` at the end.
    fn victims(
        &self,
        writer: &mut Writer,
        from: DeviceAddr,
        count: usize,
        passes: impl Fn(Span<DeviceAddr>) -> bool,
    ) -> (Vec<Word>, Option<DeviceAddr>) {
        let mut victims = Vec::with_capacity(count);
        writer.work.begin();
        let Some(rest) = Span::inclusive(from, self.addresses().last()) else {
            return (victims, None);
        };
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
        (victims, next)
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
