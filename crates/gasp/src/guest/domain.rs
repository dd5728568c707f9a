//! A guest's IOMMU domains.

use core::convert::Infallible;
use core::fmt;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Guest;
use super::inner::Inner;
use crate::access::Access;
use crate::addr::{DeviceAddr, GuestPhys};
use crate::error::Refusal;
use crate::error::{Error, Operation, Reason, Result};
use crate::iommu::{DomainInner, DomainKind, DomainOptions, in_chunks};
use crate::mapping::{Drain, DrainPolicy, check_not_looking_up};
use crate::span::Span;
use crate::view::lookup::guest_of;
use crate::view::{Absent, View};

/// The most domains a guest can have.
const DOMAINS_MAX: usize = 1 << 12;

/// One IOMMU configuration that several devices can share.
///
/// Clones are the same domain. Grants are additive: granting a range that is granted
/// already adds to its access, and only [`revoke`](Self::revoke) takes away.
#[derive(Clone)]
pub struct Domain {
    pub(super) inner: Arc<DomainInner>,
    pub(super) guest: Arc<Inner>,
}

/// One range of a domain's grants: see [`Domain::grants`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The device addresses.
    pub device: Span<DeviceAddr>,
    /// Where the first of them leads.
    pub guest: GuestPhys,
    /// What is allowed.
    pub access: Access,
}

impl Guest {
    /// A new domain. A guest that was built without an IOMMU has none.
    ///
    /// # Errors
    /// `EINVAL` where the guest has no IOMMU; `EEXIST` where it has a domain of this
    /// name; `ENOSPC` where it has 4,096.
    pub fn domain(&self, name: &str, options: DomainOptions) -> Result<Domain> {
        let fail = |reason| Err(self.0.error(Operation::Create, name, reason));
        if let Err(reason) = check_not_looking_up() {
            return fail(reason);
        }
        if self.0.iommu.is_none() {
            return fail(Reason::Invalid("the guest has no IOMMU"));
        }
        let mut domains = self.0.lock_domains();
        if domains.iter().any(|domain| &*domain.name == name) {
            return fail(Reason::NameTaken("a domain"));
        }
        if domains.len() >= DOMAINS_MAX {
            return fail(Reason::Limit { what: "domains", limit: DOMAINS_MAX as u64 });
        }
        let view = match options.kind {
            DomainKind::Bypass => Arc::clone(&self.0.flat),
            DomainKind::Deny => Arc::clone(&self.0.denied),
            DomainKind::Identity | DomainKind::Translate => {
                Arc::new(View::new(self.0.physical.width, Absent::Refused(Refusal::NotGranted)))
            }
        };
        let inner = Arc::new(DomainInner {
            name: Arc::from(name),
            kind: options.kind,
            owner: options.owner,
            limit: options.limit,
            policy: options.drain.unwrap_or(self.0.policy),
            width: self.0.physical.width,
            view,
            changes: Mutex::new(()),
            removed: AtomicBool::new(false),
        });
        domains.push(Arc::clone(&inner));
        Ok(Domain { inner, guest: Arc::clone(&self.0) })
    }

    /// The domain of this name, if the guest has one.
    pub fn find_domain(&self, name: &str) -> Option<Domain> {
        self.domains().into_iter().find(|domain| domain.name() == name)
    }

    /// All domains, in the order they were made.
    pub fn domains(&self) -> Vec<Domain> {
        let domains = self.0.lock_domains();
        let all = domains.iter().map(Arc::clone);
        all.map(|inner| Domain { inner, guest: Arc::clone(&self.0) }).collect()
    }
}

impl Domain {
    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What it does with device addresses.
    pub fn kind(&self) -> DomainKind {
        self.inner.kind
    }

    /// How its revokes wait.
    pub fn drain_policy(&self) -> DrainPolicy {
        self.inner.policy
    }

    /// Lets the domain's devices at `len` bytes of guest memory from `start`, at the same
    /// device addresses, with `access` added to what they have there. The range is
    /// rounded outward to 4 KiB (decision 11). There need not be memory yet.
    ///
    /// # Errors
    /// `EINVAL` for a length of 0, or where the domain bypasses or denies; `ENXIO` where
    /// the range wraps or passes the guest's address width, or `access` is empty;
    /// `EEXIST` where part of the range is mapped elsewhere (in a translating domain);
    /// `ENOSPC` if it would exceed the domain's limit of entries; `ENOENT` if it was removed.
    pub fn grant_identity(&self, start: GuestPhys, len: u64, access: Access) -> Result<()> {
        self.grant(DeviceAddr::identity(start), start, len, access)
    }

    /// Translates `len` bytes of device addresses from `device` on to guest memory from
    /// `guest` on, with `access`. Both are rounded outward to 4 KiB, and must agree in
    /// their last 12 bits.
    ///
    /// # Errors
    /// As [`grant_identity`](Self::grant_identity), and `EINVAL` where the domain does not translate and
    /// the addresses differ.
    pub fn grant(
        &self,
        device: DeviceAddr,
        guest: GuestPhys,
        len: u64,
        access: Access,
    ) -> Result<()> {
        let fail = |reason| self.error(Operation::Grant, device, len, reason);
        check_not_looking_up().map_err(fail)?;
        let span = Span::new(device, len).map_err(fail)?;
        self.inner.grant(self.guest.memory(), span, guest, access).map_err(fail)
    }

    /// Takes back what the devices were let at in `[device, device + len)`, rounded
    /// outward to 4 KiB. Parts that were not granted are passed over.
    ///
    /// When this returns, no new map of the range succeeds. The invalidation is complete,
    /// and may be reported to the guest, when the [`Drain`] has been waited for
    /// (decision 15).
    ///
    /// # Errors
    /// `EINVAL` for a length of 0, or if the domain bypasses or denies; `ENXIO` if the
    /// range wraps; `ENOSPC` if the range ends inside a large entry, and cutting that would
    /// exceed the domain's limit of entries: nothing has changed, and revoking all of what
    /// was granted there succeeds.
    ///
    /// # Deadlocks
    /// Waited for by the thread that alone can unmap one of the mappings, the drain never ends:
    /// ask [`held_by_this_thread`](Self::held_by_this_thread) first, or
    /// [`Drain::held_by_this_thread`] of the drain.
    pub fn revoke(&self, device: DeviceAddr, len: u64) -> Result<Drain> {
        let fail = |reason| self.error(Operation::Revoke, device, len, reason);
        let span = Span::new(device, len).map_err(fail)?;
        self.revoke_all(&[span])
    }

    /// Takes back several ranges together, for the price of one barrier.
    ///
    /// # Errors
    /// `EINVAL` if the domain bypasses or denies; `ENOSPC` and `EDEADLK`, and deadlocks, as
    /// for [`revoke`](Self::revoke).
    pub fn revoke_all(&self, spans: &[Span<DeviceAddr>]) -> Result<Drain> {
        let first = spans.first().map_or(DeviceAddr(0), Span::start);
        let len = spans.iter().fold(0_u64, |sum, span| sum.saturating_add(span.len()));
        let fail = |reason| self.error(Operation::Revoke, first, len, reason);
        check_not_looking_up().map_err(fail)?;
        self.inner.revoke(self.guest.memory(), spans).map_err(fail)
    }

    /// The grants as they are now, neighbours that go on from one another joined.
    pub fn grants(&self) -> Vec<Grant> {
        let mut grants: Vec<Grant> = Vec::new();
        if !self.inner.takes_grants() {
            return grants;
        }
        // No grant is added or taken back meanwhile.
        let _changes = self.inner.changes.lock();
        let (view, memory) = (&self.inner.view, self.guest.memory());
        let all = self.inner.addresses();
        let mut seen = None;
        let _: ControlFlow<Infallible> = in_chunks(view, memory, all, |_, writer, rest| {
            view.table.visit(&mut writer.work, rest, |part, leaf| {
                // A change of memory can cut an entry between two chunks.
                if seen.is_some_and(|last| part.start() <= last) {
                    return ControlFlow::Continue(());
                }
                seen = Some(part.last());
                let guest = guest_address(&self.guest, leaf);
                let grant = Grant { device: part, guest, access: leaf.allowed() };
                match grants
                    .last_mut()
                    .and_then(|last| last.joined(&grant).map(|both| (last, both)))
                {
                    Some((last, both)) => *last = both,
                    None => grants.push(grant),
                }
                ControlFlow::Continue(())
            })
        });
        grants
    }

    /// How many table entries the grants take, of the limit it was made with.
    pub fn entries(&self) -> u64 {
        if self.inner.takes_grants() { self.inner.view.writer().leaves() } else { 0 }
    }

    /// How many bytes the nodes of the domain's table take. Its top level, 8 bytes for each
    /// GiB of addresses and only where it is used, comes to that.
    pub fn table_bytes(&self) -> usize {
        if self.inner.takes_grants() { self.inner.view.writer().bytes() } else { 0 }
    }

    /// Removes the domain from its guest.
    ///
    /// # Errors
    /// `EBUSY` where a device is attached to it.
    pub fn remove(self) -> Result<()> {
        let fail = |reason| self.guest.error(Operation::Remove, &self.inner.name, reason);
        check_not_looking_up().map_err(fail)?;
        let vdevs = self.guest.lock_vdevs();
        let attached = |inner: &Arc<DomainInner>| Arc::ptr_eq(inner, &self.inner);
        if vdevs.values().any(|vdev| vdev.domain().as_ref().is_some_and(attached)) {
            return Err(fail(Reason::InUse("devices are attached to it; move them first")));
        }
        // From now on no device is attached, and no grant added.
        self.inner.removed.store(true, Ordering::Relaxed);
        drop(vdevs);
        // Changes of regions no longer reach its table once it is out of the list, so it
        // must be empty before.
        self.inner.retire(self.guest.memory());
        self.guest.lock_domains().retain(|inner| !Arc::ptr_eq(inner, &self.inner));
        Ok(())
    }

    fn error(&self, op: Operation, device: DeviceAddr, len: u64, reason: Reason) -> Error {
        Error::new(op, device, len, reason).of(&self.inner.name)
    }
}

/// The guest-physical address that a leaf leads to.
#[allow(unsafe_code, reason = "reads a segment under the regions' lock")]
pub(super) fn guest_address(guest: &Inner, leaf: crate::view::entry::Leaf) -> GuestPhys {
    // SAFETY: the callers hold the lock under which segments are removed.
    GuestPhys(unsafe { guest_of(&guest.physical.segments, leaf, 0) })
}

impl Grant {
    fn joined(&self, next: &Self) -> Option<Self> {
        let goes_on = self.device.last().checked_add(1) == Some(next.device.start())
            && self.guest.checked_add(self.device.len()) == Some(next.guest)
            && self.access == next.access;
        let device = Span::inclusive(self.device.start(), next.device.last())?;
        goes_on.then_some(Self { device, ..*self })
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain")
            .field("name", &self.inner.name)
            .field("kind", &self.inner.kind)
            .finish_non_exhaustive()
    }
}
