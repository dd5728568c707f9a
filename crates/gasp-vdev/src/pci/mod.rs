//! The PCI function around a device: what it is, and the registers that all functions have.

mod config;
mod eventfd;
mod interrupts;
pub(crate) mod irq_kind;
mod model;
mod msix;
mod register;
mod vendor;

pub use config::CONFIG_SIZE;
pub(crate) use config::ConfigSpace;
pub use interrupts::{Interrupts, PinLine};
pub use irq_kind::IrqKind;
pub use model::{Bar, BarKind, Class, Identity, Model, Msix, Shared};
pub(crate) use msix::{Part, Table};
pub(crate) use register::accesses;
pub use register::{Register, Width};
pub(crate) use vendor::WindowAccess;
pub use vendor::{VendorCapability, Window};
