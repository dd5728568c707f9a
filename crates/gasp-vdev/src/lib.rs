//! Virtual PCI devices that reach guest memory through [`gasp`] and nothing else.
//!
//! A new device is one file: a type that implements [`Device`]. It says what it is
//! ([`Model`]), answers register accesses, and works on a thread of its own when its
//! doorbell is rung. Everything it does to the world outside goes through the [`Bus`] that
//! each call hands to it: maps of guest memory, interrupts, the doorbell.
//!
//! A [`Shell`] is the rest of a PCI function around a device: configuration space, MSI-X
//! table, interrupt lines, the thread, and the life from attachment to detachment. A
//! *front end* (vfio-user, say) drives the shell on behalf of a VMM, and knows nothing of
//! what is inside.
//!
//! ```text
//!            VMM                       this process
//!  ┌─────────────────────┐   ┌──────────────────────────────────────────────┐
//!  │ guest driver ─ PCI ─┼───┼─► front end ─► Shell ─► Device::{read, write} │
//!  │                     │   │                  │           │ ring           │
//!  │ guest RAM ◄─────────┼───┼── gasp::Vdev ◄─ Bus ◄── Device::work (thread) │
//!  │ interrupts ◄────────┼───┼── eventfd ◄──────┘                            │
//!  └─────────────────────┘   └──────────────────────────────────────────────┘
//! ```
//!
//! | module | |
//! |---|---|
//! | [`device`] | the trait that a device implements |
//! | [`bus`] | what a device can do: DMA ([`Bus::transfer`] first), interrupts, its doorbell |
//! | [`testbus`] | a guest without a VMM, to test devices with |
//! | [`pci`] | identity, BARs, registers, configuration space, interrupts |
//! | [`shell`] | the function around a device, as a front end drives it |
//! | [`devices`] | devices: a DMA engine to learn from and test with, an NVMe controller |

pub mod bus;
pub mod device;
pub mod devices;
mod doorbell;
mod error;
pub mod pci;
pub mod shell;
pub mod testbus;
mod transfer;

pub use bus::{Bus, MessageMemory};
pub use device::Device;
pub use error::{AttachError, DmaError, IrqError, ModelError, RegionError};
pub use pci::{
    Bar, BarKind, Class, Identity, Interrupts, IrqKind, Model, Msix, Register, Shared, Width,
};
pub use shell::Shell;
pub use transfer::Transfer;
