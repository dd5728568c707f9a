//! Unmaps that wait: the memory is taken back, and the answer goes out when the last
//! mapping of it is gone.
//!
//! The connection's thread does not wait for them. It goes on with the client's commands,
//! one of which may be what the device needs to let go, and looks in between.

use core::time::Duration;
use std::time::Instant;

use gasp::{Deadline, DrainPolicy, Errno};

use crate::dma::Taken;
use crate::options::Options;
use crate::wire::{DmaUnmap, Header, Refused};

/// How long an unmap is waited for before other commands get their turn. Most transfers
/// end within it, and the client waits for the answer anyway.
const SPIN: Duration = Duration::from_micros(50);

/// How long a connection's thread goes without looking at drains, at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// An unmap whose answer waits.
pub(super) struct Waiting {
    pub(super) taken: Taken,
    pub(super) since: Instant,
    pub(super) header: Header,
    pub(super) unmap: DmaUnmap,
    /// How many mappings were held when it began to wait.
    pub(super) holders: usize,
}

/// All unmaps of a connection that wait.
pub(super) struct Drains {
    waiting: Vec<Waiting>,
    policy: DrainPolicy,
    /// How many may wait, and of how many windows.
    most: usize,
    most_windows: usize,
    pause: Duration,
    warned: bool,
}

impl Waiting {
    /// Whether every mapping is gone.
    pub(super) fn is_over(&mut self) -> bool {
        self.taken.pending() == 0
    }

    /// Waits for a moment.
    pub(super) fn spin(&mut self) -> bool {
        while self.since.elapsed() < SPIN {
            if self.is_over() {
                return true;
            }
            std::thread::yield_now();
        }
        self.is_over()
    }
}

impl Drains {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            waiting: Vec::new(),
            policy: options.drain,
            most: options.max_drains.max(1) as usize,
            most_windows: options.max_dma_maps.max(1) as usize,
            pause: SPIN,
            warned: false,
        }
    }

    /// Whether one more may have to wait. What waits takes memory for each of its windows,
    /// so there may be no more of those than a client may have.
    pub(super) fn check_room(&self) -> Result<(), Refused> {
        let windows = self
            .waiting
            .iter()
            .fold(0_usize, |windows, waiting| windows.saturating_add(waiting.taken.windows));
        if self.waiting.len() < self.most && windows < self.most_windows {
            return Ok(());
        }
        let number = self.waiting.len();
        let what = format!("{number} unmaps of {windows} windows wait for the device already");
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

    /// Takes out those that are over: every mapping is gone, or the policy says to go on
    /// without. Gives back how many mappings are held still.
    pub(super) fn take_over(&mut self) -> Vec<(Waiting, usize)> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let DrainPolicy { deadline, at_deadline } = self.policy;
        let mut over = Vec::new();
        for mut waiting in core::mem::take(&mut self.waiting) {
            let held = waiting.taken.pending();
            let late = waiting.since.elapsed() >= deadline;
            if held == 0 || late && at_deadline == Deadline::Detach {
                over.push((waiting, held));
                continue;
            }
            if late && !core::mem::replace(&mut self.warned, true) {
                tracing::warn!(
                    mappings = held,
                    "an unmap waits for the device beyond its deadline"
                );
            }
            self.waiting.push(waiting);
        }
        over
    }
}
