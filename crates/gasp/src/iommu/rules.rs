//! Adding and removing a domain's rules.
#![allow(unsafe_code, reason = "shares segments and frees nodes under the locks that guard them")]

use core::ops::ControlFlow;
use core::sync::atomic::Ordering;

use super::domain::{DomainInner, DomainKind};
use crate::access::Access;
use crate::addr::{DeviceAddr, GRANULE, GuestPhys};
use crate::error::Reason;
use crate::mapping::{Drain, Keep, Revocation};
use crate::space::{Regions, pieces};
use crate::span::Span;
use crate::view::entry::{Behind, Leaf};
use crate::view::lookup::guest_of;
use crate::view::segment::Segments;

impl DomainInner {
    /// Lets `device` through to `guest` and on, with `access` added to what it had.
    ///
    /// Both are rounded outward to 4 KiB (decision 11). The caller holds the regions'
    /// lock, so that the memory it sees is there to stay.
    pub(crate) fn add(
        &self,
        regions: &Regions,
        segments: &Segments,
        device: Span<DeviceAddr>,
        guest: GuestPhys,
        access: Access,
    ) -> Result<(), Reason> {
        if !self.has_rules() {
            return Err(Reason::Invalid("a domain that bypasses or denies has no rules"));
        }
        if access.is_empty() {
            return Err(Reason::BadFlags(0));
        }
        let (device, guest) = self.granules(device, guest)?;
        let mut writer = self.view.writer();
        if self.is_removed() {
            return Err(Reason::NotFound("such domain any more"));
        }
        // What is there already: its rules must lead to the same place.
        let mut there = Vec::new();
        let conflict = self.view.table.visit(device, |part, leaf| {
            let want = guest.0 + (part.start().0 - device.start().0);
            // SAFETY: segments are removed only under the regions' lock, which the caller
            // holds.
            let to = unsafe { guest_of(segments, leaf, 0) };
            if to != want {
                return ControlFlow::Break(Reason::MappedElsewhere { at: part.start(), to });
            }
            there.push((part, leaf.allowed()));
            ControlFlow::Continue(())
        });
        if let ControlFlow::Break(reason) = conflict {
            return Err(reason);
        }
        let gaps = gaps(device, &there);
        let to = |part: Span<DeviceAddr>| GuestPhys(guest.0 + (part.start().0 - device.start().0));
        let count = |part| placed(regions, part, to(part)).map(|(piece, _)| entries(piece)).sum();
        let raised = |had: Access| !had.contains(access);
        let split = there.iter().filter(|(_, had)| raised(*had)).map(|(part, _)| {
            let found = self.view.table.find(part.start().0);
            found.entries_of_a_split(part.len()).saturating_add(count(*part)).saturating_sub(1)
        });
        let new = gaps.iter().map(|gap| count(*gap)).chain(split).fold(0, u64::saturating_add);
        if writer.leaves().saturating_add(new) > self.limit {
            return Err(Reason::Limit { what: "table entries of the domain", limit: self.limit });
        }
        let added = gaps.into_iter().map(|gap| (gap, access));
        let more = there.into_iter().filter(|(_, had)| raised(*had));
        for (part, allowed) in added.chain(more.map(|(part, had)| (part, had | access))) {
            for (piece, behind) in placed(regions, part, to(part)) {
                self.view.table.fill(&mut writer, piece, Leaf::new(allowed, behind));
            }
        }
        if writer.wants_grace() {
            drop(Revocation::default().scan(self.policy, Keep::new));
            // SAFETY: the scan waited for every reader that was in the table.
            unsafe { writer.free_retired() };
        }
        Ok(())
    }

    /// Takes back what `spans` were let through to, at once and together; the drain that
    /// comes back waits for the mappings made before.
    pub(crate) fn remove(
        &self,
        segments: &Segments,
        spans: &[Span<DeviceAddr>],
    ) -> Result<Drain, Reason> {
        if !self.has_rules() {
            return Err(Reason::Invalid("a domain that bypasses or denies has no rules"));
        }
        Ok(self.clear(segments, spans))
    }

    /// Takes everything back, for good: no rule can be added any more. No device is
    /// attached, so every mapping made through it is in the drain of an earlier revoke.
    pub(crate) fn retire(&self) {
        let mut writer = self.view.writer();
        self.removed.store(true, Ordering::Relaxed);
        if self.has_rules() {
            self.view.table.clear(&mut writer, self.addresses());
            // Whoever moved the last device away has a drain for its mappings.
            drop(Revocation::default().scan(self.policy, Keep::new));
            // SAFETY: the scan waited for every reader that was in the table.
            unsafe { writer.free_retired() };
        }
    }

    fn clear(&self, segments: &Segments, spans: &[Span<DeviceAddr>]) -> Drain {
        let mut writer = self.view.writer();
        let mut revocation = Revocation::default();
        let mut used: Vec<usize> = Vec::new();
        for span in spans {
            // Behind the guest's address width nothing was ever granted.
            let all = self.addresses();
            let Some(span) = span.rounded_out().map_or(Some(all), |span| all.intersection(&span))
            else {
                continue;
            };
            self.view.table.update(&mut writer, span, |_, leaf| {
                if let Behind::Memory { segment, .. } = leaf.behind()
                    && !used.contains(&segment)
                {
                    used.push(segment);
                }
                None
            });
            revocation.range(self.view.id(), span);
        }
        let drain = revocation.scan(self.policy, || {
            // SAFETY: segments are removed only under the regions' lock, which the
            // caller holds; those of the removed leaves are still there.
            used.iter().map(|&index| unsafe { segments.share(index) }).collect()
        });
        // SAFETY: the scan waited for every reader that was in the table.
        unsafe { writer.free_retired() };
        drain
    }

    /// Both sides of a rule in whole granules, inside the guest's address width.
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

/// What is behind a range of device addresses that goes to `guest` and on, in pieces.
pub(super) fn placed(
    regions: &Regions,
    device: Span<DeviceAddr>,
    guest: GuestPhys,
) -> impl Iterator<Item = (Span<DeviceAddr>, Behind)> {
    let span = Span::new(guest, device.len()).ok();
    span.into_iter().flat_map(|span| pieces(regions, span)).filter_map(move |(piece, behind)| {
        let offset = piece.start().0 - guest.0;
        let start = device.start().checked_add(offset)?;
        Some((Span::new(start, piece.len()).ok()?, behind))
    })
}

/// The parts of `span` that are not in `there`, which is in order.
fn gaps(span: Span<DeviceAddr>, there: &[(Span<DeviceAddr>, Access)]) -> Vec<Span<DeviceAddr>> {
    let mut gaps = Vec::new();
    let mut next = Some(span.start());
    for (part, _) in there {
        let before = part.start().0.checked_sub(1).map(DeviceAddr);
        if let (Some(first), Some(last)) = (next, before) {
            gaps.extend(Span::inclusive(first, last));
        }
        next = part.last().checked_add(1);
    }
    gaps.extend(next.and_then(|first| Span::inclusive(first, span.last())));
    gaps
}

/// How many table entries a granular range takes, where one region is behind all of it.
fn entries(span: Span<DeviceAddr>) -> u64 {
    let (mut start, end) = (span.start().0 >> 12, (span.last().0 >> 12) + 1);
    let mut count = 0;
    for shift in [9, 18] {
        // Up to the next larger page, as far as there are whole pages of this size.
        let size = shift - 9;
        let whole = (end >> size << size).max(start);
        let aligned = start.next_multiple_of(1 << shift).min(whole);
        count += (aligned - start) >> size;
        start = aligned;
    }
    let mut rest = end - start;
    for shift in [18, 9, 0] {
        count += rest >> shift;
        rest &= (1 << shift) - 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_counts_the_largest_aligned_pages(start in 0u64..1 << 20, len in 1u64..1 << 20) {
            let span = Span::new(DeviceAddr(start << 12), len << 12).unwrap();
            let (mut at, end, mut count) = (start, start + len, 0);
            while at < end {
                let fits = |pages: u64| at.is_multiple_of(pages) && at + pages <= end;
                at += [1 << 18, 1 << 9, 1].into_iter().find(|&pages| fits(pages)).unwrap();
                count += 1;
            }
            prop_assert_eq!(entries(span), count);
        }
    }
}
