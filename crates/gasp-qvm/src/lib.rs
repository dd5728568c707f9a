//! Virtual devices in C: `vdev-*.so`, sources of the QNX Hypervisor's vdev API, in front of guests.
//!
//! A vdev's functions (`vdev_*`, `guest_*`, `vio_*`, …) are in the program that loads it, and are
//! documented in the headers `<qvm/vdev-core.h>`, `<qvm/guest.h>` and so on, which libgasp installs.
//! This crate has them. A program that hosts vdevs exports them to what it loads, by a line in its
//! build script for each prefix, as the crate's own `build.rs` has them:
//!
//! ```text
//! println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol=vdev_*");
//! ```
//!
//! | | |
//! |---|---|
//! | [`Loader`], [`Factory`] | finds and loads the file of a vdev; what it has registered |
//! | [`Request`], [`Space`] | a vdev as a configuration requests it |
//! | [`Instance`], [`Placed`] | a vdev in front of a guest, from its options to its end |
//! | [`Access`], [`Answer`] | accesses to its registers |
//! | [`Decoder`] | which vdev an address or port belongs to |
//! | [`Host`], [`End`], [`Cause`] | what it needs of the program that hosts it |
//! | [`PciVdev`] | a vdev as a PCI function, a device for a `gasp_vdev::Shell` |
//! | [`VdevError`] | what can be wrong with it |
//! | [`abi`] | what C sees |
//! | [`inspect`] | what a check of a vdev asks besides |
//! | [`Bar`] | a base address register of a PCI function |
//! | `lines`, `controller` | interrupt lines that vdevs assign by themselves |
//! | `cdev` | character devices of the host behind virtual ones |
//! | `conf`, `config_space` | places as the configuration writes them; registers in slices |
//! | `doing`, `live`, `object`, `cpu`, `threads`, `worker`, `deliver` | a vdev that exists, and what it does |
//! | `exports` | the functions that C calls |
//! | [`vio`] | virtio devices: registers, queues, requests |

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod abi;
mod access;
mod bar;
mod bars;
mod cancel;
mod cdev;
mod clock;
mod conf;
mod config_space;
mod controller;
mod cpu;
mod decoder;
mod deliver;
mod doing;
mod error;
pub mod exports;
mod factory;
mod host;
pub mod inspect;
mod instance;
mod lines;
mod live;
mod loader;
mod object;
pub mod pci;
mod request;
mod threads;
pub mod vio;
mod virtio;
mod worker;

pub use access::{Access, Answer};
pub use bar::Bar;
pub use decoder::Decoder;
pub use error::VdevError;
pub use factory::Factory;
pub use host::{Cause, End, Host};
pub use instance::{Instance, Placed};
pub use loader::Loader;
pub use pci::{PciFailure, PciVdev, PciVdevBuilder};
pub use request::{HostOption, Request, Space};
