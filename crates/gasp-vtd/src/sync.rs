//! What [`context_cache`](crate::context_cache) orders its accesses with. `tests/context_proof.rs` has
//! the same of loom, and includes that module.

pub(crate) use core::sync::atomic::{AtomicU64, Ordering, fence};
