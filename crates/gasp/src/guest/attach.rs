//! The domain of a device: attaching, moving, detaching, and removing the device.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use super::domain::Domain;
use super::vdev::Vdev;
use crate::error::{Operation, Reason, Result};
use crate::iommu::DomainInner;
use crate::mapping::{Drain, DrainPolicy, Keep, Revocation, check_not_looking_up};
use crate::space::Regions;
use crate::view::View;

impl Vdev {
    /// Attaches the device to a domain, or moves it there from another domain of the same owner.
    /// Its mappings through the old domain are revoked, and the drain waits for them. (A move
    /// from one bypass to another changes nothing, and revokes nothing.)
    ///
    /// # Errors
    /// `EINVAL` if the domain belongs to another guest; `EBUSY` if the device is attached to a
    /// domain of another owner; `ENOENT` if the domain or the device was removed; `EDEADLK` inside
    /// a look-up of a device (decision 22).
    ///
    /// # Deadlocks
    /// The drain never ends if it is waited for by the only thread that can unmap one of the
    /// mappings: call [`held_by_this_thread`](Self::held_by_this_thread) before, or
    /// [`Drain::held_by_this_thread`] after (decision 22).
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
        let old = current.set(Some(Arc::clone(&domain.inner)));
        let moved = self.switch(&regions, &domain.inner.view, old.as_deref());
        drop((current, vdevs, regions));
        Ok(moved.scan())
    }

    /// Detaches the device from its domain. Its mappings through the domain are revoked, and the
    /// drain waits for them. For a device that is attached to no domain nothing changes.
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

    /// Detaches the device. The caller holds the guest's lock of devices.
    fn detach_under(&self, regions: &Regions) -> Moved {
        let mut current = self.inner.domain();
        let old = current.set(None);
        let view = match self.inner.removed.load(Ordering::Relaxed) {
            true => &self.guest.unattached_denied,
            false => self.guest.unattached_view(),
        };
        self.switch(regions, view, old.as_deref())
    }

    /// Removes the device from its guest, and releases its name. From now on every access is
    /// refused, even if unattached devices reach all memory; the drain waits for the device's
    /// mappings.
    ///
    /// # Deadlocks
    /// As [`detach`](Self::detach).
    pub fn remove(self) -> Drain {
        let regions = self.guest.read_regions();
        let mut vdevs = self.guest.lock_vdevs();
        // A removed device must not be attached again: it would not be on the list in which
        // `Domain::remove` looks for attached devices.
        if !self.inner.removed.swap(true, Ordering::Relaxed) {
            vdevs.remove(&self.inner.name);
        }
        let moved = self.detach_under(&regions);
        drop((vdevs, regions));
        moved.scan()
    }

    /// Changes the view that the device's addresses go through.
    fn switch(&self, regions: &Regions, new: &Arc<View>, old: Option<&DomainInner>) -> Moved {
        let old_view = old.map_or(self.guest.unattached_view(), |old| &old.view);
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
}

/// A device that was moved to another view, before the scan for its mappings, which is made
/// without locks so that no thread waits for it.
struct Moved {
    revocation: Revocation,
    policy: DrainPolicy,
    /// The memory that the mappings can be of: the domain may be freed before they end.
    keep: Keep,
    /// The old view: look-ups may be in it until the scan.
    _old: Arc<View>,
}

impl Moved {
    fn scan(self) -> Drain {
        self.revocation.scan(self.policy, || self.keep)
    }
}
