//! What a domain that asks has besides its table.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use super::parts::Parts;
use super::questions::Questions;
use super::translator::{Following, Translation, TranslationFault, Translator};
use crate::access::Access;
use crate::addr::{DeviceAddr, GRANULE};
use crate::mapping::PageTables;
use crate::span::Span;

/// What a translator has answered.
pub(super) type Answer = Result<Translation, TranslationFault>;

/// What a domain that asks has besides its table.
pub(crate) struct Asking {
    pub(super) translator: Arc<dyn Translator>,
    pub(super) questions: Questions<Answer>,
    /// The pages of which the table has parts. Pages are recorded under the table's lock.
    pub(super) parts: Parts,
    /// Where the next eviction begins. The thread that evicts holds it from the first word that is
    /// being evicted until none is.
    pub(super) hand: Mutex<DeviceAddr>,
    pub(super) evicted: AtomicU64,
    pub(super) invalidations: AtomicU64,
}

/// Counts of a domain that asks, since it was created; see
/// [`Domain::ask_counts`](crate::Domain::ask_counts).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AskCounts {
    /// Calls of the translator: misses, those of which the answer was void included.
    pub asked: u64,
    /// Entries that were evicted for others.
    pub evicted: u64,
    /// Invalidations, each of any number of ranges.
    pub invalidations: u64,
}

impl Asking {
    pub(crate) fn new(translator: Arc<dyn Translator>) -> Self {
        let (parts, hand, evicted, invalidations) = Default::default();
        let questions = Questions::new();
        Self { translator, questions, parts, hand, evicted, invalidations }
    }

    pub(crate) fn counts(&self) -> AskCounts {
        AskCounts {
            asked: self.questions.asked(),
            evicted: self.evicted.load(Ordering::Relaxed),
            invalidations: self.invalidations.load(Ordering::Relaxed),
        }
    }

    /// Waits for the eviction of another thread. The table must not be locked.
    pub(super) fn wait_for_eviction(&self) {
        drop(self.hand.lock());
    }

    /// Asks the translator about `page`, a granule, for a map of `span`, a run that begins in it.
    pub(super) fn answer(
        &self,
        memory: &PageTables<'_>,
        page: Span<DeviceAddr>,
        span: Span<DeviceAddr>,
        access: Access,
        following: &mut Following,
    ) -> Answer {
        let Some(run) = span.rounded_out().filter(|run| *run != page) else {
            return self.translator.translate(memory, page.start(), access);
        };
        *following = Following::default();
        let answer = self.translator.translate_run(memory, run, access, following);
        if !answer.is_ok_and(|page| page.size == GRANULE) {
            *following = Following::default();
        }
        answer
    }
}
