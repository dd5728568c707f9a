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
mod audit;
mod backing;
mod broker;
mod classes;
mod external;
mod file;
mod file_system;
mod frames;
mod guard;
mod object;
mod pagemap;
mod peer;
mod phys;
mod pin;
mod place;
mod ram;
mod raw;
pub(crate) mod reach;
mod scan;
mod supply;
mod tokens;
pub(crate) mod window;
pub mod wire;

pub use adopt::{Adopt, Seals};
pub use alias::Alias;
pub use audit::{Audit, Change};
pub use backing::{Backing, BackingReport, PassedOver};
pub use broker::use_broker;
pub use classes::{Residency, Stability};
pub use external::External;
pub use file::FilePiece;
pub use file_system::close;
pub use object::MemoryObject;
pub use pagemap::{FrameAccess, frame_access};
pub use peer::{Peer, peer_of};
pub use phys::HostRun;
pub use pin::{PinAccess, PinMethod, pin_access};
pub use place::{Contiguity, Placement, Runs};
pub use ram::{Ram, RamProgress};
pub use tokens::redeem_token;
pub use wire::HostToken;
