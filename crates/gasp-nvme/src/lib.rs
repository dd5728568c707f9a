//! An NVMe controller with one namespace, after NVM Express 1.4.
//!
//! The guest's driver describes two queues in registers, and makes more with commands in
//! these. It puts commands into submission queues and rings a doorbell; the device's
//! thread fetches them, moves their data straight between the guest's memory and what the
//! blocks are kept in, and puts completions into completion queues. Every one of these
//! accesses is a map of the engine, held for that access only, so that the guest can take
//! any memory back at any time.
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
//! What goes wrong, and who hears of it:
//!
//! | | |
//! |---|---|
//! | a command cannot be done | its completion says why |
//! | data or a PRP list is not the device's to use | "Data Transfer Error" |
//! | a doorbell is given nonsense | an asynchronous event |
//! | a queue is not the device's to use, or the configuration is not one offered | controller fatal status, until the guest resets it |
//!
//! | file | |
//! |---|---|
//! | `device`, `subsystem` | the PCI function; what its two threads share |
//! | `mmio` | registers and doorbells, as the front end's thread sees them (`registers`) |
//! | `controller` | the device's thread: queues (`queue`) in turn, interrupts |
//! | `life` | on and off, reset, shutdown |
//! | `admin` | admin commands (`identify`, `features`, `log` and `power`, `events`) |
//! | `io` | read, write, flush, write zeroes, deallocate |
//! | `prp`, `data` | where a command's data is; its maps |
//! | `disk` | what blocks are kept in (`backing`): `image`, its `serial` (`vectored`, `anonymous`: the unsafe code) |
//!
//! Left out: scatter-gather lists, metadata, protection information, fused commands,
//! reservations, firmware, several namespaces, memory of the controller's own, resets of
//! the NVM subsystem; PCI Express and power management capabilities, and with them a reset
//! of the function by the guest (the front end has [`Shell::reset`](gasp_vdev::Shell::reset)).

mod admin;
mod anonymous;
mod backing;
mod command;
mod controller;
mod counters;
mod data;
mod device;
mod disk;
mod error;
mod events;
mod features;
mod identify;
mod identity;
mod image;
mod io;
mod life;
mod log;
mod mmio;
mod options;
mod power;
mod prp;
mod queue;
mod registers;
mod serial;
mod status;
mod subsystem;
mod throttle;
mod vectored;

pub use backing::Backing;
pub use counters::{Counters, Snapshot};
pub use device::Nvme;
pub use error::NvmeError;
pub use options::Options;
