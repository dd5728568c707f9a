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
#![allow(unsafe_code, reason = "reads segments under the lock that keeps them")]

use core::cell::Cell;
use std::sync::Arc;

use parking_lot::Mutex;

use super::chunks::{GuestMemory, free_retired};
use super::domain::DomainInner;
use super::project::{around, entries};
use super::questions::{Fetching, Invalidated, Questions, Ranges};
use super::translator::{Translation, TranslationFault, Translator};
use crate::access::Access;
use crate::addr::{DeviceAddr, GRANULE, GuestPhys};
use crate::error::{Reason, Refusal};
use crate::mapping::peek;
use crate::space::Regions;
use crate::span::Span;
use crate::view::entry::{Behind, Leaf};
use crate::view::lookup::guest_of;
use crate::view::project::project;
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
pub(crate) struct Fetched<'a> {
    _fetching: Fetching<'a, Answer>,
}

impl Asking {
    pub(crate) fn new(translator: Arc<dyn Translator>) -> Self {
        Self { translator, questions: Questions::new(), hand: Mutex::default() }
    }
}

impl DomainInner {
    /// Asks the translator for all that the table does not have of `access` to `span`. `None` if
    /// the domain does not ask. No lock and no slot may be held.
    ///
    /// # Errors
    /// The first refusal; `Limit` if the translations of the range exceed the domain's limit, with
    /// those that are held or being fetched.
    pub(crate) fn fetch(
        &self,
        memory: GuestMemory<'_>,
        span: Span<DeviceAddr>,
        access: Access,
    ) -> Result<Option<Fetched<'_>>, Reason> {
        let Some(asking) = &self.asking else { return Ok(None) };
        let fetched = Fetched { _fetching: asking.questions.fetching(span) };
        let mut next = Some(span.start());
        while let Some(addr) = next {
            let last = match self.known(addr, access)? {
                Some(last) => last,
                None => self.ask(asking, memory, addr, access)?,
            };
            next = last.checked_add(1).filter(|&next| next <= span.last());
        }
        Ok(Some(fetched))
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

    /// Asks for the granule of `addr`, and returns its last address.
    fn ask(
        &self,
        asking: &Asking,
        memory: GuestMemory<'_>,
        addr: DeviceAddr,
        access: Access,
    ) -> Result<DeviceAddr, Reason> {
        let page = Span::new(DeviceAddr(addr.0 & !(GRANULE - 1)), GRANULE)?;
        let wants_grace = Cell::new(false);
        let answer = asking.questions.answer(
            page,
            access,
            || self.known(addr, access) != Ok(None),
            || asking.translator.translate(page.start(), access),
            |answer, invalidated, fetching| {
                if self.is_removed() {
                    return Ok(());
                }
                let regions = memory.regions.read();
                let mut writer = self.view.writer();
                let mut entering = Entering { domain: self, memory, page, writer: &mut writer };
                let entered = match *answer {
                    Ok(translation) => {
                        entering.page(&regions, translation, access, invalidated, fetching)
                    }
                    Err(fault) if fault.keep => entering.refusal(fault, fetching),
                    Err(_) => Ok(()),
                };
                wants_grace.set(writer.wants_grace());
                entered
            },
        );
        if wants_grace.get() {
            free_retired(&self.view);
        }
        let refused = |refusal| Err(Reason::Refused { addr, refusal });
        match answer? {
            Some(Err(fault)) => refused(Refusal::Translator { reason: fault.reason }),
            Some(Ok(Translation { access: allowed, .. })) if !allowed.contains(access) => {
                refused(Refusal::Access { allowed, requested: access })
            }
            // The map tries again.
            Some(Ok(_)) | None => Ok(page.last()),
        }
    }
}

/// The entry of an answer about `page`, a granule, in the table. The lock of the regions is held.
struct Entering<'a> {
    domain: &'a DomainInner,
    memory: GuestMemory<'a>,
    page: Span<DeviceAddr>,
    writer: &'a mut Writer,
}

impl Entering<'_> {
    /// Enters a translation that was requested for `requested`.
    fn page(
        &mut self,
        regions: &Regions,
        translation: Translation,
        requested: Access,
        invalidated: &Invalidated,
        fetching: &Ranges,
    ) -> Result<(), Reason> {
        let Translation { size, guest, access } = translation;
        let whole = whole_page(self.page.start(), size, guest)?;
        if access.is_empty() {
            return Ok(());
        }
        let to = |addr: DeviceAddr| GuestPhys(guest.0 + (addr.0 - whole.start().0));
        let found = self.domain.view.table.find(self.page.start().0);
        let there = found.leaf_at(self.page.start().0).filter(|leaf| leaf.refused().is_none());
        if let Some(leaf) = there {
            // SAFETY: `guest_of` asks for the lock under which segments are removed: that of the
            // regions, which the caller holds, since before the leaf was read.
            let leads = GuestPhys(unsafe { guest_of(self.memory.segments, leaf, 0) });
            if leads != to(self.page.start()) {
                // The guest has changed the translation without an invalidation. What was there
                // holds until there is one.
                let (addr, allowed) = (self.page.start(), leaf.allowed());
                let refusal = Refusal::Access { allowed, requested };
                return Err(Reason::Refused { addr, refusal });
            }
            return self.raise(found, whole, access, fetching);
        }
        for size in [1 << 30, 1 << 21, GRANULE] {
            let start = DeviceAddr(self.page.start().0 & !(size - 1));
            let unit = Span::new(start, size)?;
            if size > GRANULE
                && (size > found.size() || !whole.covers(&unit) || invalidated.overlaps(unit))
            {
                continue;
            }
            match behind(regions, to(start), size) {
                Some(behind) => return self.fill(unit, Leaf::new(access, behind), fetching),
                None => continue,
            }
        }
        Ok(())
    }

    /// Keeps a refusal.
    fn refusal(&mut self, fault: TranslationFault, fetching: &Ranges) -> Result<(), Reason> {
        // A translation that allows something else stays.
        match self.domain.view.table.find(self.page.start().0).leaf_at(self.page.start().0) {
            Some(_) => Ok(()),
            None => self.fill(self.page, Leaf::refusal(fault.reason), fetching),
        }
    }

    /// Adds to the access of a translation that is there.
    fn raise(
        &mut self,
        found: Found,
        whole: Span<DeviceAddr>,
        access: Access,
        fetching: &Ranges,
    ) -> Result<(), Reason> {
        let start = DeviceAddr(self.page.start().0 & !(found.size() - 1));
        let word = Span::new(start, found.size())?;
        let part = word.intersection(&whole).unwrap_or(self.page);
        let cut = around(word, part).map(entries).sum::<u64>() + entries(part) - 1;
        self.make_room(cut, fetching)?;
        self.writer.work.begin();
        let raised = |_, leaf: Leaf| Some(leaf.with_allowed(leaf.allowed() | access));
        let paused = self.domain.view.table.update(self.writer, part, raised);
        debug_assert!(paused.is_none(), "a chunk has room for one word that is cut");
        Ok(())
    }

    /// Enters one word.
    fn fill(
        &mut self,
        unit: Span<DeviceAddr>,
        leaf: Leaf,
        fetching: &Ranges,
    ) -> Result<(), Reason> {
        self.make_room(1, fetching)?;
        self.writer.work.begin();
        let paused = self.domain.view.table.fill(self.writer, unit, leaf);
        debug_assert!(paused.is_none(), "a chunk has room for one word");
        Ok(())
    }

    /// Makes room for `new` words within the domain's limit.
    fn make_room(&mut self, new: u64, fetching: &Ranges) -> Result<(), Reason> {
        let limit = self.domain.limit;
        while self.writer.leaves().saturating_add(new) > limit {
            if !self.domain.evict(self.writer, fetching) {
                return Err(Reason::Limit { what: "translations of the domain", limit });
            }
        }
        Ok(())
    }
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

/// What is behind `size` bytes of guest memory, if that is one thing.
fn behind(regions: &Regions, start: GuestPhys, size: u64) -> Option<Behind> {
    let span = Span::new(start, size).ok()?;
    let (piece, behind) = project(regions, span).next()?;
    (piece == span).then_some(behind)
}
