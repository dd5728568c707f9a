//! Memory objects: the backing memory of a guest's regions.
//!
//! An object is mapped into the process **once**, when it is created, and stays at that address
//! until its last clone and its last mapping are gone. If the kernel allows it, its pages are then
//! pinned and their frame numbers read, in bulk, so that a host-physical address is an array
//! look-up later.
//!
//! | created by | zeroed | host-physical addresses |
//! |---|---|---|
//! | [`MemoryObject::ram`] | by the kernel, before use | frame numbers, read after the pin |
//! | [`MemoryObject::adopt`] | no: it is somebody else's memory | the same |
//! | [`MemoryObject::pass_through`] | no: it may be a device | the declared base + offset |
//! | [`MemoryObject::external`] | no: the embedder mapped it | as for `ram` |
//!
//! Memory that is populated on demand ([`Residency::OnDemand`]) is not pinned, and its frame
//! numbers are not read.
//!
//! | file | |
//! |---|---|
//! | `object` | a memory object: its memory, addresses, properties |
//! | `ram`, `supply`, `contiguity` | RAM of the best available pages; what is available; RAM in the order of its frames |
//! | `adopt`, `external`, `file_system` | memory of others; which of their files may block whoever reaches them |
//! | `window`, `file`, `share`, `alias` | a range of the process's address space; an object's file; the file handed out, or mapped again |
//! | `report`, `audit`, `pin_access` | what was obtained; whether it is still so; what this process may pin |
//! | `host/`, `pin/`, `access/` | frame numbers and runs; pins; accesses to memory that others write |

pub(crate) mod access;
mod adopt;
mod alias;
mod audit;
mod contiguity;
mod external;
mod file;
mod file_system;
pub(crate) mod host;
mod object;
mod pin;
mod pin_access;
mod ram;
mod report;
mod share;
mod supply;
pub(crate) mod window;

pub use adopt::Adopt;
pub use alias::Alias;
pub use audit::{Audit, Change};
pub use contiguity::Contiguity;
pub use external::External;
pub use file::{FileExtent, Seals};
pub use file_system::close;
pub use host::pagemap::{FrameAccess, frame_access};
pub use host::runs::{HostExtent, HostRun};
pub use object::MemoryObject;
pub use pin::PinMethod;
pub use pin_access::{PinAccess, pin_access};
pub use ram::{Ram, RamProgress};
pub use report::{Backing, BackingReport, PassedOver, Placement, Residency, Runs, Stability};
