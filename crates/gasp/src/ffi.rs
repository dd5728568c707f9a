//! What the project's own front ends need of the engine, and no other program: not part of
//! the API. The methods that only they call are hidden from the documentation as well.
//!
//! | | for |
//! |---|---|
//! | [`Token`] | mappings as plain data, which a caller in C keeps |
//! | [`Section`], [`grace_period`] | objects that a caller in C names by number |
//! | [`ThreadLock`] | locks that a caller in C takes and gives back |
//! | [`close`], [`Peer`], [`peer_of`] | what a VMM hands over, and who it is |

pub use crate::mapping::Token;
pub use crate::memory::close;
pub use crate::peer::{Peer, peer_of};
pub use crate::protocol::{Section, grace_period};
pub use crate::thread_lock::ThreadLock;
