//! What a host asks of a vdev that is a virtio device.

use gasp_vdev::Model;

use crate::instance::Instance;
use crate::vio::of_vdev;
use crate::vio::registers::Transport;

impl Instance {
    /// The PCI function that it is, if it is a virtio device on the PCI bus: its identity, its BAR
    /// and its capabilities. From the end of [`create`](Self::create) on.
    ///
    /// The accesses to its BAR are those of the vdev: the MSI-X table and the configuration are the
    /// host's.
    pub fn virtio_function(&self) -> Option<Model> {
        of_vdev(self.live.object.pointer())?.function()
    }

    /// Whether it is a virtio device over MMIO, which a guest's driver of that finds by its place.
    pub fn is_virtio_mmio(&self) -> bool {
        of_vdev(self.live.object.pointer()).is_some_and(|it| it.transport() == Transport::Mmio)
    }
}
