//! Items for the project's own front ends, and for no other program: not part of the API.
//! The methods that only the front ends call are hidden from the documentation as well.
//!
//! | | for |
//! |---|---|
//! | [`Token`] | mappings as plain data, which a caller in C keeps |
//! | [`Section`], [`grace_period`] | objects that a caller in C names by number |
//! | [`ThreadLock`] | locks that a caller in C takes and releases |
//! | [`close`], [`Peer`], [`peer_of`] | the descriptors that a VMM passes, and its identity |
//! | `nearest`, `hint`, `explained` | the command's messages about unknown words |

#[cfg(feature = "config")]
pub use crate::config::near::{explained, hint, nearest};
pub use crate::mapping::Token;
pub use crate::memory::close;
pub use crate::peer::{Peer, peer_of};
pub use crate::protocol::{Section, grace_period};
pub use crate::thread_lock::ThreadLock;
