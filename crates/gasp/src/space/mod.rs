//! The address space: the regions of one guest's physical memory.
//!
//! `Regions` is pure data, without locks: it splits, merges, finds and walks. A segment is
//! an object as it is placed in guest memory, by a number that table words can hold. The guest
//! module publishes changes of both to the views.

mod find;
mod region;
mod regions;
pub(crate) mod segment;
mod walk;

pub use find::Search;
pub use region::{Region, RegionKind};
pub use walk::{Walk, WalkEntry};

pub(crate) use regions::{Placed, Regions};
