//! Virtual devices: an identity, and the domain that its addresses go through.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Guest;
use super::domain::Domain;
use super::inner::{Inner, VdevInner};
use crate::addr::DeviceAddr;
use crate::error::{Operation, Reason, Result};
use crate::iommu::DomainInner;
use crate::map_flags::MapFlags;
use crate::mapping::{
    Drain, DrainPolicy, HostMapping, Keep, Mapping, Partial, Port, Revocation, Scatter, Stitched,
    check_not_looking_up, own,
};
use crate::space::Regions;
use crate::view::{Attachment, View};

/// The most devices a guest can have.
const VDEVS_MAX: usize = 1 << 16;

/// A virtual device: what makes the DMA.
///
/// Clones are the same device. Every map goes through the domain that the device is
/// attached to; see [`Guest::domain`].
#[derive(Clone)]
pub struct Vdev {
    pub(super) inner: Arc<VdevInner>,
    pub(super) guest: Arc<Inner>,
}

impl Guest {
    /// A new device of this name, attached to no domain.
    ///
    /// # Errors
    /// `EEXIST` where the guest has one of this name; `ENOSPC` where it has 65,536.
    pub fn vdev(&self, name: &str) -> Result<Vdev> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let fail = |reason| Err(self.0.error(Operation::Create, name, reason));
        if let Err(reason) = check_not_looking_up() {
            return fail(reason);
        }
        let mut vdevs = self.0.lock_vdevs();
        if vdevs.contains_key(name) {
            return fail(Reason::NameTaken("a device"));
        }
        if vdevs.len() >= VDEVS_MAX {
            return fail(Reason::Limit { what: "devices", limit: VDEVS_MAX as u64 });
        }
        let name: Arc<str> = Arc::from(name);
        let inner = Arc::new(VdevInner {
            name: Arc::clone(&name),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            attachment: Attachment::new(self.0.view_unattached()),
            domain: Mutex::default(),
            removed: AtomicBool::new(false),
        });
        vdevs.insert(name, Arc::clone(&inner));
        Ok(Vdev { inner, guest: Arc::clone(&self.0) })
    }

    /// The device of this name, if the guest has one.
    pub fn find_vdev(&self, name: &str) -> Option<Vdev> {
        let inner = Arc::clone(self.0.lock_vdevs().get(name)?);
        Some(Vdev { inner, guest: Arc::clone(&self.0) })
    }

    /// All devices, by name.
    pub fn vdevs(&self) -> Vec<Vdev> {
        let vdevs = self.0.lock_vdevs();
        let guest = &self.0;
        vdevs
            .values()
            .map(|inner| Vdev { inner: Arc::clone(inner), guest: Arc::clone(guest) })
            .collect()
    }
}

impl Vdev {
    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Maps all of `[addr, addr + len)`, or nothing.
    ///
    /// # Errors
    /// In the order of decision 1:
    /// * `EINVAL`: the length is 0;
    /// * `ENXIO`: the range wraps or passes the guest's address width;
    /// * `EFAULT`: the guest's IOMMU does not let this device at all of the range with
    ///   this access; a fault record is left;
    /// * `ENXIO`: there is no memory at part of the range, or only of a kind that the
    ///   flags do not accept; `EACCES`: it is ROM and write access was asked for;
    /// * `ENXIO`: the memory is not consecutive ([`Reason::NotConsecutive`] says how far
    ///   it is; [`map_scatter`](Self::map_scatter) gives all of it).
    #[inline]
    pub fn map(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping> {
        match Self::map_page_of(|| Some(self), addr, len, flags) {
            Some(mapping) => Ok(mapping),
            None => self.map_any(addr, len, flags),
        }
    }

    /// The way of [`map`](Self::map) that knows all cases, out of line.
    #[cold]
    #[inline(never)]
    fn map_any(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping> {
        self.port().map(Operation::Map, addr.0, len, flags)
    }

    /// As [`map`](Self::map) of the device that `find` finds, where that takes one look at
    /// one page of the domain's table; `None` otherwise, which says nothing about why.
    ///
    /// `find` may use what it finds in a list that others take things out of, as in a
    /// [`Section`](crate::ffi::Section), and at less cost. For front ends whose callers name
    /// devices by number.
    ///
    /// Every revoke in the process waits for `find`, and with locks held: it must be short, wait
    /// for nothing, and change nothing. What changes a guest, domain or device and can fail is
    /// refused inside it with `EDEADLK`; what cannot fail ([`detach`](Self::detach),
    /// [`remove`](Self::remove), [`grace_period`](crate::ffi::grace_period), dropping a guest) and
    /// what takes a guest's locks to read its state can deadlock there.
    #[inline(always)]
    #[doc(hidden)]
    pub fn map_page_of<'list>(
        find: impl FnOnce() -> Option<&'list Self>,
        addr: DeviceAddr,
        len: u64,
        flags: MapFlags,
    ) -> Option<Mapping> {
        Port::map_page(|| find().map(Self::port), addr.0, len, flags)
    }

    /// The same for [`map_host_contig`](Self::map_host_contig).
    #[inline(always)]
    pub fn map_host_contig_page_of<'list>(
        find: impl FnOnce() -> Option<&'list Self>,
        addr: DeviceAddr,
        max: u64,
        flags: MapFlags,
    ) -> Option<HostMapping> {
        Port::map_host_contig_page(|| find().map(Self::port), addr.0, max, flags)
    }

    /// Maps from `addr` on as much, up to `max` bytes, as is consecutive in
    /// host-physical memory: [`HostMapping::run`] is where it is there, and how much, never
    /// 0 (decision 7). Call again behind it for the rest.
    ///
    /// The whole range must be allowed and be memory (decisions 8 and 9).
    ///
    /// # Errors
    /// As [`map`](Self::map), except that the memory need not be consecutive; `EPERM`
    /// if host-physical addresses are not known (decision 19); `EAGAIN` if the address can
    /// change and the guest does not [allow](crate::GuestBuilder::allow_unpinned) that
    /// (decision 20).
    #[inline]
    pub fn map_host_contig(
        &self,
        addr: DeviceAddr,
        max: u64,
        flags: MapFlags,
    ) -> Result<HostMapping> {
        match Self::map_host_contig_page_of(|| Some(self), addr, max, flags) {
            Some(mapping) => Ok(mapping),
            None => self.map_host_contig_any(addr, max, flags, Partial::Refuse),
        }
    }

    /// As [`map_host_contig`](Self::map_host_contig), but the mapping also ends where what
    /// the guest's IOMMU allows, memory, or the guest's address width does (decision 9).
    ///
    /// # Errors
    /// As [`map_host_contig`](Self::map_host_contig), if not even the first byte can be
    /// mapped.
    #[inline]
    pub fn map_host_contig_truncated(
        &self,
        addr: DeviceAddr,
        max: u64,
        flags: MapFlags,
    ) -> Result<HostMapping> {
        match Self::map_host_contig_page_of(|| Some(self), addr, max, flags) {
            Some(mapping) => Ok(mapping),
            None => self.map_host_contig_any(addr, max, flags, Partial::Truncate),
        }
    }

    /// The way of both that knows all cases, out of line.
    #[cold]
    #[inline(never)]
    fn map_host_contig_any(
        &self,
        addr: DeviceAddr,
        max: u64,
        flags: MapFlags,
        partial: Partial,
    ) -> Result<HostMapping> {
        self.port().map_host_contig(addr.0, max, flags, partial)
    }

    /// Maps all of `[addr, addr + len)`, in as many pieces as it takes.
    ///
    /// # Errors
    /// As [`map`](Self::map), except that the memory need not be consecutive.
    pub fn map_scatter(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Scatter> {
        self.port().map_scatter(Operation::MapScatter, addr.0, len, flags)
    }

    /// Maps all of `[addr, addr + len)` at consecutive addresses, by mapping its pieces
    /// side by side if need be (decision 21). This takes system calls; keep it for
    /// mappings that are used for long.
    ///
    /// # Errors
    /// As [`map_scatter`](Self::map_scatter); `EINVAL` where the pieces are not whole
    /// pages of their backing, or are memory without a descriptor; any mmap() error.
    pub fn map_stitched(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Stitched> {
        self.port().map_stitched(addr.0, len, flags)
    }

    /// Copies out of guest memory: all of `into`, or nothing.
    ///
    /// # Errors
    /// As [`map_scatter`](Self::map_scatter) with read access.
    pub fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> Result<()> {
        self.port().read(addr.0, into, MapFlags::READ)
    }

    /// Copies into guest memory: all of `from`, or nothing.
    ///
    /// # Errors
    /// As [`map_scatter`](Self::map_scatter) with write access.
    pub fn write(&self, addr: DeviceAddr, from: &[u8]) -> Result<()> {
        self.port().write(addr.0, from, MapFlags::WRITE)
    }

    /// Attaches the device to a domain, or moves it there from another of the same owner.
    /// Its mappings through the old one are revoked; the drain waits for them. (From one
    /// bypass to another nothing changes, and nothing is revoked.)
    ///
    /// # Errors
    /// `EBUSY` where the device belongs to a domain of another owner; `EINVAL` where the
    /// domain belongs to another guest; `ENOENT` where domain or device has been removed.
    ///
    /// # Deadlocks
    /// Waited for by the thread that alone can unmap one of those mappings, the drain never
    /// ends: ask [`held_by_this_thread`](Self::held_by_this_thread) first, or
    /// [`Drain::held_by_this_thread`].
    pub fn attach(&self, domain: &Domain) -> Result<Drain> {
        let fail = |reason| Err(self.guest.error(Operation::Attach, &self.inner.name, reason));
        if let Err(reason) = check_not_looking_up() {
            return fail(reason);
        }
        if !Arc::ptr_eq(&self.guest, &domain.guest) {
            return fail(Reason::Invalid("the domain belongs to another guest"));
        }
        let regions = self.guest.read_regions();
        let vdevs = self.guest.lock_vdevs();
        let mut current = self.inner.domain();
        if current.as_ref().is_some_and(|old| old.owner != domain.inner.owner) {
            return fail(Reason::OtherOwner);
        }
        if domain.inner.is_removed() {
            return fail(Reason::NotFound("domain of this name any more"));
        }
        if self.inner.removed.load(Ordering::Relaxed) {
            return fail(Reason::NotFound("device of this name any more"));
        }
        let old = current.replace(Arc::clone(&domain.inner));
        let moved = self.switch(&regions, &domain.inner.view, old.as_deref());
        drop((current, vdevs, regions));
        Ok(moved.scan())
    }

    /// Takes the device out of its domain. Its mappings through it are revoked; the
    /// drain waits for them. A device that is in none stays as it is.
    ///
    /// # Deadlocks
    /// As [`attach`](Self::attach).
    pub fn detach(&self) -> Drain {
        let regions = self.guest.read_regions();
        let vdevs = self.guest.lock_vdevs();
        let moved = self.detach_under(&regions);
        drop((vdevs, regions));
        moved.scan()
    }

    /// The caller holds the guest's lock of devices.
    fn detach_under(&self, regions: &Regions) -> Moved {
        let mut current = self.inner.domain();
        let old = current.take();
        let view = match self.inner.removed.load(Ordering::Relaxed) {
            true => &self.guest.unattached,
            false => self.guest.view_unattached(),
        };
        self.switch(regions, view, old.as_deref())
    }

    /// How many mappings of the device, through the domain it is in, this thread has made and
    /// are still held: what [`attach`](Self::attach), [`detach`](Self::detach) and
    /// [`remove`](Self::remove) wait for, and only another thread could unmap meanwhile.
    pub fn held_by_this_thread(&self) -> usize {
        let current = self.inner.domain();
        let view =
            current.as_ref().map_or(self.guest.view_unattached(), |domain| &domain.view).id();
        drop(current);
        own().filter(|found| found.view == view && found.vdev == self.inner.id).count()
    }

    /// The domain it is attached to.
    pub fn domain(&self) -> Option<Domain> {
        let inner = Arc::clone(self.inner.domain().as_ref()?);
        Some(Domain { inner, guest: Arc::clone(&self.guest) })
    }

    /// The guest that the device is part of.
    pub fn guest(&self) -> Guest {
        Guest(Arc::clone(&self.guest))
    }

    /// Removes the device from its guest and makes its name free. It is refused everything
    /// from now on, also where unattached devices reach all memory; the drain waits for
    /// its mappings.
    ///
    /// # Deadlocks
    /// As [`detach`](Self::detach).
    pub fn remove(self) -> Drain {
        let regions = self.guest.read_regions();
        let mut vdevs = self.guest.lock_vdevs();
        // A removed device must not be attached again: nobody would see that its domain
        // is in use.
        if !self.inner.removed.swap(true, Ordering::Relaxed) {
            vdevs.remove(&self.inner.name);
        }
        let moved = self.detach_under(&regions);
        drop((vdevs, regions));
        moved.scan()
    }

    /// Sends the device's addresses through another view.
    fn switch(&self, regions: &Regions, new: &Arc<View>, old: Option<&DomainInner>) -> Moved {
        let old_view = old.map_or(self.guest.view_unattached(), |old| &old.view);
        let policy = old.map_or(self.guest.policy, |old| old.policy);
        let mut revocation = Revocation::default();
        let mut keep = Keep::new();
        if !self.inner.attachment.is(new) {
            self.inner.attachment.set(new);
            revocation.vdev(old_view.id(), self.inner.id);
            keep = regions.all_segments();
        }
        Moved { revocation, policy, keep, _old: Arc::clone(old_view) }
    }

    #[inline]
    fn port(&self) -> Port<'_> {
        Port {
            attachment: &self.inner.attachment,
            guest: &self.guest.physical,
            vdev: self.inner.id,
            device: Some((&self.inner.name, &self.guest.faults)),
        }
    }
}

/// A device that was moved, whose mappings are still to be looked for: without a lock, so
/// that nobody waits meanwhile.
struct Moved {
    revocation: Revocation,
    policy: DrainPolicy,
    /// What the mappings can be of: the domain may go before they do.
    keep: Keep,
    /// Look-ups may be in it until the scan.
    _old: Arc<View>,
}

impl Moved {
    fn scan(self) -> Drain {
        self.revocation.scan(self.policy, || self.keep)
    }
}

impl fmt::Debug for Vdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vdev").field("name", &self.inner.name).finish_non_exhaustive()
    }
}
