//! Host-physical addresses: frame numbers, read from the kernel, and runs of them.
//!
//! | | |
//! |---|---|
//! | `pagemap` | the descriptor that frame numbers are read from, and whether it reports any |
//! | `frames` | the frame numbers of a window's pages |
//! | `scan` | which pages are huge |
//! | `runs` | an object's frame table: offset to host-physical run |
//! | `order` | which chunks to choose, and in which order, for few and long runs |

pub(crate) mod frames;
pub(crate) mod order;
pub(crate) mod pagemap;
pub(crate) mod runs;
pub(crate) mod scan;
