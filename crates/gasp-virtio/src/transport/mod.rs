//! The transports of virtio (virtio 1.2, 4), and what they have in common.
//!
//! [`VirtioPci`] is a whole device. The parts that it consists of, for transports
//! elsewhere:
//!
//! | | |
//! |---|---|
//! | [`CommonConfig`], [`Field`], [`Order`] | status, features and queues, and the rules for what a driver may write |
//! | [`QueueConfig`] | one queue, until [`set_up`](QueueConfig::set_up) makes a queue of `virtio-queue` of it |
//! | [`model`], [`area`] | the PCI function of a virtio device, and what an access to its BAR reaches |
//! | [`DRIVER_OK`], … | bits of the status, and features of the transport |

mod common;
mod engine;
mod field;
mod function;
mod interrupt;
mod layout;
mod queue_config;
mod status;

pub use common::{CommonConfig, Order};
pub use field::Field;
pub use function::VirtioPci;
pub use layout::{Area, BAR, BAR_SIZE, DEVICE_MAX, NOTIFY_STEP, QUEUES_MAX, area, model};
pub use queue_config::{NO_VECTOR, QueueConfig};
pub use status::{
    ACCESS_PLATFORM, DRIVER_OK, EVENT_IDX, FEATURES_OK, INDIRECT_DESC, NEEDS_RESET, VERSION_1,
};
