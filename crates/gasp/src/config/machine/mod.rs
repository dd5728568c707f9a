//! What a virtual machine has beside memory: processors, a boot image, devices.
//!
//! Read and checked as far as the text goes. What a device type is, and which options it has, is
//! the business of the program that hosts the machine.

mod device;
mod interrupt;
mod location;
mod place;
mod plan;

use std::path::PathBuf;

pub use device::{DeviceConfig, DeviceOption, Word};
pub use interrupt::Interrupt;
pub use location::Location;
pub use place::Place;
pub(super) use plan::plan_machine;

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

/// What happens on accesses that nothing handles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsupported {
    /// An instruction that cannot be emulated.
    pub instruction: Action,
    /// A memory or port access where nothing is. A read that is ignored is all ones.
    pub reference: Action,
    /// A processor register that is not emulated.
    pub register: Action,
}

impl Default for Unsupported {
    fn default() -> Self {
        Self { instruction: Action::Fail, reference: Action::Ignore, register: Action::Fail }
    }
}

/// What happens on an access that nothing handles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The machine is ended.
    Abort,
    /// The processor receives the exception that hardware would raise.
    Fail,
    /// Nothing.
    Ignore,
}

/// Messages, and where they are written.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogConfig {
    /// The kinds of messages: a set, and not a threshold.
    pub levels: Vec<LogLevel>,
    /// Where they are written.
    pub to: LogTo,
}

/// A kind of message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    /// Ends the machine.
    Fatal,
    /// A defect of the program.
    Internal,
    /// Something has failed.
    Error,
    /// Something may be wrong.
    Warning,
    /// Something has happened.
    Info,
    /// For developers.
    Debug,
    /// For developers, at great length.
    Verbose,
}

/// A destination of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogTo {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// They are dropped.
    Nowhere,
}
