//! Accesses to memory that others write meanwhile, and that may be gone.
//!
//! | | |
//! |---|---|
//! | `raw` | copies of memory that changes meanwhile |
//! | `guard` | accesses to memory that can be taken away: an error instead of SIGBUS |
//! | `reach` | the one or the other, as the object needs it |

pub(crate) mod guard;
pub(crate) mod raw;
pub(crate) mod reach;
