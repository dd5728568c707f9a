//! Eviction from the table of a domain that asks.
//!
//! A hand goes round the table in order of address, and removes some hundreds of words at a time:
//! one membarrier(2) and one scan for all of them, so a miss costs the same however large the table
//! is. A word that the scan finds held is put back, and those in a range that is being fetched are
//! passed over.
#![allow(unsafe_code, reason = "frees nodes after the scan that makes it safe")]

use core::ops::ControlFlow;

use super::ask::Asking;
use super::domain::DomainInner;
use crate::addr::DeviceAddr;
use crate::protocol::{Use, scan};
use crate::span::Span;
use crate::view::entry::Leaf;
use crate::view::table::Writer;

/// The most words that are removed at a time.
const BATCH: u64 = 512;

/// A word of the table.
type Word = (Span<DeviceAddr>, Leaf);

impl DomainInner {
    /// Evicts some translations. Returns `false` if all are held or being fetched.
    ///
    /// The caller has locked the table's writer, so nothing else sees that words which are held
    /// are gone for a moment; but maps that meet such a word miss.
    pub(super) fn evict(&self, writer: &mut Writer, asking: &Asking) -> bool {
        let mut hand = asking.hand.lock();
        let in_use = asking.questions.in_use();
        let count = (self.limit / 8).clamp(1, BATCH) as usize;
        let mut held: Vec<Use> = Vec::new();
        let mut wrapped = 0;
        while wrapped < 2 {
            let passes = |word: Span<DeviceAddr>| {
                !in_use.iter().any(|span| span.overlaps(&word))
                    && !held.iter().any(|found| found.overlaps(word))
            };
            let (victims, next) = self.victims(writer, *hand, count, passes);
            *hand = next.unwrap_or_default();
            wrapped += u32::from(next.is_none());
            if victims.is_empty() {
                continue;
            }
            held = self.remove_unheld(writer, &victims);
            let kept = victims.iter().filter(|word| held.iter().any(|h| h.overlaps(word.0)));
            if kept.count() < victims.len() {
                return true;
            }
        }
        false
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
    fn remove_unheld(&self, writer: &mut Writer, victims: &[Word]) -> Vec<Use> {
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
                held.push(found);
            }
            false
        });
        for &(word, leaf) in victims {
            if held.iter().any(|found| found.overlaps(word)) {
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
