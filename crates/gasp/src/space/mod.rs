//! The address space: the regions of one guest's physical memory.
//!
//! `Regions` is plain data without locks: it splits, merges, finds and walks regions. A
//! segment is a memory object at its place in guest memory, with a number that fits into
//! table words. The guest module publishes changes of both to the views.

mod find;
mod region;
mod regions;
pub(crate) mod segment;
mod walk;

pub use find::Search;
pub use region::{Region, RegionKind};
pub use walk::{Walk, WalkEntry};

pub(crate) use regions::{Placed, Regions};
