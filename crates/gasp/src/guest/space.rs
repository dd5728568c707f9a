//! A guest's address space: what is asked of it, and single changes.

use core::fmt;
use std::sync::Arc;

use super::inner::Inner;
use super::space_lock::SpaceLock;
use crate::access::Access;
use crate::addr::GuestPhys;
use crate::error::{Error, Operation, Result};
use crate::mapping::Drain;
use crate::memory::MemoryObject;
use crate::space::{Region, Search, Walk, WalkEntry};
use crate::span::Span;

/// The regions of a guest's physical memory.
///
/// Single changes are made here; several that belong together, under one
/// [`lock`](Self::lock).
#[derive(Clone, Copy)]
pub struct AddressSpace<'a> {
    guest: &'a Arc<Inner>,
}

impl<'a> AddressSpace<'a> {
    pub(super) fn new(guest: &'a Arc<Inner>) -> Self {
        Self { guest }
    }

    pub(super) fn inner(&self) -> &Inner {
        self.guest
    }

    /// The right to change the regions, until the result is dropped; other threads wait.
    ///
    /// # Errors
    /// `EBUSY` where this thread has it already: make the change through that lock.
    pub fn lock(&self) -> Result<SpaceLock> {
        SpaceLock::new(self.guest)
    }

    /// Adds a region. Grants that devices have for its addresses lead to it from now on.
    ///
    /// # Errors
    /// `EINVAL` if it is memory and does not start and end on a multiple of 4 KiB (registers
    /// and reserved ranges can have any length); `ENXIO` where it
    /// passes the guest's address width; `EEXIST` where it overlaps another; `ENOSPC`
    /// where there are 65,536 regions or 1,024 memory objects; `EBUSY` where this thread
    /// holds the [`lock`](Self::lock); `EDEADLK` as for that.
    pub fn add(&self, region: Region) -> Result<()> {
        self.lock()?.add(region)
    }

    /// Adds all of `object` as RAM at `start`, or after the highest RAM or ROM; gives
    /// back where that is.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_ram(&self, start: Option<GuestPhys>, object: &MemoryObject) -> Result<GuestPhys> {
        self.lock()?.add_ram(start, object)
    }

    /// Adds all of `object` as ROM at `start`, or after the highest RAM or ROM; gives
    /// back where that is.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_rom(&self, start: Option<GuestPhys>, object: &MemoryObject) -> Result<GuestPhys> {
        self.lock()?.add_rom(start, object)
    }

    /// Changes what the memory in `span` offers, splitting regions at its ends. A region
    /// never offers more than its kind and its memory allow. Where something is taken
    /// away, mappings of it are revoked as by [`remove`](Self::remove).
    ///
    /// # Errors
    /// `EINVAL` if the range begins or ends inside a page of memory; `ENXIO`
    /// where part of it has no region; `ENOSPC` where a split would make too many regions;
    /// `EBUSY` and `EDEADLK` as for [`add`](Self::add).
    ///
    /// # Deadlocks
    /// Waited for by the thread that alone can unmap one of the mappings, the drain never ends:
    /// ask [`held_by_this_thread`](Self::held_by_this_thread) first, or
    /// [`Drain::held_by_this_thread`] of the drain.
    pub fn set_access(&self, span: Span<GuestPhys>, access: Access) -> Result<Drain> {
        self.lock()?.set_access(span, access)
    }

    /// Gives the regions in `span` a [tag](Region::tagged) and an owner, splitting them at
    /// its ends.
    ///
    /// # Errors
    /// As [`set_access`](Self::set_access).
    #[doc(hidden)]
    pub fn set_tag(&self, span: Span<GuestPhys>, tag: u64, owner: Option<&str>) -> Result<()> {
        self.lock()?.set_tag(span, tag, owner)
    }

    /// Removes everything in `span`, splitting regions at its ends. No new map of it
    /// succeeds; the drain waits for those that are held, and the memory stays until
    /// then (decision 16).
    ///
    /// # Errors
    /// `EINVAL` if the range begins or ends inside a page of memory; `ENOENT`
    /// where no region is in it; `ENOSPC` where a split would make too many regions;
    /// `EBUSY` and `EDEADLK` as for [`add`](Self::add).
    ///
    /// # Deadlocks
    /// As for [`set_access`](Self::set_access).
    pub fn remove(&self, span: Span<GuestPhys>) -> Result<Drain> {
        self.lock()?.remove(span)
    }

    /// The lowest range without any region. It is not kept: hold the
    /// [`lock`](Self::lock) until it is used.
    ///
    /// # Errors
    /// `EINVAL` for a size of 0 or an alignment that is no power of two; `ENOSPC` where
    /// nothing fits.
    pub fn find_free(&self, search: Search) -> Result<Span<GuestPhys>> {
        let found = self.guest.read_regions().find_free(search, self.guest.physical.width);
        found.map_err(|reason| Error::new(Operation::FindFree, search.min, search.size, reason))
    }

    /// The lowest range inside RAM or ROM that nobody has claimed; it is claimed by
    /// this call. For loaders, before the guest runs.
    ///
    /// # Errors
    /// As [`find_free`](Self::find_free).
    pub fn claim_free(&self, search: Search) -> Result<Span<GuestPhys>> {
        let found = self.guest.write_regions().claim_free(search);
        found.map_err(|reason| Error::new(Operation::FindFree, search.min, search.size, reason))
    }

    /// Claims a range inside RAM or ROM, so that [`claim_free`](Self::claim_free) leaves
    /// it out.
    ///
    /// # Errors
    /// `ENXIO` where part of it is no RAM or ROM; `EEXIST` where part is claimed.
    pub fn claim(&self, span: Span<GuestPhys>) -> Result<()> {
        let claimed = self.guest.write_regions().claim(span);
        claimed.map_err(|reason| Error::new(Operation::Reserve, span.start(), span.len(), reason))
    }

    /// The region at an address, if there is one.
    pub fn region_at(&self, addr: GuestPhys) -> Option<Region> {
        self.guest.read_regions().at(addr).map(|placed| placed.region.clone())
    }

    /// All regions, in order.
    pub fn regions(&self) -> Vec<Region> {
        self.guest.read_regions().iter().map(|placed| placed.region.clone()).collect()
    }

    /// The entries of RAM and ROM, in order.
    pub fn walk(&self, walk: Walk) -> Vec<WalkEntry> {
        // Over a copy: nobody waits for the lock while host-physical runs are looked up.
        let regions = self.guest.read_regions().clone();
        regions.walk(walk).collect()
    }

    /// The first entry of [`walk`](Self::walk) at or after `from`; it begins at `from` if
    /// that is in RAM or ROM. For callers that go step by step while regions may change.
    #[doc(hidden)]
    pub fn walk_from(&self, from: GuestPhys, walk: Walk) -> Option<WalkEntry> {
        self.guest.read_regions().walk_from(from, walk)
    }

    /// The bytes that the guest's own table takes, without those of memory objects and
    /// domains.
    pub fn table_bytes(&self) -> usize {
        self.guest.flat.writer().bytes()
    }
}

impl fmt::Debug for AddressSpace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.regions()).finish()
    }
}
