//! A limit on warnings that a guest can cause as often as it likes.

use core::sync::atomic::{AtomicU64, Ordering};

/// Lets through the first of a kind, the second, the fourth, and so on: at most as many log lines
/// as the count has bits.
#[derive(Debug, Default)]
pub struct Throttle(AtomicU64);

impl Throttle {
    /// Counts one more. Returns the count if it is to be logged.
    pub fn next_logged(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        count.is_power_of_two().then_some(count)
    }
}
