//! Changing the regions: the lock, and what a change does to every view.
#![allow(unsafe_code, reason = "frees nodes and segments after the scan that makes it safe")]

use core::fmt;
use core::marker::PhantomData;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLockWriteGuard};
use std::thread::{self, ThreadId};

use super::Inner;
use crate::access::Access;
use crate::addr::{DeviceAddr, GRANULE, GuestPhys};
use crate::error::{Error, Operation, Reason, Result};
use crate::iommu::refresh;
use crate::mapping::{Drain, Keep, Revocation};
use crate::memory::MemoryObject;
use crate::space::{Placed, Region, RegionKind, Regions, pieces};
use crate::span::Span;
use crate::view::entry::{Behind, Leaf};

/// Who may change the regions.
#[derive(Default)]
pub(crate) struct EditLock {
    holder: Mutex<Option<ThreadId>>,
    released: Condvar,
}

/// The right to change a guest's regions; see [`AddressSpace::lock`].
///
/// [`AddressSpace::lock`]: super::AddressSpace::lock
pub struct SpaceLock {
    guest: Arc<Inner>,
    /// The thread that took it gives it back.
    not_send: PhantomData<*const ()>,
}

impl SpaceLock {
    pub(super) fn new(guest: &Arc<Inner>) -> Result<Self> {
        let me = thread::current().id();
        let mut holder = guest.edit.holder.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(other) = *holder {
            if other == me {
                return Err(guest.error(Operation::SetRegion, &guest.name, Reason::Locked));
            }
            holder = guest.edit.released.wait(holder).unwrap_or_else(PoisonError::into_inner);
        }
        *holder = Some(me);
        drop(holder);
        Ok(Self { guest: Arc::clone(guest), not_send: PhantomData })
    }

    /// As [`AddressSpace::add`](super::AddressSpace::add).
    ///
    /// # Errors
    /// The same.
    pub fn add(&self, region: Region) -> Result<()> {
        let span = region.span();
        self.guest.add(region).map_err(|reason| self.error(span, reason))
    }

    /// As [`AddressSpace::add_ram`](super::AddressSpace::add_ram).
    ///
    /// # Errors
    /// The same.
    pub fn add_ram(&self, start: Option<GuestPhys>, object: &MemoryObject) -> Result<GuestPhys> {
        self.add_memory(RegionKind::Ram, start, object)
    }

    /// As [`AddressSpace::add_rom`](super::AddressSpace::add_rom).
    ///
    /// # Errors
    /// The same.
    pub fn add_rom(&self, start: Option<GuestPhys>, object: &MemoryObject) -> Result<GuestPhys> {
        self.add_memory(RegionKind::Rom, start, object)
    }

    fn add_memory(
        &self,
        kind: RegionKind,
        start: Option<GuestPhys>,
        object: &MemoryObject,
    ) -> Result<GuestPhys> {
        let place = start.unwrap_or_default();
        let fail = |reason| Error::new(Operation::SetRegion, place, object.len(), reason);
        let start = start.or_else(|| self.guest.read_regions().end_of_memory());
        let start = start.ok_or_else(|| fail(Reason::NoRoom))?;
        let span = Span::new(start, object.len()).map_err(fail)?;
        self.add(Region::memory(kind, span, object, 0).map_err(fail)?)?;
        Ok(start)
    }

    /// As [`AddressSpace::set_access`](super::AddressSpace::set_access).
    ///
    /// # Errors
    /// The same.
    pub fn set_access(&self, span: Span<GuestPhys>, access: Access) -> Result<Drain> {
        self.guest.set_access(span, access).map_err(|reason| self.error(span, reason))
    }

    /// As [`AddressSpace::set_tag`](super::AddressSpace::set_tag).
    ///
    /// # Errors
    /// The same.
    pub fn set_tag(&self, span: Span<GuestPhys>, tag: u64, owner: Option<&str>) -> Result<()> {
        self.guest.set_tag(span, tag, owner).map_err(|reason| self.error(span, reason))
    }

    /// As [`AddressSpace::remove`](super::AddressSpace::remove). Wait for the drain after
    /// the lock has been dropped, if whoever holds a mapping may need it to let go.
    ///
    /// # Errors
    /// The same.
    pub fn remove(&self, span: Span<GuestPhys>) -> Result<Drain> {
        self.guest.remove(span).map_err(|reason| self.error(span, reason))
    }

    fn error(&self, span: Span<GuestPhys>, reason: Reason) -> Error {
        Error::new(Operation::SetRegion, span.start(), span.len(), reason)
    }
}

impl Drop for SpaceLock {
    fn drop(&mut self) {
        *self.guest.edit.holder.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.guest.edit.released.notify_one();
    }
}

impl fmt::Debug for SpaceLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpaceLock").finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn write_regions(&self) -> RwLockWriteGuard<'_, Regions> {
        self.regions.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, region: Region) -> core::result::Result<(), Reason> {
        let span = region.span();
        if span.last().0 >> self.width != 0 {
            return Err(Reason::BeyondWidth { bits: self.width });
        }
        let mut regions = self.write_regions();
        regions.check_add(&region)?;
        let segment = match region.backing() {
            None => None,
            Some((object, offset)) => {
                let same = |placed: &Placed| {
                    let segment = placed.segment.as_ref()?;
                    segment.places(object, offset, span.start()).then(|| Arc::clone(segment))
                };
                let there = regions.iter().find_map(same);
                Some(match there {
                    Some(segment) => segment,
                    None => self.segments.add(object, offset, span.start())?,
                })
            }
        };
        regions.add(Placed { region, segment });
        // Nothing was there, so nothing can have been mapped.
        self.publish(&regions, span, None);
        Ok(())
    }

    fn set_access(
        &self,
        span: Span<GuestPhys>,
        access: Access,
    ) -> core::result::Result<Drain, Reason> {
        let mut regions = self.write_regions();
        check_change(&regions, span)?;
        let was = regions.set_access(span, access);
        let reduced = was.iter().any(|placed| !access.contains(placed.region.access()));
        let mut revocation = Revocation::default();
        self.publish(&regions, span, reduced.then_some(&mut revocation));
        Ok(self.drain(revocation, was))
    }

    fn set_tag(
        &self,
        span: Span<GuestPhys>,
        tag: u64,
        owner: Option<&str>,
    ) -> core::result::Result<(), Reason> {
        let mut regions = self.write_regions();
        check_change(&regions, span)?;
        regions.set_tag(span, tag, owner);
        Ok(())
    }

    fn remove(&self, span: Span<GuestPhys>) -> core::result::Result<Drain, Reason> {
        granular(span)?;
        let mut regions = self.write_regions();
        if regions.overlapping(span).next().is_none() {
            return Err(Reason::NotFound("region in the range"));
        }
        regions.check_cut(span)?;
        let removed = regions.remove(span);
        let mut revocation = Revocation::default();
        self.publish(&regions, span, Some(&mut revocation));
        let unused: Keep = removed
            .iter()
            .filter_map(|placed| placed.segment.clone())
            .filter(|segment| !regions.uses(segment))
            .collect();
        let drain = self.drain(revocation, removed);
        // No leaf names them any more, and the scan waited for every look-up that may
        // have seen one that did.
        unused.iter().for_each(|segment| self.segments.remove(segment));
        // Unmapping takes time, and nobody has to wait for it.
        drop(regions);
        Ok(drain)
    }

    /// Makes all views show `regions` in `changed`.
    fn publish(
        &self,
        regions: &Regions,
        changed: Span<GuestPhys>,
        mut revocation: Option<&mut Revocation>,
    ) {
        let mut writer = self.flat.writer();
        for (piece, behind) in pieces(regions, changed) {
            let start = DeviceAddr::identity(piece.start());
            let Ok(device) = Span::new(start, piece.len()) else { continue };
            match behind {
                Behind::Memory { .. } => {
                    self.flat.table.fill(&mut writer, device, Leaf::new(Access::RWX, behind));
                }
                Behind::Hole { .. } => self.flat.table.clear(&mut writer, device),
            }
            if let Some(revocation) = revocation.as_deref_mut() {
                revocation.range(self.flat.id(), device);
            }
        }
        drop(writer);
        for domain in self.lock_domains().iter().filter(|domain| domain.has_rules()) {
            let mut writer = domain.view.writer();
            let revocation = revocation.as_deref_mut();
            refresh(domain, &mut writer, regions, &self.segments, changed, revocation);
        }
    }

    /// Collects the mappings of what was changed, and frees what no reader is in any more.
    /// The caller holds the regions' lock for writing, so no view changes meanwhile.
    fn drain(&self, revocation: Revocation, was: Vec<Placed>) -> Drain {
        let domains = self.lock_domains();
        let views = domains.iter().filter(|domain| domain.has_rules()).map(|domain| &domain.view);
        let mut writers: Vec<_> =
            core::iter::once(&self.flat).chain(views).map(|view| view.writer()).collect();
        let keep = || was.into_iter().filter_map(|placed| placed.segment).collect();
        let drain = revocation.scan(self.policy, keep);
        for writer in &mut writers {
            // SAFETY: the scan waited for every reader that was in any table, and the
            // writers are locked since before it.
            unsafe { writer.free_retired() };
        }
        drain
    }
}

/// Whether there are regions in all of `span`, which can be split at its ends.
fn check_change(regions: &Regions, span: Span<GuestPhys>) -> core::result::Result<(), Reason> {
    granular(span)?;
    if let Some((hole, _)) =
        pieces(regions, span).find(|(piece, _)| regions.at(piece.start()).is_none())
    {
        return Err(Reason::NoMemory { at: hole.start().0 });
    }
    regions.check_cut(span)
}

fn granular(span: Span<GuestPhys>) -> core::result::Result<(), Reason> {
    match span.is_granular() {
        true => Ok(()),
        false => Err(Reason::Invalid("the range must start and end on a multiple of 4 KiB")),
    }
}

const _: () = assert!(GRANULE == 4096, "the messages above say 4 KiB");
