//! Mappings: the map operations, the handles they return, revoke and drain.
//!
//! A [`Hold`](hold::Hold) ties each mapping to the [protocol](crate::protocol), which says why a
//! revoke cannot miss a mapping of the range that it revokes.
//!
//! | file | |
//! |---|---|
//! | `port`, `map`, `diagnose` | a device's entry point; the map operations; the reason of a refusal |
//! | `failed` | a refusal, or a miss: the domain's translator is to be asked |
//! | `hold`, `own`, `peek` | the slot of a look-up and of its mapping; what the calling thread holds; a look without a mapping |
//! | `handle`, `host_mapping`, `scatter`, `stitch` | the handles that maps return |
//! | `page_tables` | guest memory for translators |
//! | `token` | a mapping as plain data, for C |
//! | `integer`, `typed`, `copy` | atomic accesses, values of a fixed layout, copies without a handle |
//! | `remap`, `fence` | a mapping's memory mapped once more, between guard pages |
//! | `revocation`, `drain` | the mappings that a revoke has to find; the wait for them |
//! | `detached` | memory kept for mappings that outlive their drain |

mod copy;
mod detached;
mod diagnose;
mod drain;
mod failed;
mod fence;
mod handle;
mod hold;
mod host_mapping;
mod integer;
mod map;
mod own;
mod page_tables;
mod peek;
mod port;
mod remap;
mod revocation;
mod scatter;
mod stitch;
mod token;
mod typed;

pub(crate) use detached::{Keep, reclaim};
pub(crate) use failed::{Failed, Outcome};
pub(crate) use map::Partial;
pub(crate) use own::{check_not_looking_up, count_held, own};
pub(crate) use peek::{peek, target};
pub(crate) use port::{Physical, Port};
pub(crate) use revocation::Revocation;

pub use drain::{Deadline, Drain, DrainPolicy, Drained};
pub use fence::Fence;
pub use handle::Mapping;
pub use host_mapping::HostMapping;
pub use integer::Integer;
pub use page_tables::PageTables;
pub use scatter::{Piece, Scatter};
pub use stitch::Stitched;
pub use token::Token;
