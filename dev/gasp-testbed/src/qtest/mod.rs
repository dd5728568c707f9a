//! QEMU without a guest: the test acts as the CPU.
//!
//! In qtest mode no instruction is executed. Commands on a pipe read and write memory and
//! ports as the CPU would, and advance the virtual clock, which is stopped otherwise. With
//! [`Pci`] and [`Vtd`] a test drives a device and its IOMMU in about a second.

mod pci;
mod room;
mod session;
mod vtd;

pub use pci::{Bar, BarKind, Pci};
pub use session::{Interrupt, MEMORY, QTest};
pub use vtd::{Fault, PAGE, Rights, Vtd};
