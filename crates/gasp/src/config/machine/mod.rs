//! What a virtual machine has beside memory: processors, a boot image, devices.
//!
//! Read and checked as far as the text goes. What a device type is, and which options it has, is
//! the business of the program that hosts the machine.

pub(super) mod device;
pub(super) mod interrupt;
pub(super) mod location;
pub(super) mod machine_config;
pub(super) mod place;
pub(super) mod plan;
pub(super) mod settings;

pub use device::{DeviceConfig, DeviceOption, Word};
pub use interrupt::Interrupt;
pub use location::Location;
pub use machine_config::{ImageConfig, MachineConfig};
pub use place::Place;
pub use settings::{Action, LogConfig, LogLevel, LogTo, Unsupported};
