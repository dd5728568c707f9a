//! Virtio devices in C, in a driver's hands.
#![allow(unsafe_code, reason = "calls the functions of the headers as C does")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "structures of C, member by member")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod driver;
mod entropy;
mod hostile;
mod iov;
mod pci;
mod registers;
mod requests;
mod vdev;
