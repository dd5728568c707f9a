//! Unmaps that wait: the memory is taken back, and the answer goes out when the last
//! mapping of it is gone.
//!
//! The connection's thread does not wait for them. It goes on with the client's commands,
//! one of which may be what the device needs to let go, and looks in between.

use core::time::Duration;
use std::time::Instant;

use gasp::{Deadline, DrainPolicy, Errno};

use super::memory::unmap_reply;
use super::{Connection, LONGEST_PAUSE};
use crate::dma::Taken;
use crate::options::Options;
use crate::report::{Counters, Happened};
use crate::wire::{DmaUnmap, Header, Refused, Reply};

/// How long an unmap is waited for before other commands get their turn. Most transfers
/// end within it, and the client waits for the answer anyway.
const SPIN: Duration = Duration::from_micros(50);

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
    fn take_over(&mut self) -> Vec<(Waiting, usize)> {
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

impl Connection<'_> {
    /// Answers the unmaps that are over.
    pub(super) fn finish_drains(&mut self) {
        let over = self.drains.take_over();
        // Before the answers: whoever has one finds the numbers as they are then.
        let now = self.drains.waiting.len() as u64;
        Counters::set(&self.service.counters.draining, now);
        for (waiting, held) in over {
            self.finish(waiting, held);
        }
    }

    /// Answers one unmap.
    fn finish(&mut self, waiting: Waiting, held: usize) {
        let header = waiting.header;
        let reply = self.settle(waiting, held);
        self.reply(header, reply);
    }

    /// Ends an unmap: nothing is left of what only it needed when its answer is sent.
    pub(super) fn settle(&mut self, waiting: Waiting, held: usize) -> Reply {
        self.tell_unmapped(&waiting, held);
        let reply = unmap_reply(&waiting.unmap, &waiting.taken.writable);
        self.space.settle(waiting.taken);
        reply
    }

    fn tell_unmapped(&self, waiting: &Waiting, held: usize) {
        let Waiting { taken, since, holders, .. } = waiting;
        let waited = if *holders == 0 { Duration::ZERO } else { since.elapsed() };
        for span in &taken.spans {
            self.service.counters.tell(|| Happened::Unmapped {
                addr: span.start().0,
                len: span.len(),
                waited,
                detached: held,
            });
        }
    }
}
