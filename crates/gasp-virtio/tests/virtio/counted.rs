//! A device whose turns are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use gasp_vdev::Bell;
use gasp_virtio::{ActiveQueue, Broken, Kind, VirtioDevice, Waits};

/// A device, and the number of turns that each of its first two queues has had.
pub(crate) struct Counted<D> {
    device: D,
    turns: Arc<[AtomicU32; 2]>,
}

impl<D> Counted<D> {
    /// Returns the turns as well.
    pub(crate) fn new(device: D) -> (Self, Arc<[AtomicU32; 2]>) {
        let turns = Arc::<[AtomicU32; 2]>::default();
        (Self { device, turns: Arc::clone(&turns) }, turns)
    }
}

impl<D: VirtioDevice> VirtioDevice for Counted<D> {
    fn kind(&self) -> Kind {
        self.device.kind()
    }

    fn queues(&self) -> Vec<u16> {
        self.device.queues()
    }

    fn features(&self) -> u64 {
        self.device.features()
    }

    fn config(&self) -> Vec<u8> {
        self.device.config()
    }

    fn start(&self, features: u64) {
        self.device.start(features);
    }

    fn serve(&self, index: u16, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken> {
        self.turns[usize::from(index)].fetch_add(1, Ordering::Relaxed);
        self.device.serve(index, queue)
    }

    fn reset(&self) {
        self.device.reset();
    }

    fn attached(&self, bell: Option<Bell>) {
        self.device.attached(bell);
    }

    fn detached(&self) {
        self.device.detached();
    }
}
