//! The state that the front end's thread and the device's thread share.

use gasp_disk::Disk;
use gasp_vdev::Throttle;

use super::counters::Counters;
use super::mmio::Mmio;
use super::options::Options;

/// The disk, and the part of the controller that both threads use.
#[derive(Debug)]
pub(super) struct Subsystem {
    pub(super) options: Options,
    pub(super) serial: String,
    pub(super) disk: Disk,
    pub(super) counters: Counters,
    /// Of failures after which the guest has to reset the controller, and of shutdowns that fail.
    pub(super) warnings: Throttle,
    pub(super) mmio: Mmio,
}

impl Subsystem {
    pub(super) fn new(options: Options, serial: String, disk: Disk) -> Self {
        Self {
            serial,
            disk,
            counters: Counters::default(),
            warnings: Throttle::default(),
            mmio: Mmio::new(options.queues + 1),
            options,
        }
    }
}
