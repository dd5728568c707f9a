//! Waits that a call would do for the thread that makes it (decision 22).
//!
//! A mapping that the thread has made is taken for one that the thread is to unmap: a wait for
//! it has no end, and the call is refused before anything has changed. A policy that detaches
//! at the deadline ends every wait, so nothing is refused then.

use gasp::{Deadline, DrainPolicy, Errno};

use crate::boundary::{Failure, Outcome};

/// Whether waiting for `held` mappings of this thread has no end.
pub(crate) fn is_endless(policy: DrainPolicy, held: impl FnOnce() -> usize) -> bool {
    policy.at_deadline == Deadline::Wait && held() > 0
}

/// Refuses an endless wait.
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
