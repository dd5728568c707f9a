//! Adding grants to a domain.
#![allow(unsafe_code, reason = "reads segments under the lock that keeps them")]

use core::convert::Infallible;
use core::ops::ControlFlow;

use smallvec::SmallVec;

use super::chunks::{GuestMemory, in_chunks};
use super::domain::{DomainInner, DomainKind};
use super::project::{PIECE_COST, around, entries, project_device};
use crate::access::Access;
use crate::addr::{DeviceAddr, GRANULE, GuestPhys};
use crate::error::Reason;
use crate::space::Regions;
use crate::space::segment::Segments;
use crate::span::Span;
use crate::view::entry::{Behind, Leaf};
use crate::view::lookup::guest_of;
use crate::view::table::{Table, Writer};

/// A grant to be added, in whole granules.
#[derive(Clone, Copy)]
struct NewGrant {
    device: Span<DeviceAddr>,
    guest: GuestPhys,
    access: Access,
}

/// A stretch of the grant's addresses that is added in one way.
#[derive(Clone, Copy)]
enum Stretch {
    /// Addresses without a grant, and what is behind them.
    Ungranted(Span<DeviceAddr>, Behind),
    /// Addresses that one table entry covers, and the whole range of that entry.
    Granted { part: Span<DeviceAddr>, whole: Span<DeviceAddr>, leaf: Leaf },
}

impl DomainInner {
    /// Grants `access` to the device addresses `device`, of which the first leads to `guest`, in
    /// addition to the access they have.
    ///
    /// Both are rounded outward to 4 KiB (decision 11). The range is gone through twice, in
    /// chunks: first to check it, so that an error changes nothing (decision 10), then to change
    /// the table.
    pub(crate) fn grant(
        &self,
        memory: GuestMemory<'_>,
        device: Span<DeviceAddr>,
        guest: GuestPhys,
        access: Access,
    ) -> Result<(), Reason> {
        if !self.takes_grants() {
            return Err(Reason::Invalid("a domain that bypasses, denies or asks has no grants"));
        }
        if access.is_empty() {
            return Err(Reason::BadFlags(0));
        }
        let (device, guest) = self.granules(device, guest)?;
        let grant = NewGrant { device, guest, access };
        let _changes = self.changes.lock();
        if self.is_removed() {
            return Err(Reason::NotFound("domain of this name any more"));
        }
        let table = &self.view.table;
        let mut new = 0;
        let mut left = Some(device);
        let checked = in_chunks(&self.view, memory, device, |regions, writer, rest| {
            let stretches = grant.stretches(table, regions, writer, rest);
            let next = grant.check(&stretches, memory.segments, writer, &mut new)?;
            if next.is_none() {
                // Only this thread adds grants now. A change of regions meanwhile cuts entries
                // only as far as the limit allows besides the entries promised here.
                if writer.leaves().saturating_add(new) > self.limit {
                    let what = "table entries of the domain";
                    return ControlFlow::Break(Reason::Limit { what, limit: self.limit });
                }
                // A grant that was checked in one chunk is added in the same chunk.
                writer.promised = new;
                if rest == device {
                    let next = grant.put_promised(&stretches, table, writer);
                    left = next.and_then(|next| Span::inclusive(next, device.last()));
                }
                if left.is_none() {
                    writer.promised = 0;
                }
            }
            ControlFlow::Continue(next)
        });
        if let ControlFlow::Break(reason) = checked {
            return Err(reason);
        }
        if let Some(left) = left {
            let _: ControlFlow<Infallible> =
                in_chunks(&self.view, memory, left, |regions, writer, rest| {
                    let stretches = grant.stretches(table, regions, writer, rest);
                    let next = grant.put_promised(&stretches, table, writer);
                    if next.is_none() {
                        writer.promised = 0;
                    }
                    ControlFlow::Continue(next)
                });
        }
        Ok(())
    }

    /// Both sides of a grant, rounded to whole granules and inside the guest's address width.
    fn granules(
        &self,
        device: Span<DeviceAddr>,
        guest: GuestPhys,
    ) -> Result<(Span<DeviceAddr>, GuestPhys), Reason> {
        let within = device.start().0 % GRANULE;
        if guest.0 % GRANULE != within {
            return Err(Reason::Invalid(
                "device and guest-physical address must agree in their last 12 bits",
            ));
        }
        if self.kind == DomainKind::Identity && guest.0 != device.start().0 {
            return Err(Reason::Invalid("an identity domain does not translate"));
        }
        let device = device.rounded_out().ok_or(Reason::BeyondWidth { bits: self.width })?;
        let guest = Span::new(GuestPhys(guest.0 - within), device.len())?;
        let beyond = |last: u64| self.width < 64 && last >> self.width != 0;
        if beyond(device.last().0) || beyond(guest.last().0) {
            return Err(Reason::BeyondWidth { bits: self.width });
        }
        Ok((device, guest.start()))
    }
}

impl NewGrant {
    /// The guest-physical address that the grant gives the first address of `part`.
    fn to(&self, part: Span<DeviceAddr>) -> GuestPhys {
        GuestPhys(self.guest.0 + (part.start().0 - self.device.start().0))
    }

    /// The grant's addresses in `rest` as they are now, as far as a chunk comes.
    fn stretches(
        &self,
        table: &Table,
        regions: &Regions,
        writer: &mut Writer,
        rest: Span<DeviceAddr>,
    ) -> Stretches {
        let mut granted = SmallVec::<[_; 2]>::new();
        let visited: ControlFlow<Infallible, _> =
            table.visit(&mut writer.work, rest, |whole, leaf| {
                granted.extend(whole.intersection(&rest).map(|part| (part, whole, leaf)));
                ControlFlow::Continue(())
            });
        let ControlFlow::Continue(next) = visited;
        let last = next.map_or(rest.last(), |next| DeviceAddr(next.0.saturating_sub(1)));
        // Finding what is behind the gaps counts as a chunk's work of its own.
        writer.work.begin();
        let mut list = SmallVec::new();
        let mut free_from = Some(rest.start());
        for granted in granted.into_iter().map(Some).chain([None]) {
            let end = match granted {
                Some((part, ..)) => part.start().0.checked_sub(1).map(DeviceAddr),
                None => Some(last),
            };
            let gap = free_from.zip(end).and_then(|(first, end)| Span::inclusive(first, end));
            for (piece, behind) in
                gap.into_iter().flat_map(|gap| project_device(regions, gap, self.to(gap)))
            {
                list.push(Stretch::Ungranted(piece, behind));
                writer.work.spend(PIECE_COST);
                let on = piece.last().checked_add(1).filter(|&on| on <= last);
                if on.is_some() && writer.work.is_spent() {
                    return Stretches { list, next: on };
                }
            }
            if let Some((part, whole, leaf)) = granted {
                list.push(Stretch::Granted { part, whole, leaf });
                free_from = part.last().checked_add(1);
            }
        }
        Stretches { list, next }
    }

    /// Checks the grant in one chunk, and adds to `new` the number of table entries that it
    /// takes there.
    fn check(
        &self,
        stretches: &Stretches,
        segments: &Segments,
        writer: &mut Writer,
        new: &mut u64,
    ) -> ControlFlow<Reason, Option<DeviceAddr>> {
        // Going through the stretches counts as a chunk's work of its own.
        writer.work.begin();
        for &stretch in &stretches.list {
            match stretch {
                Stretch::Granted { part, whole, leaf } => {
                    let first = leaf.advanced((part.start().0 - whole.start().0) / GRANULE);
                    // SAFETY: `guest_of` asks for the lock under which segments are removed:
                    // that of the regions, which each chunk holds. So the segment that the leaf
                    // named when this chunk read it is still there, and its address is only
                    // read.
                    let to = GuestPhys(unsafe { guest_of(segments, first, 0) });
                    if to != self.to(part) {
                        let at = part.start();
                        return ControlFlow::Break(Reason::GrantedElsewhere { addr: at, to });
                    }
                    if !leaf.allowed().contains(self.access) {
                        let cut = around(whole, part).map(entries).sum::<u64>() + entries(part);
                        *new = new.saturating_add(cut - 1);
                    }
                }
                Stretch::Ungranted(piece, _) => *new = new.saturating_add(entries(piece)),
            }
        }
        ControlFlow::Continue(stretches.next)
    }

    /// [`put`](Self::put), which takes the entries that it adds off the promised ones.
    fn put_promised(
        &self,
        stretches: &Stretches,
        table: &Table,
        writer: &mut Writer,
    ) -> Option<DeviceAddr> {
        let before = writer.leaves();
        let next = self.put(stretches, table, writer);
        let added = writer.leaves().saturating_sub(before);
        writer.promised = writer.promised.saturating_sub(added);
        next
    }

    /// Adds the grant to the table for one chunk; returns the address to continue at.
    fn put(&self, stretches: &Stretches, table: &Table, writer: &mut Writer) -> Option<DeviceAddr> {
        let raised = |leaf: Leaf| leaf.with_allowed(leaf.allowed() | self.access);
        writer.work.begin();
        for &stretch in &stretches.list {
            match stretch {
                Stretch::Granted { leaf, .. } if leaf.allowed().contains(self.access) => {}
                Stretch::Granted { part, .. } => {
                    let paused = table.update(writer, part, |_, leaf| Some(raised(leaf)));
                    if paused.is_some() {
                        return paused;
                    }
                }
                Stretch::Ungranted(piece, behind) => {
                    let paused = table.fill(writer, piece, Leaf::new(self.access, behind));
                    if paused.is_some() {
                        return paused;
                    }
                }
            }
        }
        stretches.next
    }
}

/// The stretches that one chunk comes to, in order.
struct Stretches {
    list: SmallVec<[Stretch; 2]>,
    /// The address at which the next chunk continues.
    next: Option<DeviceAddr>,
}
