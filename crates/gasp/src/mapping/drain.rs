//! Revoke and drain: the end of mappings that a guest takes back (decisions 15 and 16).
//!
//! A revoke is three steps. The caller, who holds the locks, takes the range out of the
//! views. [`Revocation::scan`](super::Revocation::scan) makes that visible and collects the
//! mappings that overlap it; after it, no look-up finds the range any more. The [`Drain`] it
//! returns waits, without any lock, until those mappings are gone, or the policy's deadline
//! decides. The memory behind them is kept until then, and longer where a mapping
//! [stays](super::grave).

use core::time::Duration;
use std::time::Instant;

use super::grave::{self, Keep};
use crate::protocol::{Holder, is_own};

/// What to do with mappings that are still held at the deadline of a drain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Deadline {
    /// Go on waiting: the guest's invalidation completes when the device lets go.
    #[default]
    Wait,
    /// Let the invalidation complete; the handle keeps its memory alive but says that it
    /// is [revoked](crate::Mapping::is_revoked).
    Detach,
}

/// How a domain drains (decision 15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrainPolicy {
    /// How long to wait before `at_deadline` is done.
    pub deadline: Duration,
    /// What to do then.
    pub at_deadline: Deadline,
}

impl Default for DrainPolicy {
    /// One second, then a warning in the log, and waiting on.
    fn default() -> Self {
        Self { deadline: Duration::from_secs(1), at_deadline: Deadline::Wait }
    }
}

/// A revoke that has taken effect and waits for the mappings made before it.
///
/// New maps of the range fail from now on. [`wait`](Self::wait) for the rest before telling
/// the guest that its invalidation is complete. Dropped instead, it marks the remaining
/// mappings as revoked, and keeps their memory alive for them.
#[derive(Debug)]
#[must_use = "an invalidation is complete only after `wait`"]
pub struct Drain {
    holders: Vec<Holder>,
    keep: Keep,
    policy: DrainPolicy,
    started: Instant,
    found: usize,
    warned: bool,
}

/// How a drain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drained {
    /// How many mappings were held when the revoke took effect.
    pub holders: usize,
    /// How many of them are held still, and marked as revoked.
    pub detached: usize,
    /// From the revoke's effect to its end.
    pub waited: Duration,
}

impl Drained {
    /// Whether every mapping is gone.
    pub fn completed(&self) -> bool {
        self.detached == 0
    }
}

impl Drain {
    pub(super) fn new(holders: Vec<Holder>, keep: Keep, policy: DrainPolicy) -> Self {
        let (found, started) = (holders.len(), Instant::now());
        Self { holders, keep, policy, started, found, warned: false }
    }

    /// How many mappings are held still.
    pub fn pending(&mut self) -> usize {
        self.holders.retain(Holder::is_held);
        self.holders.len()
    }

    /// How it waits.
    pub fn policy(&self) -> DrainPolicy {
        self.policy
    }

    /// How many of the mappings that are still held were made by this thread. Where nobody
    /// else unmaps them, [`wait`](Self::wait) on this thread waits for ever (with
    /// [`Deadline::Wait`]), or until the deadline.
    ///
    /// Which thread has mapped is known, and not who is going to unmap: a mapping that was
    /// sent to another thread counts here, and does not deadlock.
    pub fn held_by_this_thread(&self) -> usize {
        self.holders.iter().filter(|holder| is_own(holder)).count()
    }

    /// Whether any mapping is held still. Each that is gone is looked at once, and of the others
    /// one, so that a wait for very many does not look at all of them again and again.
    fn is_held(&mut self) -> bool {
        while let Some(holder) = self.holders.last() {
            if holder.is_held() {
                return true;
            }
            self.holders.pop();
        }
        false
    }

    /// One drain for the mappings of both, which are of one change; `self` gives the policy.
    pub(crate) fn joined(mut self, mut other: Self) -> Self {
        self.holders.append(&mut other.holders);
        // A mapping that several ranges reach is one mapping.
        self.holders.sort_unstable_by_key(Holder::key);
        self.holders.dedup_by_key(|holder| holder.key());
        self.found = self.holders.len();
        self.keep.append(&mut other.keep);
        self
    }

    /// Waits until every mapping is gone, or the policy says to go on without.
    ///
    /// It holds no lock while it waits, and never waits where nothing was held.
    ///
    /// # Deadlocks
    /// With [`Deadline::Wait`] it never returns if only this thread is to unmap one of the
    /// mappings: see [`held_by_this_thread`](Self::held_by_this_thread). Nor does it if whoever
    /// is to unmap waits for something that this thread has, such as a
    /// [`SpaceLock`](crate::SpaceLock) or a section.
    pub fn wait(mut self) -> Drained {
        let mut yields = 0;
        let mut pause = Duration::from_micros(1);
        loop {
            if let Some(drained) = self.poll() {
                return drained;
            }
            if yields < 64 {
                yields += 1;
                std::thread::yield_now();
            } else {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_micros(200));
            }
        }
    }

    /// Returns how the drain ended, or `None`, without waiting, while it goes on: for an event
    /// loop, which has other work than to [`wait`](Self::wait).
    ///
    /// It has ended when every mapping is gone, or when the deadline has passed and the policy
    /// is to [detach](Deadline::Detach), which marks the others as revoked. Otherwise the first
    /// call after the deadline that finds a mapping still held logs a warning.
    pub fn poll(&mut self) -> Option<Drained> {
        self.poll_with(0)
    }

    /// [`poll`](Self::poll) for a caller who drains something else together with the mappings,
    /// such as transfers in flight on a socket: `others` of them are not finished, and count
    /// as mappings that are held.
    pub fn poll_with(&mut self, others: usize) -> Option<Drained> {
        self.found = self.found.max(others.saturating_add(self.holders.len()));
        let is_held = self.is_held() || others > 0;
        if is_held && !self.gives_up(others) {
            return None;
        }
        let waited =
            if self.found == 0 && !is_held { Duration::ZERO } else { self.started.elapsed() };
        grave::settle();
        let detached = self.detach().saturating_add(others);
        Some(Drained { holders: self.found, detached, waited })
    }

    /// Marks the mappings that are still held as revoked, keeps their memory for them, and
    /// returns how many there are.
    fn detach(&mut self) -> usize {
        let held = self.pending();
        if held > 0 {
            grave::bury(&self.holders, core::mem::take(&mut self.keep));
        }
        held
    }

    /// Whether the deadline has passed and the policy is to go on without what is still held.
    fn gives_up(&mut self, others: usize) -> bool {
        if self.started.elapsed() < self.policy.deadline {
            return false;
        }
        let detaches = self.policy.at_deadline == Deadline::Detach;
        if !detaches && !core::mem::replace(&mut self.warned, true) {
            let mappings = self.holders.len();
            tracing::warn!(mappings, others, "a drain has passed its deadline and goes on waiting");
        }
        detaches
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.detach();
    }
}
