//! Calls that would wait for the calling thread itself (decision 22).
//!
//! A mapping that the thread has created is assumed to be unmapped by the same thread, so a wait
//! for it would never end, and the call is refused before anything has changed. A policy that
//! detaches at the deadline ends every wait, so nothing is refused with it.

use gasp::{Deadline, DrainPolicy, Errno};

use crate::boundary::{Failure, Outcome};

/// Whether a wait for the `held` mappings of this thread would never end.
pub(crate) fn is_endless(policy: DrainPolicy, held: impl FnOnce() -> usize) -> bool {
    policy.at_deadline == Deadline::Wait && held() > 0
}

/// Refuses an endless wait with `EDEADLK`.
pub(crate) fn check(
    policy: DrainPolicy,
    held: impl FnOnce() -> usize,
    why: &'static str,
) -> Outcome {
    match is_endless(policy, held) {
        true => Err(Failure::misuse(Errno::DEADLK, why)),
        false => Ok(()),
    }
}
