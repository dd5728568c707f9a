//! The clock of guests and host, which is one.

use rustix::time::{ClockId, clock_gettime};

/// Ticks a second.
pub(crate) const RESOLUTION: u64 = 1_000_000_000;

/// Nanoseconds since the host has started.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(RESOLUTION).saturating_add(nanoseconds)
}
