//! `<gasp/guest.h>`: guests, memory, domains and devices, for the hosting program.

pub mod domain;
pub mod drain;
pub mod guest;
pub mod memory;
pub mod report;
pub mod vdev;
