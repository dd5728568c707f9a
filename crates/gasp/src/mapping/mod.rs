//! Mappings: the map operations, the handles they give, revoke and drain.
//!
//! The protocol between a device that maps and a guest that revokes is told in
//! `slot` (one mapping), `lane` (a thread's) and `drain` (the revoking side): the mapping
//! side publishes what it is about to map in a slot that only its thread writes, and looks
//! the range up *after* that; the revoking side takes the range out of the view, makes
//! every other thread's earlier stores visible with one membarrier(2), and reads the
//! slots. Either the look-up fails, or the slot is seen.

mod barrier;
mod block;
mod copy;
mod directory;
mod drain;
mod fence;
mod grave;
mod handle;
mod holder;
mod lane;
mod map;
mod own;
mod remap;
mod revocation;
mod scatter;
mod section;
mod slot;
mod stitch;
mod token;

pub(crate) use barrier::prepare;
pub(crate) use grave::{Keep, settle};
pub(crate) use map::{Partial, Port};
pub(crate) use own::{check_not_looking_up, own};
pub(crate) use revocation::Revocation;
pub(crate) use slot::Use;

pub use drain::{Deadline, Drain, DrainPolicy, Drained};
pub use fence::Fence;
pub use handle::{Integer, Mapping};
pub use scatter::{Piece, Scatter};
pub use section::{Section, grace_period};
pub use stitch::Stitched;
pub use token::Token;
