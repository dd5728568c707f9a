//! A base address register, and those that a vdev has in its guest.

use crate::abi::BARS;
use crate::request::Space;

/// A BAR as a vdev describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// Its number, 0 to 5; one of 64 bits takes the next as well.
    pub index: usize,
    /// Memory or ports.
    pub space: Space,
    /// Its size in bytes or ports: a power of two, at least 16 in memory, 4 of ports.
    pub len: u64,
    /// Where the guest has put it; `None` if it is disabled or has no address.
    pub start: Option<u64>,
    /// `GRF_VIRT_*`: the accesses that the vdev answers.
    pub flags: u32,
    /// The vdev's own number of it, which accesses have.
    pub cookie: u32,
}

/// The BARs of a vdev that are regions of its guest.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    pub(crate) bars: [Option<Bar>; BARS],
    /// The lines of the log about them.
    pub(crate) lines: u32,
}
