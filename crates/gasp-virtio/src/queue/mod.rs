//! Queues: chains of descriptors on their way to the device and back.

mod active;
mod broken;
mod chain;
mod segments;

pub use active::ActiveQueue;
pub use broken::Broken;
pub use chain::Chain;
pub use segments::{SegmentError, Segments};
