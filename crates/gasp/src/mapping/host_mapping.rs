//! The handle of a mapping with its host-physical address.

use core::fmt;
use core::ops::Deref;

use super::handle::Mapping;
use crate::memory::HostRun;

/// A [`Mapping`] whose memory is one host-physical run, until it is dropped.
///
/// It dereferences to the [`Mapping`], of which [`run`](Self::run) covers all. The run's address
/// does not change, unless the guest [allows](crate::GuestBuilder::allow_unpinned) addresses that
/// can (decision 20).
pub struct HostMapping {
    mapping: Mapping,
    run: HostRun,
}

impl HostMapping {
    /// A handle of `mapping`, all of whose memory is `run`.
    #[inline(always)]
    pub(super) fn new(mapping: Mapping, run: HostRun) -> Self {
        Self { mapping, run }
    }

    /// The host-physical address of the first byte, and the mapping's length in bytes.
    #[inline]
    pub fn run(&self) -> HostRun {
        self.run
    }

    /// The mapping, without its host-physical address.
    #[inline]
    pub fn into_mapping(self) -> Mapping {
        self.mapping
    }
}

impl Deref for HostMapping {
    type Target = Mapping;

    #[inline]
    fn deref(&self) -> &Mapping {
        &self.mapping
    }
}

impl fmt::Debug for HostMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostMapping")
            .field("mapping", &self.mapping)
            .field("run", &self.run)
            .finish()
    }
}
