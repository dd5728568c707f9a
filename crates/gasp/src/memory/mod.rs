//! Memory objects: the pieces of backing memory behind a guest's regions.
//!
//! An object is mapped into the process **once**, when it is made, and stays at that
//! address until the last mapping of it is gone. Where the kernel allows it, its pages
//! are pinned and their frame numbers are read then, in bulk, so that finding a
//! host-physical address later is an array lookup.
//!
//! | made by | zeroed | host-physical |
//! |---|---|---|
//! | [`MemoryObject::ram`] | by the kernel, before use | frame numbers, read after the pin |
//! | [`MemoryObject::adopt`] | no: it is somebody's memory | the same, where asked for |
//! | [`MemoryObject::pass_through`] | no: it may be a device | the declared base + offset |
//! | [`MemoryObject::external`] | no: the embedder mapped it | as the embedder says |

pub(crate) mod access;
mod adopt;
mod alias;
mod audit;
mod external;
mod file;
mod file_system;
pub(crate) mod host;
mod object;
mod pin;
mod pin_access;
mod place;
mod ram;
mod report;
mod share;
mod supply;
pub(crate) mod window;

pub use adopt::Adopt;
pub use alias::Alias;
pub use audit::{Audit, Change};
pub use external::External;
pub use file::{FilePiece, Seals};
pub use file_system::close;
pub use host::pagemap::{FrameAccess, frame_access};
pub use host::runs::{HostExtent, HostRun};
pub use object::MemoryObject;
pub use pin::PinMethod;
pub use pin_access::{PinAccess, pin_access};
pub use place::Contiguity;
pub use ram::{Ram, RamProgress};
pub use report::{Backing, BackingReport, PassedOver, Placement, Residency, Runs, Stability};
