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

mod adopt;
mod alias;
mod backing;
mod frames;
mod object;
mod phys;
mod pin;
mod ram;
pub(crate) mod raw;
pub(crate) mod window;

pub use adopt::{Adopt, Seals};
pub use alias::Alias;
pub use backing::{Backing, BackingReport, PassedOver};
pub use frames::{FrameAccess, frame_access};
pub use object::{External, MemoryObject, Residency, Stability};
pub use phys::HostRun;
pub use pin::{PinAccess, pin_access};
pub use ram::{Ram, RamProgress};
