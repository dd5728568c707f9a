//! Where a walk begins: an address and a few bits, replaced as one.

use core::sync::atomic::{AtomicU64, Ordering};

use gasp::GuestPhys;

/// The bits of an address inside its page.
const BITS: u64 = gasp::GRANULE - 1;

/// The address of a page, with 12 bits of the owner's own. A walk sees both of one change.
pub(crate) struct AtomicRoot(AtomicU64);

impl AtomicRoot {
    pub(crate) fn new(page: GuestPhys, bits: u64) -> Self {
        Self(AtomicU64::new(page.0 & !BITS | bits & BITS))
    }

    /// The root that was set last. What its setter wrote before is seen.
    #[inline]
    pub(crate) fn get(&self) -> (GuestPhys, u64) {
        let word = self.0.load(Ordering::Acquire);
        (GuestPhys(word & !BITS), word & BITS)
    }

    pub(crate) fn set(&self, page: GuestPhys, bits: u64) {
        self.0.store(page.0 & !BITS | bits & BITS, Ordering::Release);
    }
}
