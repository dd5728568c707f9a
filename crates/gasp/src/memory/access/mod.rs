//! Reading and writing memory that others write, and that may be gone.
//!
//! | | |
//! |---|---|
//! | `raw` | copies of memory that changes meanwhile |
//! | `guard` | the same where the memory may be taken away: an error, and no SIGBUS |
//! | `reach` | the one or the other, as the object needs it |

pub(crate) mod guard;
pub(crate) mod raw;
pub(crate) mod reach;
