//! A guest's address space: queries, and single changes.

use core::fmt;
use std::sync::Arc;

use super::inner::Inner;
use super::listener::SpaceListener;
use super::space_lock::SpaceLock;
use crate::access::Access;
use crate::addr::GuestPhys;
use crate::error::{Error, Operation, Result};
use crate::mapping::Drain;
use crate::memory::MemoryObject;
use crate::space::{Region, Search, Walk, WalkEntry};
use crate::span::Span;

/// A guest's physical address space: its regions.
///
/// Each change takes the [`lock`](Self::lock) for itself; make several that belong together
/// under one lock.
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

    /// Takes the lock that allows changes of the regions, and waits while another thread holds
    /// it.
    ///
    /// # Errors
    /// `EBUSY` if this thread already holds it: make the change through that lock. `EDEADLK`
    /// inside a look-up of a device (decision 22).
    pub fn lock(&self) -> Result<SpaceLock> {
        SpaceLock::new(self.guest)
    }

    /// Adds a region. Grants of its addresses that devices already have lead to it from now on.
    ///
    /// # Errors
    /// `EINVAL` if it is memory and does not start and end on a multiple of 4 KiB, also in its
    /// object (registers and reserved ranges can have any length); `ENXIO` if it extends past the guest's address
    /// width; `EEXIST` if it overlaps another region; `ENOSPC` if there are 65,536 regions or
    /// 1,024 memory objects; `EBUSY` and `EDEADLK` as for [`lock`](Self::lock).
    pub fn add(&self, region: Region) -> Result<()> {
        self.lock()?.add(region)
    }

    /// Adds all of `object` as RAM at `start`, or after the highest RAM or ROM, and returns its
    /// guest-physical address.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_ram(&self, start: Option<GuestPhys>, object: &MemoryObject) -> Result<GuestPhys> {
        self.lock()?.add_ram(start, object)
    }

    /// Adds all of `object` as ROM at `start`, or after the highest RAM or ROM, and returns its
    /// guest-physical address.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_rom(&self, start: Option<GuestPhys>, object: &MemoryObject) -> Result<GuestPhys> {
        self.lock()?.add_rom(start, object)
    }

    /// Changes the access that the memory in `span` offers, splitting regions at its ends. A
    /// region never offers more than its kind and its memory allow. If access is reduced,
    /// mappings of the range are revoked as by [`remove`](Self::remove).
    ///
    /// # Errors
    /// `EINVAL` if the range begins or ends inside a page of memory; `ENXIO` if part of it has
    /// no region; `ENOSPC` if splitting would exceed 65,536 regions; `EBUSY` and `EDEADLK` as
    /// for [`lock`](Self::lock).
    ///
    /// # Deadlocks
    /// The drain never ends if it is waited for by the only thread that can unmap one of the
    /// mappings: call [`held_by_this_thread`](Self::held_by_this_thread) before, or
    /// [`Drain::held_by_this_thread`] after (decision 22).
    pub fn set_access(&self, span: Span<GuestPhys>, access: Access) -> Result<Drain> {
        self.lock()?.set_access(span, access)
    }

    /// Sets the [tag](Region::tagged) and the owner of the regions in `span`, splitting them at
    /// its ends.
    ///
    /// # Errors
    /// As [`set_access`](Self::set_access).
    #[doc(hidden)]
    pub fn set_tag(&self, span: Span<GuestPhys>, tag: u64, owner: Option<&str>) -> Result<()> {
        self.lock()?.set_tag(span, tag, owner)
    }

    /// Removes the regions in `span`, splitting those at its ends. After this call new maps of
    /// the range fail; the drain waits for the mappings that are held, and their memory stays
    /// mapped as long (decision 16).
    ///
    /// # Errors
    /// `EINVAL` if the range begins or ends inside a page of memory; `ENOENT` if there is no
    /// region in it; `ENOSPC` if splitting would exceed 65,536 regions; `EBUSY` and `EDEADLK` as
    /// for [`lock`](Self::lock).
    ///
    /// # Deadlocks
    /// As for [`set_access`](Self::set_access).
    pub fn remove(&self, span: Span<GuestPhys>) -> Result<Drain> {
        self.lock()?.remove(span)
    }

    /// Adds a listener to changes of the regions. All regions that there are come for it at once.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    ///
    /// use gasp::{Guest, MemoryObject, SpaceChange, SpaceListener};
    ///
    /// /// Where guest memory is, for a kernel that is told the same.
    /// #[derive(Default)]
    /// struct Slots(Mutex<Vec<(u64, *mut u8, u64)>>);
    /// # unsafe impl Send for Slots {}
    /// # unsafe impl Sync for Slots {}
    ///
    /// impl SpaceListener for Slots {
    ///     fn after(&self, change: &SpaceChange) {
    ///         let mut slots = self.0.lock().unwrap();
    ///         slots.retain(|slot| change.outgoing.iter().all(|gone| gone.span().start().0 != slot.0));
    ///         for region in &change.incoming {
    ///             if let Some(pointer) = region.as_ptr() {
    ///                 slots.push((region.span().start().0, pointer, region.span().len()));
    ///             }
    ///         }
    ///     }
    /// }
    ///
    /// let guest = Guest::builder().build()?;
    /// let slots = Arc::new(Slots::default());
    /// guest.space().add_listener(slots.clone())?;
    /// let ram = MemoryObject::ram(2 << 20).create()?;
    /// guest.space().add_ram(None, &ram)?;
    /// assert_eq!(*slots.0.lock().unwrap(), [(0, ram.as_ptr(), 2 << 20)]);
    /// # Ok::<(), gasp::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errno of the listener's reason if it refuses the regions; `EBUSY` and `EDEADLK` as for
    /// [`lock`](Self::lock).
    pub fn add_listener(&self, listener: Arc<dyn SpaceListener>) -> Result<()> {
        self.lock()?.add_listener(listener)
    }

    /// Removes a listener, for which all regions go. Returns whether there was this one.
    ///
    /// # Errors
    /// `EBUSY` and `EDEADLK` as for [`lock`](Self::lock).
    pub fn remove_listener(&self, listener: &Arc<dyn SpaceListener>) -> Result<bool> {
        Ok(self.lock()?.remove_listener(listener))
    }

    /// The lowest range without regions that satisfies `search`. It is not reserved: hold the
    /// [`lock`](Self::lock) until a region is added there.
    ///
    /// # Errors
    /// `EINVAL` for a size of 0 or an alignment that is not a power of two; `ENOSPC` if there is
    /// no such range.
    pub fn find_free(&self, search: Search) -> Result<Span<GuestPhys>> {
        let found = self.guest.read_regions().find_free(search, self.guest.physical.width);
        found.map_err(|reason| Error::new(Operation::FindFree, search.min, search.size, reason))
    }

    /// Claims the lowest range inside RAM or ROM that satisfies `search` and is not yet claimed.
    /// For loaders, before the guest runs.
    ///
    /// # Errors
    /// As [`find_free`](Self::find_free).
    pub fn claim_free(&self, search: Search) -> Result<Span<GuestPhys>> {
        let found = self.guest.write_regions().claim_free(search);
        found.map_err(|reason| Error::new(Operation::FindFree, search.min, search.size, reason))
    }

    /// Claims a range inside RAM or ROM, so that [`claim_free`](Self::claim_free) does not return
    /// it.
    ///
    /// # Errors
    /// `ENXIO` if part of it is not RAM or ROM; `EEXIST` if part of it is claimed.
    pub fn claim(&self, span: Span<GuestPhys>) -> Result<()> {
        let claimed = self.guest.write_regions().claim(span);
        claimed.map_err(|reason| Error::new(Operation::Reserve, span.start(), span.len(), reason))
    }

    /// The region that contains an address, if there is one.
    pub fn region_at(&self, addr: GuestPhys) -> Option<Region> {
        self.guest.read_regions().at(addr).map(|placed| placed.region.clone())
    }

    /// All regions, in order of address.
    pub fn regions(&self) -> Vec<Region> {
        self.guest.read_regions().iter().map(|placed| placed.region.clone()).collect()
    }

    /// The entries of RAM and ROM, in order of address.
    pub fn walk(&self, walk: Walk) -> Vec<WalkEntry> {
        // Over a copy: no thread waits for the lock while host-physical runs are looked up.
        let regions = self.guest.read_regions().clone();
        regions.walk(walk).collect()
    }

    /// The first entry of [`walk`](Self::walk) at or after `from`; it begins at `from` if
    /// that is in RAM or ROM. For callers that go step by step while regions may change.
    #[doc(hidden)]
    pub fn walk_from(&self, from: GuestPhys, walk: Walk) -> Option<WalkEntry> {
        self.guest.read_regions().walk_from(from, walk)
    }

    /// The size in bytes of the nodes of the guest's own table, not counting the tables of
    /// domains and of memory objects.
    pub fn table_bytes(&self) -> usize {
        self.guest.flat.writer().bytes()
    }
}

impl fmt::Debug for AddressSpace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.regions()).finish()
    }
}
