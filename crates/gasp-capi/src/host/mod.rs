//! `<gasp/guest.h>`: what a hosting program needs beside the published API.

pub mod domain;
pub mod drain;
pub mod guest;
pub mod memory;
pub mod report;
pub mod vdev;
