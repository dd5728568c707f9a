//! What the project's own front ends need of the engine, and no other program: not part of
//! the API.

pub use crate::peer::{Peer, peer_of};
pub use crate::thread_lock::ThreadLock;
