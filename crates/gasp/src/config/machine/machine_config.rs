//! A machine.

use std::path::PathBuf;

use super::device::DeviceConfig;
use super::place::Place;
use super::settings::{LogConfig, Unsupported};
use crate::addr::GuestPhys;

/// The machine of a configuration: everything but its memory.
///
/// A configuration that describes only memory has one processor, no image and no devices.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MachineConfig {
    /// The number of virtual processors, from 1 to 255.
    pub cpus: u32,
    /// The image that the machine starts: a kernel, or firmware. Not checked to exist: who only
    /// wants the memory of a guest does not need it.
    pub kernel: Option<ImageConfig>,
    /// The initial RAM disk of a Linux kernel. Not checked to exist.
    pub initrd: Option<ImageConfig>,
    /// The command line of the kernel.
    pub cmdline: Option<String>,
    /// The devices with a type, in the order of the text.
    pub devices: Vec<DeviceConfig>,
    /// Whether a processor that halts leaves the guest, which is the default. If not, its thread
    /// occupies a host processor while it halts, and interrupts arrive sooner.
    pub exit_on_halt: bool,
    /// What happens on accesses that nothing handles.
    pub unsupported: Unsupported,
    /// Where messages of the machine are written. Empty if the text does not say it.
    pub logs: Vec<LogConfig>,
    /// Whether the machine is only to be checked, and not to be started.
    pub dry_run: bool,
}

/// An image that is loaded by the program that starts the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ImageConfig {
    /// The file.
    pub path: PathBuf,
    /// Where it is loaded; `None` if its format, or the loader, decides.
    pub address: Option<GuestPhys>,
    /// Where the text names it.
    pub place: Place,
}
