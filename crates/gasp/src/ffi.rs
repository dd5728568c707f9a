//! What libgasp's front end needs of the engine, and no program in Rust: not part of the API.

pub use crate::thread_lock::ThreadLock;
