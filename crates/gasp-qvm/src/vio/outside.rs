//! What a virtio device needs besides its registers.

use core::fmt;

use gasp_capi::types::Vdev;

use crate::live::Live;

/// The vdev that is a virtio device: its memory and its interrupts.
///
/// Its methods may be called with locks of the device held; they do not wait for the vdev.
pub(crate) trait Outside: fmt::Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> &str;

    /// Its `vdev_t`.
    fn pointer(&self) -> *const Vdev;

    /// Where its registers begin, as the accesses that it gets see it: `v_block.location`.
    fn location(&self) -> u64;

    /// The engine's device, for which the guest's IOMMU allows memory.
    fn vdev(&self) -> &gasp::Vdev;

    /// Whether it may not reach memory: it is a PCI function that is not bus master.
    fn is_held_back(&self) -> bool;

    /// Sets the level of its interrupt line or pin.
    fn line(&self, raised: bool);

    /// Whether its guest uses MSI-X. Not asked unless it is a PCI function.
    fn uses_msix(&self) -> bool;

    /// Signals a vector by MSI-X.
    fn vector(&self, vector: u16);
}

impl Outside for Live {
    fn name(&self) -> &str {
        &self.name
    }

    fn pointer(&self) -> *const Vdev {
        self.object.pointer()
    }

    fn location(&self) -> u64 {
        self.object.block().location
    }

    fn vdev(&self) -> &gasp::Vdev {
        self.listed.vdev()
    }

    fn is_held_back(&self) -> bool {
        self.listed.is_held_back()
    }

    fn line(&self, raised: bool) {
        self.set_level(raised);
    }

    fn uses_msix(&self) -> bool {
        self.host.uses_msix()
    }

    fn vector(&self, vector: u16) {
        self.host.vector(vector);
    }
}
