//! Devices, a file or a folder each.

pub mod dma;
pub mod nvme;
