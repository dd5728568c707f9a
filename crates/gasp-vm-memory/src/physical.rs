//! The type of a guest-physical memory that is never there.

use vm_memory::{GuestMemoryBackend, GuestRegionMmap};

/// What [`physical_memory`](vm_memory::GuestMemory::physical_memory) of a burst would return: it
/// always returns `None`, and this type has no value.
///
/// A device sees its IOMMU domain, in which memory comes and goes; a `GuestMemoryBackend`
/// promises regions that stay for as long as it is borrowed.
///
/// That is so without an IOMMU, too, and for a [`Guest`](gasp::Guest) as firmware sees it: RAM can
/// be removed at any time, and a region's slices, or its `as_ptr`, would reach it under no mapping,
/// so that no removal would wait for them. A burst that held all RAM from its beginning would keep
/// every removal waiting, for memory that it mostly does not use. Whoever needs a
/// `GuestMemoryBackend` of such a guest uses the VMM's own, of which the guest's memory was
/// [made](crate::add_guest_memory).
#[derive(Clone, Copy, Debug)]
pub enum NoPhysicalMemory {}

impl GuestMemoryBackend for NoPhysicalMemory {
    type R = GuestRegionMmap<()>;

    fn iter(&self) -> impl Iterator<Item = &Self::R> {
        core::iter::empty()
    }
}
