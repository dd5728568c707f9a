//! Mappings: the map operations, the handles they return, revoke and drain.
//!
//! A [`Hold`](hold::Hold) ties each mapping to the [protocol](crate::protocol), which says why a
//! revoke cannot miss a mapping of the range that it revokes.

mod copy;
mod detached;
mod drain;
mod fence;
mod handle;
mod hold;
mod host_mapping;
mod integer;
mod map;
mod own;
mod port;
mod remap;
mod revocation;
mod scatter;
mod stitch;
mod token;
mod typed;

pub(crate) use detached::{Keep, reclaim};
pub(crate) use map::Partial;
pub(crate) use own::{check_not_looking_up, own};
pub(crate) use port::{Physical, Port};
pub(crate) use revocation::Revocation;

pub use drain::{Deadline, Drain, DrainPolicy, Drained};
pub use fence::Fence;
pub use handle::Mapping;
pub use host_mapping::HostMapping;
pub use integer::Integer;
pub use scatter::{Piece, Scatter};
pub use stitch::Stitched;
pub use token::Token;
