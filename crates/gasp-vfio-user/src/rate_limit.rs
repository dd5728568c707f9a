//! Rate limit for reports, so that no peer fills a log.

use std::time::Instant;

use parking_lot::Mutex;

/// Number of reports that pass at once.
const BURST: u64 = 100;

/// Token bucket: a hundred reports pass at once, and one more for each second that passes.
#[derive(Debug)]
pub(crate) struct RateLimit(Mutex<State>);

#[derive(Debug)]
struct State {
    left: u64,
    /// When the last token was added.
    since: Instant,
    omitted: u64,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self(Mutex::new(State { left: BURST, since: Instant::now(), omitted: 0 }))
    }
}

impl RateLimit {
    /// Takes a token. Returns how many reports were omitted since the last one that passed,
    /// or `None` if this one is omitted too.
    pub(crate) fn allow(&self) -> Option<u64> {
        self.allow_at(Instant::now())
    }

    fn allow_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let seconds = now.saturating_duration_since(state.since).as_secs();
        if seconds > 0 {
            state.left = state.left.saturating_add(seconds).min(BURST);
            state.since = now;
        }
        match state.left.checked_sub(1) {
            Some(left) => {
                state.left = left;
                Some(core::mem::take(&mut state.omitted))
            }
            None => {
                state.omitted = state.omitted.saturating_add(1);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn a_flood_is_a_hundred_reports_and_then_one_a_second() {
        let limit = RateLimit::default();
        let begin = Instant::now();
        let passed = (0..1000).filter(|_| limit.allow_at(begin).is_some()).count();
        assert_eq!(passed as u64, BURST);
        let later = begin + Duration::from_millis(1500);
        assert_eq!(limit.allow_at(later), Some(1000 - BURST));
        assert_eq!(limit.allow_at(later), None);
        let quiet = later + Duration::from_secs(1000);
        assert_eq!(limit.allow_at(quiet), Some(1));
        assert_eq!((0..1000).filter(|_| limit.allow_at(quiet).is_some()).count() as u64, BURST - 1);
    }
}
