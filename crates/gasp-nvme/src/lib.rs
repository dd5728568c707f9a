//! An NVMe controller with one namespace (NVM Express 1.4).
//!
//! The guest's driver describes the two admin queues in registers, and creates I/O queues with
//! admin commands. It puts commands into submission queues and rings a doorbell; the device's
//! thread fetches them, moves their data straight between the guest's memory and the backing, and
//! posts completions. Each of these accesses is a map of the engine, held for that access only, so
//! that the guest can revoke any memory at any time.
//!
//! ```
//! use gasp_nvme::{Backing, Nvme, Options};
//! use gasp_vdev::Shell;
//!
//! let nvme = Nvme::new(&Backing::memory(64 << 20), Options::default())?;
//! let counters = nvme.counters();
//! let shell = Shell::new("disk", nvme)?;
//! assert_eq!(counters.snapshot().reads, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Errors, and how the guest hears of them:
//!
//! | | |
//! |---|---|
//! | a command fails | the status of its completion |
//! | data or a PRP list is not mapped for the device | "Data Transfer Error" |
//! | an invalid doorbell write | an asynchronous event |
//! | a queue is not mapped for the device, or the configuration is not supported | controller fatal status, until the guest resets it |
//!
//! | file | |
//! |---|---|
//! | `device`, `subsystem` | the PCI function; the state that its two threads share |
//! | `mmio`, `registers` | registers and doorbells, written on the front end's thread |
//! | `controller`, `queue` | the device's thread: queues in turn, interrupts |
//! | `shadow`, `doorbell_buffers` | doorbells in the guest's memory, for fewer register writes |
//! | `life` | enable, disable, reset, shutdown |
//! | `admin` | admin commands (`identify`, `features`, `log` and `power`, `events`) |
//! | `io` | read, write, flush, write zeroes, deallocate |
//! | `prp` | the location of a command's data |
//!
//! The blocks and their backing are [`gasp_disk`]'s.
//!
//! Not supported: scatter-gather lists, metadata, protection information, fused commands,
//! reservations, firmware updates, several namespaces, a controller memory buffer, NVM subsystem
//! resets; PCI Express and power management capabilities, and with them a function-level reset by
//! the guest (the front end has [`Shell::reset`](gasp_vdev::Shell::reset)).

mod admin;
mod command;
mod controller;
mod counters;
mod device;
mod doorbell_buffers;
mod error;
mod events;
mod features;
mod identify;
mod identity;
mod io;
mod life;
mod log;
mod mmio;
mod options;
mod power;
mod prp;
mod queue;
mod registers;
mod shadow;
mod status;
mod subsystem;

pub use counters::{Counters, Snapshot};
pub use device::Nvme;
pub use error::NvmeError;
/// The backing of a namespace, and why it cannot be opened.
pub use gasp_disk::{Backing, DiskError};
pub use options::Options;
