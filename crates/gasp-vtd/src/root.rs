//! Where translation begins: the root table, and whether translation is enabled.

use core::sync::atomic::{AtomicU64, Ordering};

use gasp::GuestPhys;

/// The root table that the guest has set, and TES, in one word: a walk sees both of one moment.
#[derive(Debug, Default)]
pub(crate) struct Root(AtomicU64);

const ENABLED: u64 = 1;
/// The address bits of RTADDR. Those below them select modes that the unit does not have.
pub(crate) const ADDRESS: u64 = !0xfff;

impl Root {
    /// The root table; `None` while translation is disabled.
    #[inline]
    pub(crate) fn table(&self) -> Option<GuestPhys> {
        let word = self.0.load(Ordering::Acquire);
        (word & ENABLED != 0).then_some(GuestPhys(word & ADDRESS))
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.table().is_some()
    }

    pub(crate) fn enable(&self, enabled: bool) {
        let word = self.0.load(Ordering::Relaxed) & ADDRESS;
        self.0.store(word | u64::from(enabled), Ordering::Release);
    }

    pub(crate) fn set_table(&self, table: u64) {
        let enabled = self.0.load(Ordering::Relaxed) & ENABLED;
        self.0.store(table & ADDRESS | enabled, Ordering::Release);
    }
}
