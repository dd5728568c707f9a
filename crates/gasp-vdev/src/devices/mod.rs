//! Devices, one file each.

pub mod dma;
