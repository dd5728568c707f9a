//! What a domain that asks has besides its table.

use std::sync::Arc;

use parking_lot::Mutex;

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
    /// Where the next eviction begins.
    pub(super) hand: Mutex<DeviceAddr>,
}

impl Asking {
    pub(crate) fn new(translator: Arc<dyn Translator>) -> Self {
        Self { translator, questions: Questions::new(), hand: Mutex::default() }
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
