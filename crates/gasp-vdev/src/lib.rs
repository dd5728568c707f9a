//! Virtual PCI devices that reach guest memory through [`gasp`] and nothing else.
//!
//! A new device is one file: a type that implements [`Device`]. It describes itself ([`Model`]),
//! answers register accesses, and works on a thread of its own when its doorbell is rung. It
//! reaches the outside only through the [`DeviceContext`] that its calls receive: maps of guest
//! memory, interrupts, the doorbell.
//!
//! A [`Shell`] is the rest of a PCI function around a device: configuration space, MSI-X table,
//! interrupt lines, the thread, and the life cycle from attachment to detachment. A *front end*
//! (vfio-user, say) drives the shell on behalf of a VMM, and knows nothing of the device inside.
//!
//! ```text
//!            VMM                       this process
//!  ┌─────────────────────┐   ┌─────────────────────────────────────────────────┐
//!  │ guest driver ─ PCI ─┼───┼─► front end ─► Shell ─► Device::{read, write}   │
//!  │                     │   │                  │           │ ring             │
//!  │ guest RAM ◄─────────┼───┼── gasp::Vdev ◄─ DeviceContext ◄── Device::work  │
//!  │ interrupts ◄────────┼───┼── eventfd ◄──────┘                (its thread)  │
//!  └─────────────────────┘   └─────────────────────────────────────────────────┘
//! ```
//!
//! | | |
//! |---|---|
//! | [`Device`], [`Model`] | the trait that a device implements; its identity, BARs and registers |
//! | [`DeviceContext`] | what a device can do: DMA ([`DeviceContext::transfer`] first), interrupts, its doorbell |
//! | [`Bell`] | rings the doorbell from a thread of the device |
//! | [`testbus`] | a guest without a VMM, for tests of devices |
//! | [`dma`] | an example device, for tests too: a DMA engine |
//! | [`Shell`], [`Interrupts`], [`PinLine`] | the function around a device, as a front end drives it |
//! | [`Throttle`] | a limit on warnings that a guest can cause |
//! | [`MessageMemory`] | guest memory that a front end reaches by messages |
//! | [`WriteEvents`] | register writes that a front end turns into rings of the doorbell |

mod context;
mod device;
pub mod dma;
mod doorbell;
mod error;
mod pci;
mod shell;
pub mod testbus;
mod throttle;
mod transfer;

pub use context::{DeviceContext, MessageMemory, WriteEvents};
pub use device::Device;
pub use doorbell::Bell;
pub use error::{AttachError, DmaError, IrqError, ModelError, RegionError};
pub use pci::{
    Bar, BarKind, CONFIG_SIZE, Class, Identity, Interrupts, IrqKind, Model, Msix, PinLine,
    Register, Shared, VendorCapability, Width, Window,
};
pub use shell::Shell;
pub use throttle::Throttle;
pub use transfer::Transfer;
