//! Changes of the regions, and the updates of every view that follow.
//!
//! A change has three steps. First the region map changes, under its lock: grants that are added
//! from then on lead to what it has now. Then every table is updated, chunk by chunk. If the
//! change reduced access, scans then collect the mappings that were created before, and after them
//! no reader is in anything that was removed. The edit lock, which the caller holds, excludes a
//! second change of regions during all three.
#![allow(unsafe_code, reason = "frees nodes after the scan that makes it safe")]

use core::convert::Infallible;
use core::ops::ControlFlow;
use std::collections::HashSet;
use std::sync::Arc;

use super::inner::Inner;
use crate::access::Access;
use crate::addr::{DeviceAddr, GuestPhys};
use crate::error::Reason;
use crate::iommu::{DomainInner, Reached, free, identity, in_chunks, refresh};
use crate::mapping::{Drain, Keep, Revocation, check_not_looking_up};
use crate::space::{Placed, Region, Regions};
use crate::span::Span;
use crate::view::View;
use crate::view::entry::{Behind, Leaf};
use crate::view::project::project;
use crate::view::table::Writer;

type Result<T> = core::result::Result<T, Reason>;

impl Inner {
    /// Adds a region. The caller holds the edit lock.
    pub(super) fn add(&self, region: Region) -> Result<()> {
        check_not_looking_up()?;
        let rehearse = |regions: &mut Regions| {
            regions.check_add(&region)?;
            regions.add(Placed { region: region.clone(), segment: None });
            Ok(())
        };
        self.announced(region.span(), rehearse, || self.add_unannounced(region.clone()))
    }

    fn add_unannounced(&self, region: Region) -> Result<()> {
        let span = region.span();
        if span.last().0 >> self.physical.width != 0 {
            return Err(Reason::BeyondWidth { bits: self.physical.width });
        }
        let mut regions = self.write_regions();
        regions.check_add(&region)?;
        let segment = match region.object() {
            None => None,
            Some(object) => {
                let offset = region.object_offset();
                let same = |placed: &Placed| {
                    let segment = placed.segment.as_ref()?;
                    segment.places(object, offset, span.start()).then(|| Arc::clone(segment))
                };
                let existing = regions.iter().find_map(same);
                Some(match existing {
                    Some(segment) => segment,
                    None => self.physical.segments.add(object, offset, span.start())?,
                })
            }
        };
        let has_memory = segment.is_some();
        regions.add(Placed { region, segment });
        drop(regions);
        // A region without memory leaves a hole a hole. If it has memory, nothing can have been
        // mapped there before, even through grants that are revoked: they led to a hole.
        if has_memory {
            self.publish(span, &mut |_, _| ());
        }
        Ok(())
    }

    /// Changes the access that memory offers. The caller holds the edit lock.
    pub(super) fn set_access(&self, span: Span<GuestPhys>, access: Access) -> Result<Drain> {
        check_not_looking_up()?;
        let rehearse = |regions: &mut Regions| {
            check_change(regions, span)?;
            regions.set_access(span, access);
            Ok(())
        };
        self.announced(span, rehearse, || self.set_access_unannounced(span, access))
    }

    fn set_access_unannounced(&self, span: Span<GuestPhys>, access: Access) -> Result<Drain> {
        let mut regions = self.write_regions();
        check_change(&regions, span)?;
        let was = regions.set_access(span, access);
        drop(regions);
        let reduced = was.iter().any(|placed| !access.contains(placed.region.access()));
        let mut revoked = RegionRevocation::new(self, segments_of(&was));
        self.publish(self.pages(span), &mut |view, reached| match reached {
            Reached::Updated(span) if reduced => revoked.range(view, span),
            Reached::Updated(_) => {}
            Reached::Revoked(span) => revoked.range(view, span),
        });
        Ok(revoked.scan())
    }

    /// Sets the tag and the owner of the regions in a range. The caller holds the edit lock.
    pub(super) fn set_tag(
        &self,
        span: Span<GuestPhys>,
        tag: u64,
        owner: Option<&str>,
    ) -> Result<()> {
        check_not_looking_up()?;
        let set = |regions: &mut Regions| {
            check_change(regions, span)?;
            regions.set_tag(span, tag, owner);
            Ok(())
        };
        // It can split and merge regions.
        self.announced(span, set, || set(&mut self.write_regions()))
    }

    /// Removes the regions in a range. The caller holds the edit lock.
    pub(super) fn remove(&self, span: Span<GuestPhys>) -> Result<Drain> {
        check_not_looking_up()?;
        let rehearse = |regions: &mut Regions| {
            check_remove(regions, span)?;
            regions.remove(span);
            Ok(())
        };
        self.announced(span, rehearse, || self.remove_unannounced(span))
    }

    fn remove_unannounced(&self, span: Span<GuestPhys>) -> Result<Drain> {
        let mut regions = self.write_regions();
        check_remove(&regions, span)?;
        let removed = segments_of(&regions.remove(span));
        let used: HashSet<usize> = regions.all_segments().iter().map(|used| used.index()).collect();
        drop(regions);
        let unused: Keep =
            removed.iter().filter(|gone| !used.contains(&gone.index())).cloned().collect();
        let mut revoked = RegionRevocation::new(self, removed);
        self.publish(self.pages(span), &mut |view, reached| match reached {
            Reached::Updated(span) | Reached::Revoked(span) => revoked.range(view, span),
        });
        let drain = revoked.scan();
        // No leaf names the segments any more, and the scan waited for every look-up that may
        // have read one that did.
        let regions = self.write_regions();
        unused.iter().for_each(|segment| self.physical.segments.remove(segment));
        drop(regions);
        Ok(drain)
    }

    /// The part of a range inside the guest's address width, rounded outward to whole pages, as
    /// the views have it.
    fn pages(&self, span: Span<GuestPhys>) -> Span<GuestPhys> {
        let all = Span::inclusive(GuestPhys(0), GuestPhys((1 << self.physical.width) - 1))
            .unwrap_or(span);
        span.intersection(&all).and_then(|span| span.rounded_out()).unwrap_or(all)
    }

    /// Updates all views to the regions in `changed`, which is whole pages, and calls `reached`
    /// with the device addresses that lead there.
    fn publish(&self, changed: Span<GuestPhys>, reached: &mut dyn FnMut(&View, Reached)) {
        let device = identity(changed);
        let _: ControlFlow<Infallible> =
            in_chunks(&self.flat, self.memory(), device, |regions, writer, rest| {
                ControlFlow::Continue(self.flatten(regions, writer, rest))
            });
        reached(&self.flat, Reached::Updated(device));
        for domain in self.domains_with_tables() {
            refresh(&domain, self.memory(), changed, |range| reached(&domain.view, range));
        }
    }

    /// Updates the flat view to the regions in `rest`, as far as a chunk comes. Returns the
    /// address to continue at.
    fn flatten(
        &self,
        regions: &Regions,
        writer: &mut Writer,
        rest: Span<DeviceAddr>,
    ) -> Option<DeviceAddr> {
        /// The cost of finding a piece, in words of the writer's work.
        const PIECE_COST: u64 = 8;
        let guest = Span::new(GuestPhys(rest.start().0), rest.len()).ok()?;
        for (piece, behind) in project(regions, guest) {
            writer.work.spend(PIECE_COST);
            let piece = identity(piece);
            let paused = match behind {
                Behind::Memory { .. } => {
                    self.flat.table.fill(writer, piece, Leaf::new(Access::RWX, behind))
                }
                Behind::Hole { .. } => self.flat.table.clear(writer, piece),
            };
            if paused.is_some() {
                return paused;
            }
            if writer.work.is_spent() {
                return piece.last().checked_add(1);
            }
        }
        None
    }

    /// The domains whose tables have to be updated after a change of the regions. A domain that
    /// is added after the regions have changed needs no update.
    fn domains_with_tables(&self) -> Vec<Arc<DomainInner>> {
        let domains = self.lock_domains();
        domains.iter().filter(|domain| domain.has_table()).cloned().collect()
    }
}

/// The ranges of device addresses to which a change of regions has reduced access.
struct RegionRevocation<'a> {
    guest: &'a Inner,
    revocation: Revocation,
    /// The last range, to which the next one may be joined.
    last: Option<(u32, Span<DeviceAddr>)>,
    ranges: usize,
    /// The memory that mappings of the ranges can be of.
    keep: Keep,
    drain: Option<Drain>,
}

impl<'a> RegionRevocation<'a> {
    /// The most ranges of one scan; a guest can have a million.
    const RANGES: usize = 1 << 16;

    fn new(guest: &'a Inner, keep: Keep) -> Self {
        let revocation = Revocation::default();
        Self { guest, revocation, last: None, ranges: 0, keep, drain: None }
    }

    fn range(&mut self, view: &View, span: Span<DeviceAddr>) {
        let joined = self.last.and_then(|(last_view, last)| {
            let goes_on = last.last().checked_add(1) == Some(span.start());
            let joins = last_view == view.id() && (goes_on || last.covers(&span));
            joins.then(|| Span::inclusive(last.start(), last.last().max(span.last())))?
        });
        match joined {
            Some(joined) => self.last = Some((view.id(), joined)),
            None => {
                self.flush();
                self.last = Some((view.id(), span));
            }
        }
    }

    fn flush(&mut self) {
        let Some((view, span)) = self.last.take() else { return };
        self.revocation.range(view, span);
        self.ranges += 1;
        if self.ranges == Self::RANGES {
            self.collect();
        }
    }

    /// Scans for the mappings of the ranges so far.
    fn collect(&mut self) {
        let revocation = core::mem::take(&mut self.revocation);
        self.ranges = 0;
        let found = revocation.scan(self.guest.policy, || self.keep.clone());
        self.drain = Some(match self.drain.take() {
            Some(drain) => drain.joined(found),
            None => found,
        });
    }

    /// Scans for the mappings, and frees the nodes that the change removed.
    fn scan(mut self) -> Drain {
        self.flush();
        let domains = self.guest.domains_with_tables();
        let views =
            core::iter::once(&self.guest.flat).chain(domains.iter().map(|domain| &domain.view));
        let retired: Vec<_> =
            views.map(|view| (Arc::clone(view), view.writer().take_retired())).collect();
        self.collect();
        for (view, retired) in retired {
            // SAFETY: `free` asks that the nodes are of this view's table and that a scan waited
            // for every reader that was in it when they were taken from its writer: they were
            // taken from it above, and the scan of `collect` came after.
            unsafe { free(&view, retired) };
        }
        self.drain.unwrap_or_else(|| unreachable!("`collect` sets it"))
    }
}

fn segments_of(placed: &[Placed]) -> Keep {
    let mut keep: Keep = placed.iter().filter_map(|placed| placed.segment.clone()).collect();
    keep.dedup_by(|a, b| Arc::ptr_eq(a, b));
    keep
}

/// Whether the regions in a range can be removed.
fn check_remove(regions: &Regions, span: Span<GuestPhys>) -> Result<()> {
    if regions.overlapping(span).next().is_none() {
        return Err(Reason::NotFound("region in the range"));
    }
    regions.check_cut(span)
}

/// Checks that there are regions in all of `span`, and that they can be split at its ends.
fn check_change(regions: &Regions, span: Span<GuestPhys>) -> core::result::Result<(), Reason> {
    if let Some(hole) = regions.gap(span, |_| true) {
        return Err(Reason::NoMemory { addr: hole });
    }
    regions.check_cut(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceAddr, Guest, MapFlags, MemoryObject, Residency, Vdev};
    use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use core::time::Duration;
    use std::thread;

    #[test]
    fn a_segments_number_is_free_only_when_no_look_up_can_have_it() {
        let guest = Guest::builder().build().unwrap();
        let ram = MemoryObject::ram(1 << 20).residency(Residency::OnDemand).create().unwrap();
        guest.space().add_ram(Some(GuestPhys(0)), &ram).unwrap();
        let span = Span::new(GuestPhys(0), 1 << 20).unwrap();
        let disk = guest.vdev("disk").unwrap();
        let map = || disk.map(DeviceAddr(0), 8, MapFlags::RW);
        let numbers = || format!("{:?}", guest.0.physical.segments);
        let (inside, go) = (AtomicBool::new(false), AtomicBool::new(false));
        let wait_until = |what: &dyn Fn() -> bool| {
            while !what() {
                thread::sleep(Duration::from_millis(1));
            }
        };
        assert!(map().is_ok());
        let one = numbers();
        thread::scope(|scope| {
            scope.spawn(|| {
                let find = || {
                    inside.store(true, SeqCst);
                    wait_until(&|| go.load(SeqCst));
                    Some(&disk)
                };
                assert!(Vdev::map_page_of(find, DeviceAddr(0), 8, MapFlags::RW).is_none());
            });
            wait_until(&|| inside.load(SeqCst));
            let removing = scope.spawn(|| guest.space().remove(span).unwrap().wait());
            wait_until(&|| map().is_err());
            thread::sleep(Duration::from_millis(50));
            let meanwhile = (removing.is_finished(), numbers());
            go.store(true, SeqCst);
            removing.join().unwrap();
            assert_eq!(meanwhile, (false, one.clone()), "the removal waits for the look-up");
        });
        assert_ne!(numbers(), one, "the number is free at the end");
    }

    #[test]
    fn what_a_change_has_reached_is_reported_without_any_lock() {
        let guest = Guest::builder().iommu(crate::Unattached::Deny).build().unwrap();
        let ram = MemoryObject::ram(1 << 20).residency(Residency::OnDemand).create().unwrap();
        guest.space().add_ram(Some(GuestPhys(0)), &ram).unwrap();
        let options = crate::DomainOptions::new(crate::DomainKind::Translate);
        let domain = guest.domain("domain", options).unwrap();
        for page in 0..100 {
            domain.grant(DeviceAddr(page << 20), GuestPhys(0), 4096, Access::RW).unwrap();
        }
        let inner = Arc::clone(&guest.0.domains_with_tables()[0]);
        let mut reports = 0;
        refresh(&inner, guest.0.memory(), Span::new(GuestPhys(0), 1 << 20).unwrap(), |_| {
            assert!(guest.0.regions.try_write().is_some(), "a scan here would keep others waiting");
            reports += 1;
        });
        assert_eq!(reports, 100);
    }
}
