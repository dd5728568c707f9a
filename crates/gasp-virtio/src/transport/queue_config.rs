//! What a driver has set up of one queue.

use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemory};

use super::status::EVENT_IDX;
use crate::queue::Broken;

/// The value of a vector register for "none".
pub const NO_VECTOR: u16 = 0xffff;

/// One queue, as its driver has set it up.
#[derive(Clone, Debug)]
pub struct QueueConfig {
    pub(super) max: u16,
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    /// Descriptor table, driver area, device area.
    pub(super) places: [u64; 3],
}

impl QueueConfig {
    /// A queue of at most `max` entries, after power-on.
    pub(super) fn new(max: u16) -> Self {
        Self { max, size: max, vector: NO_VECTOR, enabled: false, places: [0; 3] }
    }

    /// The most entries that it can have; 0 if there is no such queue.
    pub fn max(&self) -> u16 {
        self.max
    }

    /// Its entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Its MSI-X vector; [`NO_VECTOR`] for none.
    pub fn vector(&self) -> u16 {
        self.vector
    }

    /// Whether the driver has enabled it.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The device addresses of its descriptor table, its driver area (available ring) and its
    /// device area (used ring).
    pub fn places(&self) -> [u64; 3] {
        self.places
    }

    /// The queue at its place in `memory`, empty, for a driver that has accepted `features`.
    ///
    /// # Errors
    /// [`Broken::Place`] if it cannot be there.
    pub fn set_up(&self, memory: &impl GuestMemory, features: u64) -> Result<Queue, Broken> {
        let Self { size, places: [descriptors, driver, device], .. } = *self;
        let place = || Broken::Place { size, descriptors, driver, device };
        let set = || {
            let mut queue = Queue::new(size)?;
            queue.try_set_desc_table_address(GuestAddress(descriptors))?;
            queue.try_set_avail_ring_address(GuestAddress(driver))?;
            queue.try_set_used_ring_address(GuestAddress(device))?;
            Ok::<_, virtio_queue::Error>(queue)
        };
        let mut queue = set().map_err(|_| place())?;
        queue.set_event_idx(features & EVENT_IDX != 0);
        queue.set_ready(true);
        // virtio-queue takes an available ring at 0 for one that was not set.
        match driver != 0 && queue.is_valid(memory) {
            true => Ok(queue),
            false => Err(place()),
        }
    }
}
