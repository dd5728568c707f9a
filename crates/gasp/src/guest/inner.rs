//! The state of a guest and of a device, behind their handles.

use core::sync::atomic::AtomicBool;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::attached::{Attached, AttachedGuard};
use super::listener::SpaceListener;
use crate::error::{Error, Operation, Reason};
use crate::fault::FaultLog;
use crate::iommu::{DomainInner, GuestMemory, Unattached};
use crate::mapping::{DrainPolicy, Keep, Physical, Port, Revocation};
use crate::space::Regions;
use crate::thread_lock::ThreadLock;
use crate::view::View;
use crate::view::attachment::Attachment;

/// A guest, behind its handles.
pub(crate) struct Inner {
    pub(crate) name: Box<str>,
    pub(crate) physical: Physical,
    pub(crate) iommu: Option<Unattached>,
    pub(crate) policy: DrainPolicy,
    pub(crate) faults: FaultLog,
    pub(crate) edit: ThreadLock,
    /// Those who follow the regions; changed under the edit lock.
    pub(super) listeners: Mutex<Vec<Arc<dyn SpaceListener>>>,
    /// Held while listeners are called. The edit lock does not keep the thread that holds it from
    /// making a change in one of them.
    pub(super) announcing: Mutex<()>,
    pub(crate) regions: RwLock<Regions>,
    pub(crate) domains: Mutex<Vec<Arc<DomainInner>>>,
    pub(crate) vdevs: Mutex<BTreeMap<Arc<str>, Arc<VdevInner>>>,
    /// All memory, untranslated: for firmware, and for devices without an IOMMU.
    pub(crate) flat: Arc<View>,
    /// Refuses everything: for devices that are attached to no domain, if those are denied.
    pub(crate) unattached_denied: Arc<View>,
    /// Refuses everything: for domains that deny.
    pub(crate) denied: Arc<View>,
    /// The firmware's attachment, which is always the flat view.
    pub(crate) firmware: Attachment,
}

/// A device, behind its handles.
pub(crate) struct VdevInner {
    pub(super) name: Arc<str>,
    pub(super) id: u32,
    pub(super) attachment: Attachment,
    pub(super) domain: Attached,
    /// Whether the device was removed from the guest; set under the guest's lock of devices.
    pub(super) removed: AtomicBool,
}

impl VdevInner {
    pub(super) fn domain(&self) -> AttachedGuard<'_> {
        self.domain.lock()
    }
}

impl Inner {
    pub(crate) fn firmware_port(&self) -> Port<'_> {
        Port { attachment: &self.firmware, guest: &self.physical, vdev: 0, device: None }
    }

    pub(crate) fn lock_domains(&self) -> MutexGuard<'_, Vec<Arc<DomainInner>>> {
        self.domains.lock()
    }

    pub(crate) fn lock_vdevs(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<VdevInner>>> {
        self.vdevs.lock()
    }

    pub(crate) fn read_regions(&self) -> RwLockReadGuard<'_, Regions> {
        self.regions.read()
    }

    pub(crate) fn write_regions(&self) -> RwLockWriteGuard<'_, Regions> {
        self.regions.write()
    }

    /// The memory that grants of domains lead to.
    pub(crate) fn memory(&self) -> GuestMemory<'_> {
        GuestMemory { regions: &self.regions, segments: &self.physical.segments }
    }

    /// The view of a device that is attached to no domain (decisions 13 and 14).
    pub(crate) fn unattached_view(&self) -> &Arc<View> {
        match self.iommu {
            Some(Unattached::Deny) => &self.unattached_denied,
            Some(Unattached::Bypass) | None => &self.flat,
        }
    }

    /// An error about a guest, domain or device as a whole, without an address.
    pub(crate) fn error(&self, op: Operation, name: &str, reason: Reason) -> Error {
        Error::whole(op, reason).of(&Arc::from(name))
    }
}

impl Regions {
    /// All segments that the regions name: the memory that a mapping can be of.
    pub(crate) fn all_segments(&self) -> Keep {
        let mut keep: Keep = self.iter().filter_map(|placed| placed.segment.clone()).collect();
        keep.dedup_by(|a, b| Arc::ptr_eq(a, b));
        keep
    }
}

impl Drop for Inner {
    /// Revokes all mappings. Those that are still held keep their memory; everything else is
    /// freed.
    fn drop(&mut self) {
        let mut revocation = Revocation::default();
        revocation.view(self.flat.id());
        for domain in self.lock_domains().iter() {
            revocation.view(domain.view.id());
        }
        let drain = revocation.scan(self.policy, || self.read_regions().all_segments());
        drop(drain);
    }
}
