//! Domains that ask: their table is a cache of what the translator has answered.
//!
//! A map that misses leaves its slot, [fetches](DomainInner::fetch) the translations of its range,
//! and tries again. Each answer is [entered](super::enter) as one word: the largest page that the
//! answer, the memory behind it and the words that are there allow.
//!
//! Whatever is mapped is in the table, or was removed from it by a revoke that has found the
//! mapping: an [eviction](super::evict) passes over what is held, and an answer never replaces a
//! word that leads elsewhere. So a change of the guest's regions finds in the table all that leads
//! to them, as in a domain that is told.
#![allow(unsafe_code, reason = "passes on which guest the memory is of")]

use core::cell::{Cell, RefCell};

use parking_lot::MutexGuard;

use super::asking::{Answer, Asking};
use super::chunks::free_retired;
use super::domain::DomainInner;
use super::enter::{Entering, Unentered, whole_page};
use super::evict::Search;
use super::questions::{Asked, Fetching, Settled};
use super::translator::{Following, Translation, TranslationFault};
use crate::access::Access;
use crate::addr::{DeviceAddr, GRANULE};
use crate::error::{Reason, Refusal};
use crate::mapping::{PageTables, Port, peek};
use crate::span::Span;

/// Translations that were fetched, and are not evicted while this lives.
pub(crate) enum Fetched<'a> {
    /// There was nothing to fetch.
    Nothing,
    /// Of one page.
    Page { _asked: Asked<'a, Answer> },
    /// Of a range.
    Range { _fetching: Fetching<'a, Answer> },
}

impl DomainInner {
    /// Asks the translator for all that the table does not have of `access` to `span` from `missed`
    /// on; nothing if the domain does not ask. What it has of `span` before that is not evicted
    /// either. No lock and no slot may be held.
    ///
    /// # Safety
    /// `firmware` is of the guest whose domain this is.
    ///
    /// # Errors
    /// The first refusal; `Limit` if the translations of the range exceed the domain's limit, with
    /// those that are held or being fetched.
    pub(crate) unsafe fn fetch(
        &self,
        firmware: Port<'_>,
        span: Span<DeviceAddr>,
        missed: DeviceAddr,
        access: Access,
    ) -> Result<Fetched<'_>, Reason> {
        let Some(asking) = &self.asking else { return Ok(Fetched::Nothing) };
        if span.start().0 / GRANULE == span.last().0 / GRANULE {
            // SAFETY: the contract of `ask` is that of this function.
            let asked = unsafe { self.ask(asking, firmware, span, access) }?;
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
                    // SAFETY: the contract of `ask` is that of this function.
                    drop(unsafe { self.ask(asking, firmware, rest, access) }?);
                    DeviceAddr(addr.0 | (GRANULE - 1))
                }
            };
            next = last.checked_add(1).filter(|&next| next <= span.last());
        }
        Ok(Fetched::Range { _fetching: fetching })
    }

    /// Tells the translator that `access` was refused for `reason`, if that is a refusal by the IOMMU.
    /// No lock and no slot may be held.
    pub(crate) fn tell_refused(&self, access: Access, reason: Reason) {
        if let (Some(asking), Reason::Refused { addr, refusal }) = (&self.asking, reason) {
            asking.translator.refused(addr, access, refusal);
        }
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
    ///
    /// # Safety
    /// As [`fetch`](Self::fetch).
    unsafe fn ask<'a>(
        &'a self,
        asking: &'a Asking,
        firmware: Port<'_>,
        span: Span<DeviceAddr>,
        access: Access,
    ) -> Result<Option<Asked<'a, Answer>>, Reason> {
        let addr = span.start();
        let page = Span::new(DeviceAddr(addr.0 & !(GRANULE - 1)), GRANULE)?;
        let memory = PageTables::new(firmware);
        let (wants_grace, wants_room) = (Cell::new(false), Cell::new(false));
        let following = RefCell::new(Following::default());
        let settled = asking.questions.answer(
            page,
            access,
            || self.known(addr, access) != Ok(None),
            || asking.answer(&memory, page, span, access, &mut following.borrow_mut()),
            |answer| whole(page, answer),
            |answer, valid| {
                let mut search = Search::default();
                let mut writer = self.view.writer();
                loop {
                    let Some(invalidated) = valid() else { return Ok(false) };
                    if self.is_removed() {
                        return Ok(true);
                    }
                    let entering = Entering {
                        domain: self,
                        asking,
                        firmware,
                        page,
                        writer: &mut writer,
                        is_exhausted: search.is_exhausted(),
                    };
                    let before = entering.writer.leaves();
                    let entered =
                        entering.enter(*answer, &following.borrow(), access, &invalidated);
                    wants_grace.set(writer.wants_grace());
                    match entered {
                        Ok(()) => {
                            wants_room.set(self.is_nearly_full(before, writer.leaves()));
                            return Ok(true);
                        }
                        Err(Unentered::Refused(reason)) => return Err(reason),
                        Err(Unentered::Full) => {
                            MutexGuard::unlock_fair(writer);
                            writer = self.make_room(asking, &mut search);
                        }
                        Err(Unentered::Evicting) => {
                            drop(writer);
                            asking.wait_for_eviction();
                            writer = self.view.writer();
                        }
                    }
                }
            },
        );
        if wants_room.get() {
            self.evict_ahead(asking);
        }
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

/// The page that an answer to a question about `page` is about.
fn whole(page: Span<DeviceAddr>, answer: &Answer) -> Span<DeviceAddr> {
    let whole = answer.ok().and_then(|answer| whole_page(page.start(), &answer).ok());
    whole.unwrap_or(page)
}

/// The beginning of `addr` to `last` that one question can be about.
fn run(addr: DeviceAddr, last: DeviceAddr) -> Span<DeviceAddr> {
    const MOST: u64 = (1 + Following::MOST as u64) * GRANULE;
    let end = DeviceAddr((addr.0 & !(GRANULE - 1)).saturating_add(MOST - 1));
    Span::inclusive(addr, last.min(end))
        .unwrap_or_else(|| unreachable!("`addr` is not past `last`"))
}
