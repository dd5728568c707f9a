//! A mapping with its host-physical address.

use core::fmt;
use core::ops::Deref;

use super::handle::Mapping;
use crate::memory::HostRun;

/// A device's mapping of memory that is one host-physical run, until it is dropped: a
/// [`Mapping`], to which it dereferences, and the run, which is all of it and, unless the guest
/// [allows](crate::GuestBuilder::allow_unpinned) others, stays where it is (decision 20).
pub struct HostMapping {
    mapping: Mapping,
    run: HostRun,
}

impl HostMapping {
    /// `run` is the memory of all of `mapping`.
    #[inline(always)]
    pub(super) fn new(mapping: Mapping, run: HostRun) -> Self {
        Self { mapping, run }
    }

    /// Where the memory is: the host-physical address of the first byte, and the mapping's
    /// length.
    #[inline]
    pub fn run(&self) -> HostRun {
        self.run
    }

    /// The mapping without its address.
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
