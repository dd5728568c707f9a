//! Unmaps that wait: the windows are revoked, and the reply is sent when the drain has ended.
//!
//! The connection's thread does not block on a drain. It continues with the client's
//! commands, one of which may be what the device needs to finish, and polls the drains
//! between them.

use core::time::Duration;
use std::time::Instant;

use gasp::{Drained, Errno};

use crate::dma::Taken;
use crate::options::Options;
use crate::wire::{Bitmap, DmaUnmap, Header, Refused};

/// How long an unmap is polled before other commands get their turn. Most transfers end
/// within it, and the client waits for the reply anyway.
const SPIN: Duration = Duration::from_micros(50);

/// The longest time between two polls of a connection's drains.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// An unmap whose reply waits for its drain.
pub(super) struct Waiting {
    pub(super) taken: Taken,
    pub(super) header: Header,
    pub(super) unmap: DmaUnmap,
    pub(super) bitmap: Option<Bitmap>,
}

/// All unmaps of a connection that wait.
pub(super) struct Drains {
    waiting: Vec<Waiting>,
    /// How many may wait, and of how many windows.
    most: usize,
    most_windows: usize,
    pause: Duration,
}

impl Waiting {
    /// Polls the drain for a moment: how it ended, or `None` if it goes on.
    pub(super) fn spin(&mut self) -> Option<Drained> {
        let since = Instant::now();
        while since.elapsed() < SPIN {
            let drained = self.taken.poll();
            if drained.is_some() {
                return drained;
            }
            std::thread::yield_now();
        }
        self.taken.poll()
    }
}

impl Drains {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            waiting: Vec::new(),
            most: options.max_drains.max(1) as usize,
            most_windows: options.max_dma_maps.max(1) as usize,
            pause: SPIN,
        }
    }

    /// Checks that one more unmap may wait. Each takes memory for each of its windows, so
    /// there may be no more of those than a client may have windows.
    pub(super) fn check_room(&self) -> Result<(), Refused> {
        let windows = self
            .waiting
            .iter()
            .fold(0_usize, |windows, waiting| windows.saturating_add(waiting.taken.windows));
        if self.waiting.len() < self.most && windows < self.most_windows {
            return Ok(());
        }
        let number = self.waiting.len();
        let what = format!("{number} unmaps of {windows} windows already wait for the device");
        Err(Refused::new(Errno::BUSY, what))
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn add(&mut self, waiting: Waiting) {
        self.waiting.push(waiting);
        self.pause = SPIN;
    }

    /// How long the next wait for a command may last.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        if self.waiting.is_empty() {
            return None;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        Some(pause)
    }

    /// Removes those whose drains have ended, and returns each with how it ended.
    pub(super) fn ended(&mut self) -> Vec<(Waiting, Drained)> {
        let mut ended = Vec::new();
        for mut waiting in core::mem::take(&mut self.waiting) {
            match waiting.taken.poll() {
                Some(drained) => ended.push((waiting, drained)),
                None => self.waiting.push(waiting),
            }
        }
        ended
    }
}
