//! What a driver does that its device cannot go on after.

use thiserror::Error;

/// A driver has broken a queue: the device needs a reset (virtio 1.2, 2.1.2).
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Broken {
    /// The queue cannot have this size, or be at these addresses.
    #[error("a queue of {size} entries cannot be at {descriptors:#x}, {driver:#x}, {device:#x}")]
    Place {
        /// The number of entries.
        size: u16,
        /// The address of the descriptor table.
        descriptors: u64,
        /// The address of the driver area (available ring).
        driver: u64,
        /// The address of the device area (used ring).
        device: u64,
    },
    /// A ring or the descriptor table cannot be accessed, or an index in it is impossible.
    #[error("the rings cannot be used: {0}")]
    Rings(String),
    /// A chain of descriptors loops, is longer than its queue, leads outside of its table or to
    /// memory that cannot be read, or is empty.
    #[error("the chain of descriptor {head} does not end as it must")]
    Chain {
        /// The first descriptor.
        head: u16,
    },
    /// A chain has a descriptor to read after one to write (2.7.4.2).
    #[error("the chain of descriptor {head} has a buffer to read after one to write")]
    Order {
        /// The first descriptor.
        head: u16,
    },
    /// A chain is no request of this device.
    #[error("the chain of descriptor {head} is no request: {why}")]
    Request {
        /// The first descriptor.
        head: u16,
        /// What is missing.
        why: &'static str,
    },
    /// The answer to a request cannot be written, so the driver would never learn of it.
    #[error("the answer to the chain of descriptor {head} cannot be written")]
    Answer {
        /// The first descriptor.
        head: u16,
    },
}
