//! A PCI host bridge with one bus, and devices of [`gasp_vdev`] on it.
//!
//! A device is in this process: its thread maps guest memory directly. A write to a register that
//! is only a doorbell is counted by the kernel ([`DeviceContext::ring_on_write`]), and an interrupt
//! is one write to an eventfd that the kernel listens to; neither leaves the guest for long.
//!
//! | | |
//! |---|---|
//! | [`PciRoot`] | the bus: attaches, resets and detaches devices, and describes itself in ACPI tables |
//! | [`Bdf`] | bus, device and function number: where a device is, and how an IOMMU names it |
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use gasp::{Guest, MemoryObject};
//! use gasp_vdev::{Shell, dma::DmaEngine};
//! use gasp_vm::pci::PciRoot;
//! use gasp_vm::{Machine, acpi, layout};
//!
//! let guest = Guest::builder().build()?;
//! layout::add_ram(&guest, &MemoryObject::ram(512 << 20).create()?)?;
//! let engine = Arc::new(Shell::new("dma", DmaEngine::new())?);
//! let vdev = guest.vdev("dma")?;
//! // From power-on to the end, each time the guest resets itself:
//! let machine = Machine::builder().build(&guest)?;
//! let pci = PciRoot::new(&machine)?;
//! // The guest's IOMMU knows the device by this number.
//! let at = pci.free().ok_or("the bus is full")?;
//! pci.attach(at, Arc::clone(&engine), vdev.clone())?;
//! let root = pci.describe(acpi::Tables::new(1)).write(&guest)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What the guest finds
//!
//! Configuration space is reached by ECAM at [`layout::PCI_CONFIG`](crate::layout::PCI_CONFIG) and
//! by ports 0xcf8 and 0xcfc, in any width and alignment. Functions that are not there read as ones.
//! Function 00:00.0 is the host bridge.
//!
//! Base address registers have addresses before the guest starts; it may move them. One that
//! overlaps another device's registers is not decoded until the overlap ends. Where there is RAM,
//! the RAM is found. Parts of a BAR that are plain memory ([`Shared`](gasp_vdev::Shared)) are
//! accessed by exits, as registers are.
//!
//! Interrupts are MSI-X and MSI, and the pin, which is level-triggered and leads to one of lines 16
//! to 23.
//!
//! References: PCI Local Bus 3.0 (6.1 configuration space, 6.2.5 base address registers, 6.8 MSI
//! and MSI-X), PCI Express Base 4.0 (7.2.2 ECAM), PCI Firmware 3.2 (4.1 MCFG, 4.5 `_OSC`).
//!
//! [`DeviceContext::ring_on_write`]: gasp_vdev::DeviceContext::ring_on_write

mod address;
mod bridge;
mod bus;
mod config;
mod decoder;
mod describe;
mod error;
mod function;
mod interrupts;
mod pins;
mod rings;
mod root;
mod windows;

pub use address::Bdf;
pub use error::PciError;
pub use root::PciRoot;
