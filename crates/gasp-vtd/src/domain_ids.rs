//! The guest's domain ids under which a requester's translations are cached.

use core::sync::atomic::{AtomicU32, Ordering, fence};

/// A set of domain ids that is exact up to one id, and "any" from two on.
///
/// A cached translation belongs to the domain id that was in the context entry when it was read. A
/// guest that changes the id there, and invalidates by either, meets a set which has both.
///
/// An id is added before the page tables are read, and an invalidation looks at the set after the
/// guest has changed them: with a fence on both sides, either the invalidation finds the id, or the
/// walk the change.
#[derive(Debug, Default)]
pub(crate) struct DomainIds(AtomicU32);

const NONE: u32 = 0;
const ONE: u32 = 1 << 16;
const ANY: u32 = 1 << 17;

impl DomainIds {
    /// Adds an id, before a walk.
    #[inline]
    pub(crate) fn add(&self, id: u16) {
        let one = ONE | u32::from(id);
        let known = self.0.load(Ordering::Acquire);
        if known != one && known != ANY {
            self.add_new(one);
        }
    }

    #[cold]
    fn add_new(&self, one: u32) {
        let with = |known| Some(if known == NONE || known == one { one } else { ANY });
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, with);
        fence(Ordering::SeqCst);
    }

    /// Orders what comes after it after the guest's changes. To be called once before
    /// [`may_have`](Self::may_have) and [`is_empty`](Self::is_empty).
    pub(crate) fn look() {
        fence(Ordering::SeqCst);
    }

    pub(crate) fn may_have(&self, id: u16) -> bool {
        let known = self.0.load(Ordering::SeqCst);
        known == ANY || known == ONE | u32::from(id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::SeqCst) == NONE
    }

    /// Removes all, before everything is invalidated: a walk of before the invalidation is void, and
    /// one of after it adds its id again.
    pub(crate) fn clear(&self) {
        self.0.store(NONE, Ordering::SeqCst);
    }

    /// Adds every id.
    pub(crate) fn add_any(&self) {
        self.0.store(ANY, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_exact_up_to_one_id() {
        let ids = DomainIds::default();
        assert!(ids.is_empty() && !ids.may_have(0));
        ids.add(0);
        ids.add(0);
        assert!(!ids.is_empty() && ids.may_have(0) && !ids.may_have(7));
        ids.add(7);
        ids.add(0);
        assert!(ids.may_have(0) && ids.may_have(7) && ids.may_have(9));
        ids.clear();
        assert!(ids.is_empty() && !ids.may_have(7));
        ids.add_any();
        assert!(!ids.is_empty() && ids.may_have(7));
    }
}
