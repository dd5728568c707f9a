//! A guest's IOMMU domains.

use core::convert::Infallible;
use core::fmt;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use super::guest::Guest;
use super::inner::Inner;
use crate::access::Access;
use crate::addr::{DeviceAddr, GuestPhys};
use crate::error::Refusal;
use crate::error::{Error, Operation, Reason, Result};
use crate::iommu::{AskCounts, Asking, DomainInner, DomainKind, DomainOptions, in_chunks};
use crate::mapping::{Drain, DrainPolicy, check_not_looking_up};
use crate::span::Span;
use crate::view::lookup::guest_of;
use crate::view::{Absent, View};

/// The most domains of a guest.
const DOMAINS_MAX: usize = 1 << 12;

/// An IOMMU domain: one configuration that several devices can share.
///
/// A clone is the same domain. Grants are additive: granting a range that is already granted
/// adds to its access, and only [`revoke`](Self::revoke) removes access.
#[derive(Clone)]
pub struct Domain {
    pub(super) inner: Arc<DomainInner>,
    pub(super) guest: Arc<Inner>,
}

/// One range of a domain's grants; see [`Domain::grants`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The device addresses.
    pub device: Span<DeviceAddr>,
    /// The guest-physical address of the first of them.
    pub guest: GuestPhys,
    /// The access that devices have.
    pub access: Access,
}

impl Guest {
    /// Creates a domain, without grants.
    ///
    /// # Errors
    /// `EINVAL` if the guest was built without an IOMMU, or the options have a translator and
    /// another kind than [`DomainKind::Ask`], or that kind and no translator; `EEXIST` if it has a domain of this
    /// name; `ENOSPC` if it has 4,096 domains; `EDEADLK` inside a look-up of a device (decision
    /// 22).
    pub fn domain(&self, name: &str, options: DomainOptions) -> Result<Domain> {
        let fail = |reason| Err(self.0.error(Operation::Create, name, reason));
        if let Err(reason) = check_not_looking_up() {
            return fail(reason);
        }
        if self.0.iommu.is_none() {
            return fail(Reason::Invalid("the guest has no IOMMU"));
        }
        if options.translator.is_some() != (options.kind == DomainKind::Ask) {
            return fail(Reason::Invalid("a domain that asks, and no other, has a translator"));
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
            DomainKind::Ask => Arc::new(View::new(self.0.physical.width, Absent::Missed)),
        };
        let inner = Arc::new(DomainInner {
            name: Arc::from(name),
            kind: options.kind,
            owner: options.owner,
            limit: options.limit,
            policy: options.drain.unwrap_or(self.0.policy),
            width: self.0.physical.width,
            view,
            asking: options.translator.map(Asking::new),
            changes: Mutex::new(()),
            removed: AtomicBool::new(false),
        });
        domains.push(Arc::clone(&inner));
        Ok(Domain { inner, guest: Arc::clone(&self.0) })
    }

    /// The domain with this name, if there is one.
    pub fn find_domain(&self, name: &str) -> Option<Domain> {
        self.domains().into_iter().find(|domain| domain.name() == name)
    }

    /// All domains, in the order of their creation.
    pub fn domains(&self) -> Vec<Domain> {
        let domains = self.0.lock_domains();
        let all = domains.iter().map(Arc::clone);
        all.map(|inner| Domain { inner, guest: Arc::clone(&self.0) }).collect()
    }
}

impl Domain {
    /// The domain's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The translation of device addresses.
    pub fn kind(&self) -> DomainKind {
        self.inner.kind
    }

    /// The policy of the domain's drains.
    pub fn drain_policy(&self) -> DrainPolicy {
        self.inner.policy
    }

    /// Grants the domain's devices `access` to `[start, start + len)` of guest memory, at the
    /// same device addresses, in addition to the access they have there. The range, in bytes, is
    /// rounded outward to 4 KiB (decision 11). It may have no memory yet: the grant leads to
    /// memory that is added later.
    ///
    /// # Errors
    /// `EINVAL` for a length of 0, or if the domain bypasses, denies or asks; `ENXIO` if the range
    /// wraps or extends past the guest's address width, or `access` is empty; `EEXIST` if part
    /// of the range has a grant that leads elsewhere (in a translating domain); `ENOSPC` if the
    /// grant would exceed the domain's limit of entries; `ENOENT` if the domain was removed;
    /// `EDEADLK` inside a look-up of a device (decision 22).
    pub fn grant_identity(&self, start: GuestPhys, len: u64, access: Access) -> Result<()> {
        self.grant(DeviceAddr::identity(start), start, len, access)
    }

    /// Grants the domain's devices `access` to `len` bytes of guest memory from `guest`, at
    /// device addresses from `device`. Both ranges are rounded outward to 4 KiB (decision 11), and
    /// the addresses must agree in their last 12 bits.
    ///
    /// # Errors
    /// As [`grant_identity`](Self::grant_identity); also `EINVAL` if the addresses differ in
    /// their last 12 bits, or at all in an identity domain.
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

    /// Revokes the grants of `[device, device + len)`, rounded outward to 4 KiB. Parts without a
    /// grant are skipped.
    ///
    /// After this call new maps of the range fail. The invalidation is complete, and may be
    /// reported to the guest, after the [`Drain`] has been waited for (decision 15).
    ///
    /// # Errors
    /// `EINVAL` for a length of 0, or if the domain bypasses, denies or asks; `ENXIO` if the
    /// range wraps; `ENOSPC` if an end of the range cuts a large entry and that would exceed the
    /// domain's limit of entries: nothing has changed, and revoking all that was granted there
    /// succeeds; `EDEADLK` inside a look-up of a device (decision 22).
    ///
    /// # Deadlocks
    /// The drain never ends if it is waited for by the only thread that can unmap one of the
    /// mappings: call [`held_by_this_thread`](Self::held_by_this_thread) before, or
    /// [`Drain::held_by_this_thread`] after (decision 22).
    pub fn revoke(&self, device: DeviceAddr, len: u64) -> Result<Drain> {
        let fail = |reason| self.error(Operation::Revoke, device, len, reason);
        let span = Span::new(device, len).map_err(fail)?;
        self.revoke_all(&[span])
    }

    /// Revokes the grants of several ranges at the cost of one membarrier(2); otherwise as
    /// [`revoke`](Self::revoke).
    ///
    /// # Errors
    /// `EINVAL` if the domain bypasses, denies or asks; `ENOSPC` and `EDEADLK` as for
    /// [`revoke`](Self::revoke).
    ///
    /// # Deadlocks
    /// As [`revoke`](Self::revoke).
    pub fn revoke_all(&self, spans: &[Span<DeviceAddr>]) -> Result<Drain> {
        let first = spans.first().map_or(DeviceAddr(0), Span::start);
        let len = spans.iter().fold(0_u64, |sum, span| sum.saturating_add(span.len()));
        let fail = |reason| self.error(Operation::Revoke, first, len, reason);
        check_not_looking_up().map_err(fail)?;
        self.inner.revoke(self.guest.memory(), spans).map_err(fail)
    }

    /// Invalidates what the translator of a domain that asks has answered about
    /// `[device, device + len)`, rounded outward to 4 KiB, and what it is about to answer. A page of
    /// which the range covers a part is invalidated whole, however large the translator's answer was
    /// and however many entries it takes.
    ///
    /// After this call the translator is asked again, and the invalidation is complete when the
    /// [`Drain`] has been waited for, as that of a [`revoke`](Self::revoke). The page tables, or
    /// whatever the translator reads, are changed before the call.
    ///
    /// # Errors
    /// `EINVAL` for a length of 0, or if the domain does not ask; `ENXIO` if the range wraps;
    /// `EDEADLK` inside a look-up of a device (decision 22).
    ///
    /// # Deadlocks
    /// As [`revoke`](Self::revoke).
    pub fn invalidate(&self, device: DeviceAddr, len: u64) -> Result<Drain> {
        let fail = |reason| self.error(Operation::Invalidate, device, len, reason);
        let span = Span::new(device, len).map_err(fail)?;
        self.invalidate_ranges(&[span])
    }

    /// Invalidates several ranges at the cost of one membarrier(2); otherwise as
    /// [`invalidate`](Self::invalidate).
    ///
    /// # Errors
    /// `EINVAL` if the domain does not ask; `EDEADLK` as for [`invalidate`](Self::invalidate).
    ///
    /// # Deadlocks
    /// As [`revoke`](Self::revoke).
    pub fn invalidate_ranges(&self, spans: &[Span<DeviceAddr>]) -> Result<Drain> {
        let first = spans.first().map_or(DeviceAddr(0), Span::start);
        let len = spans.iter().fold(0_u64, |sum, span| sum.saturating_add(span.len()));
        let fail = |reason| self.error(Operation::Invalidate, first, len, reason);
        check_not_looking_up().map_err(fail)?;
        self.inner.invalidate(self.guest.memory(), spans).map_err(fail)
    }

    /// Invalidates everything; otherwise as [`invalidate`](Self::invalidate). It takes time in
    /// proportion to what the domain has been answered.
    ///
    /// # Errors
    /// As [`invalidate_ranges`](Self::invalidate_ranges).
    ///
    /// # Deadlocks
    /// As [`revoke`](Self::revoke).
    pub fn invalidate_all(&self) -> Result<Drain> {
        self.invalidate_ranges(&[self.inner.addresses()])
    }

    /// The grants in order of device address; adjacent ones that continue each other are joined.
    /// Of a domain that asks, the translations that it has at the moment.
    pub fn grants(&self) -> Vec<Grant> {
        let mut grants: Vec<Grant> = Vec::new();
        if !self.inner.has_table() {
            return grants;
        }
        // No grant is added or revoked meanwhile, except by a change of memory. (Answers come and go
        // meanwhile: an invalidation does not wait for this.)
        let _changes = self.inner.takes_grants().then(|| self.inner.changes.lock());
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
                if leaf.refused().is_some() {
                    return ControlFlow::Continue(());
                }
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

    /// The number of table entries that the grants or answers take, of [`DomainOptions::limit`].
    pub fn entries(&self) -> u64 {
        if self.inner.has_table() { self.inner.view.writer().leaves() } else { 0 }
    }

    /// How often the domain has asked, evicted and invalidated; `None` if it does not ask. (What is
    /// found in its table is not counted: that would cost a map as much as the look-up.)
    pub fn ask_counts(&self) -> Option<AskCounts> {
        self.inner.asking.as_ref().map(Asking::counts)
    }

    /// The size in bytes of the nodes of the domain's table. Its top level, 8 bytes for each GiB
    /// of addresses and resident only as far as it is used, comes on top of that.
    pub fn table_bytes(&self) -> usize {
        if self.inner.has_table() { self.inner.view.writer().bytes() } else { 0 }
    }

    /// Removes the domain from its guest, and releases its name.
    ///
    /// # Errors
    /// `EBUSY` if a device is attached to it; `EDEADLK` inside a look-up of a device (decision
    /// 22).
    pub fn remove(self) -> Result<()> {
        let fail = |reason| self.guest.error(Operation::Remove, &self.inner.name, reason);
        check_not_looking_up().map_err(fail)?;
        let vdevs = self.guest.lock_vdevs();
        let attached = |inner: &Arc<DomainInner>| Arc::ptr_eq(inner, &self.inner);
        if vdevs.values().any(|vdev| vdev.domain().as_ref().is_some_and(attached)) {
            return Err(fail(Reason::InUse("devices are attached to it; move them first")));
        }
        // From now on no device can be attached, and no grant added.
        self.inner.removed.store(true, Ordering::Relaxed);
        drop(vdevs);
        // Changes of regions no longer update its table once it is off the list, so the table
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
    // SAFETY: `guest_of` asks for the lock under which segments are removed. Both callers, in
    // `grants` and `leads_into`, call this in a chunk of `in_chunks`, which holds that lock, that
    // of the regions, and pass a leaf that they read in the same chunk.
    GuestPhys(unsafe { guest_of(&guest.physical.segments, leaf, 0) })
}

impl Grant {
    /// The two grants as one, if `next` continues this one with the same access.
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
