//! Whether the guest's commands can come at all: a loud line if it looks as if they cannot.
//!
//! A VMM that maps its guest's memory privately hands over files that the guest never writes
//! to. If its mappings cannot be looked at (see `dma::sharing`), the device waits for ever
//! for its first command, and the guest's driver for the device. So once the guest has
//! written to a register, its memory is looked at: firmware, kernel and driver have all left
//! their traces there by then.

use core::cell::Cell;
use core::time::Duration;
use std::time::Instant;

/// How long after the first write to a register the memory is looked at.
const PAUSE: Duration = Duration::from_secs(2);

/// When to look.
#[derive(Debug, Default)]
pub(super) struct Watch(Cell<When>);

#[derive(Clone, Copy, Debug, Default)]
enum When {
    /// The guest has not written to a register yet.
    #[default]
    Later,
    Due(Instant),
    Done,
}

impl Watch {
    /// Notes that the guest has written to a register.
    pub(super) fn written(&self) {
        if let When::Later = self.0.get() {
            self.0.set(When::Due(Instant::now() + PAUSE));
        }
    }

    /// How long the next wait for a command may last.
    pub(super) fn pause(&self) -> Option<Duration> {
        match self.0.get() {
            When::Due(time) => Some(time.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    /// Whether it is time to look; true once.
    pub(super) fn is_due(&self) -> bool {
        let due = self.pause().is_some_and(|left| left.is_zero());
        if due {
            self.0.set(When::Done);
        }
        due
    }
}
