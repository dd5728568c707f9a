//! Domains that ask: their table is a cache of what the translator has answered.
//!
//! A map that misses leaves its slot, [fetches](DomainInner::fetch) the translations of its range,
//! and tries again. Each answer is entered as one word: the largest page that the answer, the memory
//! behind it and the words that are there allow.
//!
//! Whatever is mapped is in the table, or was removed from it by a revoke that has found the
//! mapping: an [eviction](super::evict) passes over what is held, and an answer never replaces a
//! word that leads elsewhere. So a change of the guest's regions finds in the table all that leads
//! to them, as in a domain that is told.
//!
//! What is behind an answer is read from the firmware's view, after the domain's table is locked. A
//! change of the regions updates the firmware's view first and this table later, so it meets what
//! was entered from the earlier view.

use core::cell::{Cell, RefCell};
use std::sync::Arc;

use parking_lot::Mutex;

use super::chunks::free_retired;
use super::domain::DomainInner;
use super::project::{around, entries};
use super::questions::{Asked, Fetching, Invalidated, Questions, Settled};
use super::translator::{Following, Translation, TranslationFault, Translator};
use crate::access::Access;
use crate::addr::{DeviceAddr, GRANULE, GuestPhys};
use crate::error::{Reason, Refusal};
use crate::mapping::{PageTables, Port, peek, target};
use crate::span::Span;
use crate::view::entry::Leaf;
use crate::view::table::{Found, Writer};

type Answer = Result<Translation, TranslationFault>;

/// What a domain that asks has besides its table.
pub(crate) struct Asking {
    translator: Arc<dyn Translator>,
    pub(super) questions: Questions<Answer>,
    /// Where the next eviction begins.
    pub(super) hand: Mutex<DeviceAddr>,
}

/// Translations that were fetched, and are not evicted while this lives.
pub(crate) enum Fetched<'a> {
    /// There was nothing to fetch.
    Nothing,
    /// Of one page.
    Page { _asked: Asked<'a, Answer> },
    /// Of a range.
    Range { _fetching: Fetching<'a, Answer> },
}

impl Asking {
    pub(crate) fn new(translator: Arc<dyn Translator>) -> Self {
        Self { translator, questions: Questions::new(), hand: Mutex::default() }
    }

    /// Asks the translator about `page`, a granule, for a map of `span`, a run that begins in it.
    fn answer(
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

impl DomainInner {
    /// Asks the translator for all that the table does not have of `access` to `span` from `missed`
    /// on; nothing if the domain does not ask. What it has of `span` before that is not evicted
    /// either. `firmware` is the guest's memory. No lock and no slot may be held.
    ///
    /// # Errors
    /// The first refusal; `Limit` if the translations of the range exceed the domain's limit, with
    /// those that are held or being fetched.
    pub(crate) fn fetch(
        &self,
        firmware: Port<'_>,
        span: Span<DeviceAddr>,
        missed: DeviceAddr,
        access: Access,
    ) -> Result<Fetched<'_>, Reason> {
        let Some(asking) = &self.asking else { return Ok(Fetched::Nothing) };
        if span.start().0 / GRANULE == span.last().0 / GRANULE {
            let asked = self.ask(asking, firmware, span, access)?;
            return Ok(asked.map_or(Fetched::Nothing, |_asked| Fetched::Page { _asked }));
        }
        // A range of any length keeps what it has come to from being evicted, and no more.
        let mut kept = run(missed, span.last());
        let fetching =
            asking.questions.fetching(Span::inclusive(span.start(), kept.last()).unwrap_or(kept));
        let mut next = Some(missed);
        while let Some(addr) = next {
            if addr > kept.last() {
                kept = run(addr, span.last());
                fetching.extend(kept.last());
            }
            let last = match self.known(addr, access)? {
                Some(last) => last,
                None => {
                    let rest = Span::inclusive(addr, kept.last()).unwrap_or(kept);
                    drop(self.ask(asking, firmware, rest, access)?);
                    DeviceAddr(addr.0 | (GRANULE - 1))
                }
            };
            next = last.checked_add(1).filter(|&next| next <= span.last());
        }
        Ok(Fetched::Range { _fetching: fetching })
    }

    /// The last address to which the same word of the table allows `access`; `None` if that is not
    /// known.
    fn known(&self, addr: DeviceAddr, access: Access) -> Result<Option<DeviceAddr>, Reason> {
        let Some((leaf, last)) = peek(&self.view, addr) else { return Ok(None) };
        match leaf.refused() {
            Some(reason) => Err(Reason::Refused { addr, refusal: Refusal::Translator { reason } }),
            None => Ok(leaf.allowed().contains(access).then_some(last)),
        }
    }

    /// Asks for the first granule of `span`, of which more is needed if it has more. `None` if
    /// another thread has, or it is known by now.
    fn ask<'a>(
        &'a self,
        asking: &'a Asking,
        firmware: Port<'_>,
        span: Span<DeviceAddr>,
        access: Access,
    ) -> Result<Option<Asked<'a, Answer>>, Reason> {
        let addr = span.start();
        let page = Span::new(DeviceAddr(addr.0 & !(GRANULE - 1)), GRANULE)?;
        let memory = PageTables::new(firmware);
        let wants_grace = Cell::new(false);
        let following = RefCell::new(Following::default());
        let settled = asking.questions.answer(
            page,
            access,
            || self.known(addr, access) != Ok(None),
            || asking.answer(&memory, page, span, access, &mut following.borrow_mut()),
            |answer, valid| {
                let mut writer = self.view.writer();
                let Some(invalidated) = valid() else { return Ok(false) };
                if !self.is_removed() {
                    let entering =
                        Entering { domain: self, asking, firmware, page, writer: &mut writer };
                    entering.enter(*answer, &following.borrow(), access, &invalidated)?;
                }
                wants_grace.set(writer.wants_grace());
                Ok(true)
            },
        );
        if wants_grace.get() {
            free_retired(&self.view);
        }
        let (answer, asked) = match settled? {
            // The map tries again.
            Settled::Nothing => return Ok(None),
            // A guest that invalidates without end keeps no device in a loop.
            Settled::Void => {
                return Err(Reason::Refused { addr, refusal: Refusal::NotGranted });
            }
            Settled::Answered(answer) => (answer, None),
            Settled::Entered(answer, asked) => (answer, Some(asked)),
        };
        let refusal = match answer {
            Ok(Translation { access: allowed, .. }) if allowed.contains(access) => {
                return Ok(asked);
            }
            Ok(Translation { access: allowed, .. }) => {
                Refusal::Access { allowed, requested: access }
            }
            Err(TranslationFault { reason, .. }) => Refusal::Translator { reason },
        };
        Err(Reason::Refused { addr, refusal })
    }
}

/// The entry of an answer about `page`, a granule, in the table, which is locked.
struct Entering<'a> {
    domain: &'a DomainInner,
    asking: &'a Asking,
    firmware: Port<'a>,
    page: Span<DeviceAddr>,
    writer: &'a mut Writer,
}

impl Entering<'_> {
    /// Enters an answer to a question about `requested`, except for what was invalidated since.
    fn enter(
        mut self,
        answer: Answer,
        following: &Following,
        requested: Access,
        invalidated: &Invalidated,
    ) -> Result<(), Reason> {
        match answer {
            Ok(translation) => self.translation(translation, requested, invalidated)?,
            Err(fault) if fault.keep => return self.refusal(fault),
            Err(_) => return Ok(()),
        }
        let mut last = self.page.last();
        for (guest, access) in following.pages() {
            // Nobody has asked about this one, so what is wrong with it is no error.
            let next = last.checked_add(1).and_then(|next| Span::new(next, GRANULE).ok());
            let Some(page) = next.filter(|page| !invalidated.overlaps(*page)) else { break };
            last = page.last();
            let found = self.domain.view.table.find(page.start().0);
            let is_known = Leaf::from_word(found.word).is_some();
            let is_page = whole_page(page.start(), GRANULE, guest).is_ok();
            if is_known || !is_page || !access.contains(requested) {
                break;
            }
            let Some(behind) = self.firmware.behind(Span::new(guest, GRANULE)?)? else { break };
            if self.writer.leaves() >= self.domain.limit {
                break;
            }
            self.fill(page, Leaf::new(access, behind))?;
        }
        Ok(())
    }

    fn translation(
        &mut self,
        translation: Translation,
        requested: Access,
        invalidated: &Invalidated,
    ) -> Result<(), Reason> {
        let Translation { size, guest, access } = translation;
        let at = self.page.start();
        let whole = whole_page(at, size, guest)?;
        if access.is_empty() {
            return Ok(());
        }
        let to = |addr: DeviceAddr| GuestPhys(guest.0 + (addr.0 - whole.start().0));
        let found = self.domain.view.table.find(at.0);
        let there = found.leaf_at(at.0).filter(|leaf| leaf.refused().is_none());
        if let Some(leaf) = there {
            if leaf.allowed().contains(access) {
                return Ok(());
            }
            if target(&self.domain.view, &self.firmware.guest.segments, at) == Some(to(at)) {
                return self.raise(found, translation, requested, invalidated);
            }
            // The guest has changed the translation without an invalidation. What was there
            // holds until there is one.
            if leaf.allowed().contains(requested) {
                return Ok(());
            }
            let refusal = Refusal::Access { allowed: leaf.allowed(), requested };
            return Err(Reason::Refused { addr: at, refusal });
        }
        for size in [1 << 30, 1 << 21, GRANULE] {
            let unit = Span::new(DeviceAddr(at.0 & !(size - 1)), size)?;
            let fits = size <= found.size() && whole.covers(&unit) && !invalidated.overlaps(unit);
            if size > GRANULE && !fits {
                continue;
            }
            if let Some(behind) = self.firmware.behind(Span::new(to(unit.start()), size)?)? {
                return self.fill(unit, Leaf::new(access, behind));
            }
        }
        Ok(())
    }

    /// Keeps a refusal. A translation that is there, and allows something else, stays.
    fn refusal(&mut self, fault: TranslationFault) -> Result<(), Reason> {
        let at = self.page.start().0;
        match self.domain.view.table.find(at).leaf_at(at) {
            Some(_) => Ok(()),
            None => self.fill(self.page, Leaf::refusal(fault.reason)),
        }
    }

    /// Adds to the access of a translation that is there; of the page alone, if it has other parts
    /// that were invalidated and are newer than the answer. If that cuts it into more words than
    /// there is room for, and it is not held, the answer takes its place.
    fn raise(
        &mut self,
        found: Found,
        translation: Translation,
        requested: Access,
        invalidated: &Invalidated,
    ) -> Result<(), Reason> {
        let at = self.page.start();
        let whole = whole_page(at, translation.size, translation.guest)?;
        let word = Span::new(DeviceAddr(at.0 & !(found.size() - 1)), found.size())?;
        let part = word.intersection(&whole).filter(|&part| !invalidated.overlaps(part));
        let part = part.unwrap_or(self.page);
        let cut = around(word, part).map(entries).sum::<u64>() + entries(part) - 1;
        if let Err(full) = self.make_room(cut) {
            return match Leaf::from_word(found.word) {
                Some(leaf) if self.domain.remove_if_unheld(self.writer, (word, leaf)) => {
                    self.translation(translation, requested, invalidated)
                }
                _ => Err(full),
            };
        }
        self.writer.work.begin();
        let access = translation.access;
        let raised = |_, leaf: Leaf| Some(leaf.with_allowed(leaf.allowed() | access));
        let paused = self.domain.view.table.update(self.writer, part, raised);
        debug_assert!(paused.is_none(), "a chunk has room for one word that is cut");
        Ok(())
    }

    /// Enters one word.
    fn fill(&mut self, unit: Span<DeviceAddr>, leaf: Leaf) -> Result<(), Reason> {
        self.make_room(1)?;
        self.writer.work.begin();
        let paused = self.domain.view.table.fill(self.writer, unit, leaf);
        debug_assert!(paused.is_none(), "a chunk has room for one word");
        Ok(())
    }

    /// Makes room for `new` words within the domain's limit.
    fn make_room(&mut self, new: u64) -> Result<(), Reason> {
        let limit = self.domain.limit;
        while self.writer.leaves().saturating_add(new) > limit {
            if new > limit || !self.domain.evict(self.writer, self.asking) {
                return Err(Reason::Limit { what: "translations of the domain", limit });
            }
        }
        Ok(())
    }
}

/// The beginning of `addr` to `last` that one question can be about.
fn run(addr: DeviceAddr, last: DeviceAddr) -> Span<DeviceAddr> {
    const MOST: u64 = (1 + Following::MOST as u64) * GRANULE;
    let end = DeviceAddr((addr.0 & !(GRANULE - 1)).saturating_add(MOST - 1));
    Span::inclusive(addr, last.min(end))
        .unwrap_or_else(|| unreachable!("`addr` is not past `last`"))
}

/// The page of an answer that `addr` is in.
fn whole_page(addr: DeviceAddr, size: u64, guest: GuestPhys) -> Result<Span<DeviceAddr>, Reason> {
    const WIDTH: u32 = 52;
    let is_page = size.is_power_of_two() && size >= GRANULE && guest.0.is_multiple_of(GRANULE);
    let last = size.checked_sub(1).and_then(|within| guest.0.checked_add(within));
    if !is_page || last.is_none_or(|last| last >> WIDTH != 0) {
        return Err(Reason::Invalid(
            "the translator's answer is not a page: a power of two from 4 KiB, below 2^52",
        ));
    }
    Span::new(DeviceAddr(addr.0 & !(size - 1)), size)
}
