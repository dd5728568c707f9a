//! The type of a guest-physical memory that is never there.

use vm_memory::{GuestMemoryBackend, GuestRegionMmap};

/// What [`physical_memory`](vm_memory::GuestMemory::physical_memory) of a burst would return: it
/// always returns `None`, and this type has no value.
///
/// A device sees its IOMMU domain, in which memory comes and goes; a `GuestMemoryBackend`
/// promises regions that stay for as long as it is borrowed.
#[derive(Clone, Copy, Debug)]
pub enum NoPhysicalMemory {}

impl GuestMemoryBackend for NoPhysicalMemory {
    type R = GuestRegionMmap<()>;

    fn iter(&self) -> impl Iterator<Item = &Self::R> {
        core::iter::empty()
    }
}
