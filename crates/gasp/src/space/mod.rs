//! The address space: the regions of one guest's physical memory.
//!
//! Pure data, without locks: `Regions` splits, merges, finds and walks. The guest
//! module publishes changes of it to the views.

mod find;
mod flatten;
mod region;
mod regions;
mod walk;

pub use find::Search;
pub use region::{Region, RegionKind};
pub use walk::{Walk, WalkEntry};

pub(crate) use flatten::pieces;
pub(crate) use regions::{Placed, Regions};
