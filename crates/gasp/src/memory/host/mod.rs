//! Where memory is in the host: frame numbers, read from the kernel, and runs of them.
//!
//! | | |
//! |---|---|
//! | `pagemap` | the descriptor that frame numbers are read from, and whether it tells any |
//! | `frames` | the numbers of a window's pages |
//! | `scan` | which pages are huge |
//! | `runs` | an object's frame table: offset to host-physical run |
//! | `order` | which chunks to take, and in which order, for few and long runs |

pub(super) mod frames;
pub(super) mod order;
pub(super) mod pagemap;
pub(super) mod runs;
pub(super) mod scan;
