//! The domain that a device is attached to, in a copy for each of several threads.
//!
//! A map that misses needs the domain for as long as the translator takes, which no slot can be busy
//! for, so it counts itself among the domain's owners. Threads that count at the same place write
//! the same cache line: here each has a place, and a count, of its own.

use core::ops::Deref;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};

use crate::iommu::DomainInner;
use crate::protocol::Lane;

/// The number of copies. Threads of which there are more share them.
const COPIES: usize = 8;

/// The domain of a device, if it is attached.
#[derive(Default)]
pub(super) struct Attached {
    domain: Mutex<Option<Arc<DomainInner>>>,
    /// The same, if it asks. Changed under the lock above.
    copies: OnceLock<Box<Copies>>,
}

type Copies = [Copy; COPIES];

#[derive(Default)]
#[repr(align(64))]
struct Copy(Mutex<Option<Arc<Owner>>>);

/// An owner of a domain, with a count of its own of those that use it.
#[repr(align(64))]
pub(super) struct Owner(Arc<DomainInner>);

impl Deref for Owner {
    type Target = DomainInner;

    fn deref(&self) -> &DomainInner {
        &self.0
    }
}

impl Attached {
    /// The domain, which does not change meanwhile.
    pub(super) fn lock(&self) -> AttachedGuard<'_> {
        AttachedGuard { domain: self.domain.lock(), copies: &self.copies }
    }

    /// The domain as it is now, for a map that has missed; `None` if it does not ask. If it changes
    /// meanwhile, this is the one before or after the change.
    pub(super) fn asking(&self) -> Option<Arc<Owner>> {
        let index = Lane::with(Lane::index) as usize % COPIES;
        self.copies.get()?.get(index)?.0.lock().clone()
    }
}

/// The domain of a device, while it is locked.
pub(super) struct AttachedGuard<'a> {
    domain: MutexGuard<'a, Option<Arc<DomainInner>>>,
    copies: &'a OnceLock<Box<Copies>>,
}

impl AttachedGuard<'_> {
    /// Changes the domain, and returns the one before.
    pub(super) fn set(&mut self, new: Option<Arc<DomainInner>>) -> Option<Arc<DomainInner>> {
        let asks = new.as_ref().filter(|new| new.asking.is_some());
        let copies = match asks {
            Some(_) => Some(self.copies.get_or_init(Box::default)),
            None => self.copies.get(),
        };
        for copy in copies.into_iter().flat_map(|copies| &**copies) {
            *copy.0.lock() = asks.map(|new| Arc::new(Owner(Arc::clone(new))));
        }
        core::mem::replace(&mut *self.domain, new)
    }
}

impl Deref for AttachedGuard<'_> {
    type Target = Option<Arc<DomainInner>>;

    fn deref(&self) -> &Self::Target {
        &self.domain
    }
}
