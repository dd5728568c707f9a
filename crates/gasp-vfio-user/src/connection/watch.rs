//! Detects that the guest's commands cannot reach the device, by memory that stays empty.
//!
//! A VMM that maps its guest's memory privately passes files that the guest never writes
//! to. If the VMM's mappings cannot be read (see `dma::sharing`), the device waits for ever
//! for its first command, and the guest's driver for the device. So some time after the
//! guest has first written to a register, its memory is checked: firmware, kernel and
//! driver have all written to it by then.

use core::cell::Cell;
use core::time::Duration;
use std::time::Instant;

/// Time from the first write to a register until the memory is checked.
const PAUSE: Duration = Duration::from_secs(2);

/// When to check the memory.
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
    /// Records that the guest has written to a register.
    pub(super) fn written(&self) {
        if let When::Later = self.0.get() {
            self.0.set(When::Due(Instant::now() + PAUSE));
        }
    }

    /// Limit for the next wait for a command.
    pub(super) fn pause(&self) -> Option<Duration> {
        match self.0.get() {
            When::Due(time) => Some(time.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    /// Whether it is time to check; true once.
    pub(super) fn is_due(&self) -> bool {
        let due = self.pause().is_some_and(|left| left.is_zero());
        if due {
            self.0.set(When::Done);
        }
        due
    }
}
