//! Updates of a domain's table after a change of the guest's regions.
#![allow(unsafe_code, reason = "reads segments under the lock that keeps them")]

use core::cell::RefCell;
use core::convert::Infallible;
use core::ops::ControlFlow;

use super::chunks::{GuestMemory, in_chunks_and_between};
use super::domain::{DomainInner, DomainKind};
use super::project::{PIECE_COST, around, entries, project_device};
use crate::addr::{DeviceAddr, GRANULE, GuestPhys};
use crate::space::Regions;
use crate::space::segment::Segments;
use crate::span::Span;
use crate::view::entry::Leaf;
use crate::view::lookup::guest_of;
use crate::view::table::Writer;

/// Device addresses whose grants were affected by a change of regions.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reached {
    /// They now lead to what the changed regions have.
    Updated(Span<DeviceAddr>),
    /// Their grants were revoked.
    Revoked(Span<DeviceAddr>),
}

/// Updates every grant that leads into `changed`, and calls `reached` with the addresses of
/// each.
///
/// The regions have already changed, so grants that are added meanwhile lead to what they have
/// now; segments that the change leaves unused are removed only after this. `reached` is called
/// with no lock held, so it may scan for mappings of the addresses. A grant that would have to
/// be cut into more entries than the domain's limit allows is revoked: its device is refused,
/// and the guest may grant it again (docs/decisions.md).
pub(crate) fn refresh(
    domain: &DomainInner,
    memory: GuestMemory<'_>,
    changed: Span<GuestPhys>,
    mut reached: impl FnMut(Reached),
) {
    let span = match domain.kind {
        DomainKind::Bypass | DomainKind::Deny => return,
        DomainKind::Identity => identity(changed),
        DomainKind::Translate | DomainKind::Ask => domain.addresses(),
    };
    let mut revoked = 0_u64;
    let unreported = RefCell::new(Vec::new());
    let _: ControlFlow<Infallible> = in_chunks_and_between(
        &domain.view,
        memory,
        span,
        |regions, writer, rest| {
            // Nothing is granted, so nothing changes.
            if writer.leaves() == 0 {
                return ControlFlow::Continue(None);
            }
            let chunk = Chunk { domain, regions, segments: memory.segments, changed };
            let (affected, next) = chunk.affected(writer, rest);
            for entry in affected {
                let paused = match chunk.fits(writer, &entry) {
                    true => {
                        unreported.borrow_mut().push(Reached::Updated(entry.part));
                        chunk.update(writer, &entry)
                    }
                    false => {
                        revoked += 1;
                        unreported.borrow_mut().push(Reached::Revoked(entry.whole));
                        chunk.remove(writer, &entry);
                        None
                    }
                };
                if paused.is_some() {
                    return ControlFlow::Continue(paused);
                }
                if writer.work.is_spent() {
                    return ControlFlow::Continue(entry.part.last().checked_add(1));
                }
            }
            ControlFlow::Continue(next)
        },
        || unreported.borrow_mut().drain(..).for_each(&mut reached),
    );
    if revoked > 0 {
        tracing::warn!(
            domain = &*domain.name,
            entries = revoked,
            limit = domain.limit,
            "memory changed under grants that cannot be cut within the domain's limit; they are revoked"
        );
    }
}

/// The device addresses of a guest-physical range if nothing translates.
pub(crate) fn identity(span: Span<GuestPhys>) -> Span<DeviceAddr> {
    let start = DeviceAddr::identity(span.start());
    Span::inclusive(start, DeviceAddr::identity(span.last()))
        .unwrap_or_else(|| unreachable!("a span of one kind of address is one of the other"))
}

/// What one chunk of the update needs.
struct Chunk<'a> {
    domain: &'a DomainInner,
    regions: &'a Regions,
    segments: &'a Segments,
    changed: Span<GuestPhys>,
}

/// An entry of the table that leads into the changed range.
struct Entry {
    whole: Span<DeviceAddr>,
    /// The part that leads into the changed range, and where it leads.
    part: Span<DeviceAddr>,
    guest: GuestPhys,
}

impl Chunk<'_> {
    /// Removes an entry. That is one word, so it is done even if the chunk's work is spent: no
    /// later chunk comes back to the entry.
    fn remove(&self, writer: &mut Writer, entry: &Entry) {
        let table = &self.domain.view.table;
        if table.clear(writer, entry.whole).is_some() {
            writer.work.begin();
            let paused = table.clear(writer, entry.whole);
            debug_assert!(paused.is_none(), "a chunk has room for one entry");
            writer.work.end();
        }
    }

    /// The affected entries that the chunk comes to, and the address to continue at.
    fn affected(
        &self,
        writer: &mut Writer,
        rest: Span<DeviceAddr>,
    ) -> (Vec<Entry>, Option<DeviceAddr>) {
        let mut affected = Vec::new();
        let visited: ControlFlow<Infallible, _> =
            self.domain.view.table.visit(&mut writer.work, rest, |whole, leaf| {
                // SAFETY: `guest_of` asks for the lock under which segments are removed: that
                // of the regions, which is held because `self.regions` is borrowed from its
                // guard. So the segment that the leaf names is still there, and its address is
                // only read.
                let guest = GuestPhys(unsafe { guest_of(self.segments, leaf, 0) });
                // The refusal of a translator leads nowhere.
                if leaf.refused().is_none() {
                    affected.extend(self.entry(whole, guest, rest));
                }
                ControlFlow::Continue(())
            });
        let ControlFlow::Continue(next) = visited;
        // Updating them counts as a chunk's work of its own.
        writer.work.begin();
        (affected, next)
    }

    /// The entry `whole` that leads to `guest`; `None` if it is not affected.
    fn entry(
        &self,
        whole: Span<DeviceAddr>,
        guest: GuestPhys,
        rest: Span<DeviceAddr>,
    ) -> Option<Entry> {
        let inside = Span::new(guest, whole.len()).ok()?.intersection(&self.changed)?;
        let start = DeviceAddr(whole.start().0 + (inside.start().0 - guest.0));
        let part = Span::new(start, inside.len()).ok()?.intersection(&rest)?;
        let guest = GuestPhys(guest.0 + (part.start().0 - whole.start().0));
        Some(Entry { whole, part, guest })
    }

    /// Whether the entry can be cut as the regions are now, within the domain's limit.
    fn fits(&self, writer: &mut Writer, entry: &Entry) -> bool {
        let taken = writer.leaves().saturating_add(writer.promised);
        let room = self.domain.limit.saturating_sub(taken);
        // No piece is smaller than a granule.
        if entry.whole.len() / GRANULE <= room {
            return true;
        }
        let mut new = around(entry.whole, entry.part).map(entries).sum::<u64>();
        for (piece, _) in project_device(self.regions, entry.part, entry.guest) {
            writer.work.spend(1);
            new = new.saturating_add(entries(piece));
            // One entry exists already.
            if new > room.saturating_add(1) {
                return false;
            }
        }
        true
    }

    /// Updates the entry to what the regions have now, as far as the chunk's work allows. Returns
    /// the address to continue at.
    fn update(&self, writer: &mut Writer, entry: &Entry) -> Option<DeviceAddr> {
        if let Some(asking) = &self.domain.asking
            && entry.whole.len() > GRANULE
        {
            asking.parts.add(entry.whole);
        }
        for (piece, behind) in project_device(self.regions, entry.part, entry.guest) {
            let start = piece.start().0;
            writer.work.spend(PIECE_COST);
            let paused = self.domain.view.table.update(writer, piece, |addr, leaf| {
                let pages = (addr - start) / GRANULE;
                Some(Leaf::new(leaf.allowed(), behind).advanced(pages))
            });
            if paused.is_some() {
                return paused;
            }
            if writer.work.is_spent() && piece.last() < entry.part.last() {
                return piece.last().checked_add(1);
            }
        }
        None
    }
}
