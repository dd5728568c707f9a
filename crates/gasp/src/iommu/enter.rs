//! The entry of answers in the table of a domain that asks: one word each, of as much of the page as
//! the memory behind it and the words that are there allow.
//!
//! What is behind an answer is read from the firmware's view, after the domain's table is locked. A
//! change of the regions updates the firmware's view first and this table later, so it meets what
//! was entered from the earlier view.
#![allow(unsafe_code, reason = "compares an answer with where a word leads")]

use super::asking::{Answer, Asking};
use super::domain::DomainInner;
use super::project::{around, entries};
use super::questions::Invalidated;
use super::translator::{Following, Translation, TranslationFault};
use crate::access::Access;
use crate::addr::{DeviceAddr, GRANULE, GuestPhys};
use crate::error::{Reason, Refusal};
use crate::mapping::{Port, target};
use crate::span::Span;
use crate::view::entry::Leaf;
use crate::view::table::{Found, Writer};

/// The entry of an answer about `page`, a granule, in the table, which is locked.
pub(super) struct Entering<'a> {
    pub(super) domain: &'a DomainInner,
    pub(super) asking: &'a Asking,
    /// Of the guest whose domain this is.
    pub(super) firmware: Port<'a>,
    pub(super) page: Span<DeviceAddr>,
    pub(super) writer: &'a mut Writer,
    /// Whether a search has found that nothing can be evicted.
    pub(super) is_exhausted: bool,
}

/// Why an answer is not entered.
pub(super) enum Unentered {
    /// There is no room: something has to be evicted first.
    Full,
    /// The word for the page is being evicted just now.
    Evicting,
    Refused(Reason),
}

impl From<Reason> for Unentered {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

impl Entering<'_> {
    /// Enters an answer to a question about `requested`, and those that follow, except for what was
    /// invalidated since.
    pub(super) fn enter(
        mut self,
        answer: Answer,
        following: &Following,
        requested: Access,
        invalidated: &Invalidated,
    ) -> Result<(), Unentered> {
        let found = self.domain.view.table.find(self.page.start().0);
        if Leaf::stored(found.word).is_some_and(Leaf::is_evicting) {
            return Err(Unentered::Evicting);
        }
        match answer {
            Ok(translation) => self.translation(translation, requested)?,
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
            let is_known = Leaf::stored(found.word).is_some();
            let answer = Translation { size: GRANULE, guest, access };
            let is_page = whole_page(page.start(), &answer).is_ok();
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
    ) -> Result<(), Unentered> {
        let Translation { guest, access, .. } = translation;
        let at = self.page.start();
        let whole = whole_page(at, &translation)?;
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
            // SAFETY: `target` asks that the view and the segments are of one guest: that of
            // `firmware` is the domain's, as whoever creates an `Entering` says.
            let leads = unsafe { target(&self.domain.view, &self.firmware.guest.segments, at) };
            if leads == Some(to(at)) {
                return self.raise(found, translation, requested);
            }
            // The guest has changed the translation without an invalidation. What was there
            // holds until there is one.
            if leaf.allowed().contains(requested) {
                return Ok(());
            }
            let refusal = Refusal::Access { allowed: leaf.allowed(), requested };
            return Err(Reason::Refused { addr: at, refusal }.into());
        }
        for size in [1 << 30, 1 << 21, GRANULE] {
            let unit = Span::new(DeviceAddr(at.0 & !(size - 1)), size)?;
            let fits = size <= found.size() && whole.covers(&unit);
            if size > GRANULE && !fits {
                continue;
            }
            if let Some(behind) = self.firmware.behind(Span::new(to(unit.start()), size)?)? {
                self.fill(unit, Leaf::new(access, behind))?;
                if unit != whole {
                    self.asking.parts.add(whole);
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Keeps a refusal. A translation that is there, and allows something else, stays.
    fn refusal(&mut self, fault: TranslationFault) -> Result<(), Unentered> {
        let at = self.page.start().0;
        match self.domain.view.table.find(at).leaf_at(at) {
            Some(_) => Ok(()),
            None => self.fill(self.page, Leaf::refusal(fault.reason)),
        }
    }

    /// Adds to the access of a translation that is there. If that cuts it into more words than there
    /// is room for, and it is not held, the answer takes its place.
    fn raise(
        &mut self,
        found: Found,
        translation: Translation,
        requested: Access,
    ) -> Result<(), Unentered> {
        let at = self.page.start();
        let whole = whole_page(at, &translation)?;
        let word = Span::new(DeviceAddr(at.0 & !(found.size() - 1)), found.size())?;
        let part = word.intersection(&whole).unwrap_or(self.page);
        let cut = around(word, part).map(entries).sum::<u64>() + entries(part) - 1;
        match (self.check_room(cut), Leaf::from_word(found.word)) {
            (Ok(()), _) => {}
            (Err(Unentered::Refused(_)), Some(leaf))
                if self.domain.remove_if_unheld(self.writer, (word, leaf)) =>
            {
                return self.translation(translation, requested);
            }
            (Err(unentered), _) => return Err(unentered),
        }
        self.writer.work.begin();
        let access = translation.access;
        let raised = |_, leaf: Leaf| Some(leaf.with_allowed(leaf.allowed() | access));
        let paused = self.domain.view.table.update(self.writer, part, raised);
        debug_assert!(paused.is_none(), "a chunk has room for one word that is cut");
        if word != whole {
            self.asking.parts.add(word.hull(&whole));
        }
        Ok(())
    }

    /// Enters one word.
    fn fill(&mut self, unit: Span<DeviceAddr>, leaf: Leaf) -> Result<(), Unentered> {
        self.check_room(1)?;
        self.writer.work.begin();
        let paused = self.domain.view.table.fill(self.writer, unit, leaf);
        debug_assert!(paused.is_none(), "a chunk has room for one word");
        Ok(())
    }

    /// Checks that there is room for `new` words within the domain's limit.
    fn check_room(&self, new: u64) -> Result<(), Unentered> {
        let limit = self.domain.limit;
        if self.writer.leaves().saturating_add(new) <= limit {
            return Ok(());
        }
        match new > limit || self.is_exhausted {
            true => Err(Reason::Limit { what: "translations of the domain", limit }.into()),
            false => Err(Unentered::Full),
        }
    }
}

/// The page of an answer that `addr` is in.
pub(super) fn whole_page(
    addr: DeviceAddr,
    &Translation { size, guest, .. }: &Translation,
) -> Result<Span<DeviceAddr>, Reason> {
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
