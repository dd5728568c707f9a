//! Virtio devices in a guest behind a strict IOMMU, with a driver in the test's own process.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod block;
mod broken;
mod console;
mod counted;
mod driver;
mod entropy;
mod faults;
mod net;
mod transport;
mod turns;
