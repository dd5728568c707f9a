//! Power cycles and times of the health log: for a guest, a VMM that attaches is power that is
//! switched on, and one that goes is power that is lost.

use core::time::Duration;
use std::time::Instant;

/// Power and times since the process began; resets of the controller do not clear them.
#[derive(Debug, Default)]
pub(super) struct Power {
    on: Stopwatch,
    busy: Stopwatch,
    /// Whether the controller was started since the last complete shutdown.
    needs_shutdown: bool,
}

#[derive(Debug, Default)]
struct Stopwatch {
    total: Duration,
    since: Option<Instant>,
}

impl Power {
    pub(super) fn switched_on(&mut self) {
        self.on.start();
    }

    /// The power is lost. Returns whether a shutdown should have come before.
    pub(super) fn lost(&mut self) -> bool {
        self.on.stop();
        core::mem::take(&mut self.needs_shutdown)
    }

    pub(super) fn started(&mut self) {
        self.needs_shutdown = true;
    }

    pub(super) fn shut_down(&mut self) {
        self.needs_shutdown = false;
    }

    /// The controller is busy with I/O commands, until it `idles`.
    pub(super) fn works(&mut self) {
        self.busy.start();
    }

    pub(super) fn idles(&mut self) {
        self.busy.stop();
    }

    /// How long the controller has had power.
    pub(super) fn on(&self) -> Duration {
        self.on.total()
    }

    /// How long the controller has been busy with I/O commands.
    pub(super) fn busy(&self) -> Duration {
        self.busy.total()
    }

    #[cfg(test)]
    pub(super) fn of(on: Duration, busy: Duration) -> Self {
        let stopped = |total| Stopwatch { total, since: None };
        Self { on: stopped(on), busy: stopped(busy), needs_shutdown: false }
    }
}

impl Stopwatch {
    /// Does nothing if it already runs.
    fn start(&mut self) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    fn stop(&mut self) {
        self.total = self.total();
        self.since = None;
    }

    fn total(&self) -> Duration {
        self.total.saturating_add(self.since.map_or(Duration::ZERO, |since| since.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopwatch_adds_what_it_ran_and_only_that() {
        const STEP: Duration = Duration::from_millis(5);
        let mut watch = Stopwatch::default();
        assert_eq!(watch.total(), Duration::ZERO);
        for round in 1..4 {
            watch.start();
            std::thread::sleep(STEP);
            watch.start();
            assert!(watch.total() >= STEP * round);
            watch.stop();
            let stopped = watch.total();
            std::thread::sleep(STEP);
            assert_eq!(watch.total(), stopped);
        }
    }

    #[test]
    fn power_that_is_lost_without_a_shutdown_is_so_once() {
        let mut power = Power::default();
        power.switched_on();
        assert!(!power.lost(), "it was never started");
        power.started();
        assert!(power.lost() && !power.lost());
        power.started();
        power.shut_down();
        assert!(!power.lost());
    }
}
