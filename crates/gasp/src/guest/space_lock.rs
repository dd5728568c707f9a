//! The right to change a guest's regions.

use core::fmt;
use core::marker::PhantomData;
use std::sync::Arc;

use super::inner::Inner;
use super::listener::SpaceListener;
use crate::access::Access;
use crate::addr::GuestPhys;
use crate::error::{Error, Operation, Reason, Result};
use crate::mapping::{Drain, check_not_looking_up};
use crate::memory::MemoryObject;
use crate::space::{Region, RegionKind};
use crate::span::Span;

/// A lock: the right to change a guest's regions, until it is dropped; see
/// [`AddressSpace::lock`].
///
/// [`AddressSpace::lock`]: super::AddressSpace::lock
pub struct SpaceLock {
    guest: Arc<Inner>,
    /// The thread that took the lock has to release it.
    not_send: PhantomData<*const ()>,
}

impl SpaceLock {
    pub(super) fn new(guest: &Arc<Inner>) -> Result<Self> {
        let fail = |reason| guest.error(Operation::SetRegion, &guest.name, reason);
        check_not_looking_up().map_err(fail)?;
        if !guest.edit.take() {
            return Err(fail(Reason::Locked));
        }
        Ok(Self { guest: Arc::clone(guest), not_send: PhantomData })
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.guest
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
        let addr = start.unwrap_or_default();
        let fail = |reason| Error::new(Operation::SetRegion, addr, object.len(), reason);
        check_not_looking_up().map_err(fail)?;
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
    #[doc(hidden)]
    pub fn set_tag(&self, span: Span<GuestPhys>, tag: u64, owner: Option<&str>) -> Result<()> {
        self.guest.set_tag(span, tag, owner).map_err(|reason| self.error(span, reason))
    }

    /// As [`AddressSpace::remove`](super::AddressSpace::remove). Wait for the drain after
    /// dropping the lock, if a thread that holds a mapping may need the lock before it unmaps.
    ///
    /// # Errors
    /// The same.
    pub fn remove(&self, span: Span<GuestPhys>) -> Result<Drain> {
        self.guest.remove(span).map_err(|reason| self.error(span, reason))
    }

    /// As [`AddressSpace::add_listener`](super::AddressSpace::add_listener).
    ///
    /// # Errors
    /// The same.
    pub fn add_listener(&self, listener: Arc<dyn SpaceListener>) -> Result<()> {
        let fail = |reason| self.guest.error(Operation::SetRegion, &self.guest.name, reason);
        self.guest.add_listener(listener).map_err(fail)
    }

    /// As [`AddressSpace::remove_listener`](super::AddressSpace::remove_listener).
    pub fn remove_listener(&self, listener: &Arc<dyn SpaceListener>) -> bool {
        self.guest.remove_listener(listener)
    }

    fn error(&self, span: Span<GuestPhys>, reason: Reason) -> Error {
        Error::new(Operation::SetRegion, span.start(), span.len(), reason)
    }
}

impl Drop for SpaceLock {
    fn drop(&mut self) {
        self.guest.edit.release();
    }
}

impl fmt::Debug for SpaceLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpaceLock").finish_non_exhaustive()
    }
}
