//! Revoke and drain: the end of mappings that a guest takes back (decisions 15 and 16).
//!
//! A revoke is three steps. The caller, who holds the locks, takes the range out of the
//! views. [`Revocation::scan`] makes that visible and collects the mappings that overlap
//! it; after it, no look-up finds the range any more. The [`Drain`] it gives back waits,
//! without any lock, until those mappings are gone, or the policy's deadline decides.
//! The memory behind them is kept until then, and longer where a mapping stays.

use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::barrier;
use super::lane::{self, Holder};
use super::slot::Use;
use crate::addr::DeviceAddr;
use crate::span::Span;
use crate::view::segment::Segment;

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

/// Memory that must stay while mappings of it are held.
pub(crate) type Keep = Vec<Arc<Segment>>;

/// Which mappings a revoke is about.
#[derive(Default)]
pub(crate) struct Revocation {
    parts: Vec<Part>,
}

struct Part {
    view: Option<u32>,
    vdev: Option<u32>,
    span: Option<Span<DeviceAddr>>,
}

impl Revocation {
    /// Mappings through `view` that overlap `span`.
    pub(crate) fn range(&mut self, view: u32, span: Span<DeviceAddr>) {
        self.parts.push(Part { view: Some(view), vdev: None, span: Some(span) });
    }

    /// All mappings through `view`.
    pub(crate) fn view(&mut self, view: u32) {
        self.parts.push(Part { view: Some(view), vdev: None, span: None });
    }

    /// All mappings that `vdev` has made through `view`.
    pub(crate) fn vdev(&mut self, view: u32, vdev: u32) {
        self.parts.push(Part { view: Some(view), vdev: Some(vdev), span: None });
    }

    /// Waits for look-ups in progress and collects the mappings. Afterwards no reader is
    /// in anything that was taken out of the views before.
    ///
    /// `keep` gives the memory behind the mappings, where there are any.
    pub(crate) fn scan(self, policy: DrainPolicy, keep: impl FnOnce() -> Keep) -> Drain {
        settle();
        let holders = lane::scan(|found| self.parts.iter().any(|part| part.matches(found)));
        let keep = if holders.is_empty() { Keep::new() } else { keep() };
        Drain { found: holders.len(), holders, keep, policy, started: Instant::now() }
    }
}

impl Part {
    fn matches(&self, found: Use) -> bool {
        self.view.is_none_or(|view| view == found.view)
            && self.vdev.is_none_or(|vdev| vdev == found.vdev)
            && self.span.is_none_or(|span| found.overlaps(span))
    }
}

/// A revoke that has taken effect and waits for the mappings made before it.
///
/// New maps of the range fail already. [`wait`](Self::wait) for the rest before telling
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
    /// How many mappings are held still.
    pub fn pending(&mut self) -> usize {
        self.holders.retain(Holder::is_held);
        self.holders.len()
    }

    /// How many of the mappings that are still held were made by this thread. Where nobody
    /// else unmaps them, [`wait`](Self::wait) on this thread waits for ever (with
    /// [`Deadline::Wait`]), or until the deadline.
    ///
    /// Which thread has mapped is known, and not who is going to unmap: a mapping that was
    /// sent to another thread counts here, and does not deadlock.
    pub fn held_by_this_thread(&self) -> usize {
        self.holders.iter().filter(|holder| holder.is_own()).count()
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
    pub fn wait(mut self) -> Drained {
        let mut warned = false;
        let mut yields = 0;
        let mut pause = Duration::from_micros(1);
        while self.pending() > 0 {
            let over = self.started.elapsed() >= self.policy.deadline;
            if over && self.policy.at_deadline == Deadline::Detach {
                break;
            }
            if over && !warned {
                warned = true;
                tracing::warn!(mappings = self.holders.len(), "a drain passes its deadline");
            }
            if yields < 64 {
                yields += 1;
                std::thread::yield_now();
            } else {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_micros(200));
            }
        }
        let waited = if self.found == 0 { Duration::ZERO } else { self.started.elapsed() };
        Drained { holders: self.found, detached: self.holders.len(), waited }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if self.pending() == 0 {
            return;
        }
        self.holders.iter().for_each(Holder::mark_revoked);
        let grave =
            Grave { holders: core::mem::take(&mut self.holders), keep: self.keep.split_off(0) };
        graves().push(grave);
        // The other half of the barrier in `Hold`'s drop: whoever released a mapping
        // without seeing its mark is seen by `settle`.
        barrier::heavy();
        settle();
    }
}

/// Mappings that outlived their revoke, and the memory that is kept for them.
struct Grave {
    holders: Vec<Holder>,
    keep: Keep,
}

static GRAVES: Mutex<Vec<Grave>> = Mutex::new(Vec::new());

fn graves() -> std::sync::MutexGuard<'static, Vec<Grave>> {
    GRAVES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frees the memory of revoked mappings that are gone by now.
pub(crate) fn settle() {
    let mut graves = graves();
    if graves.is_empty() {
        return;
    }
    let (kept, over): (Vec<_>, Vec<_>) = graves.drain(..).partition(|grave| {
        let held = grave.holders.iter().any(Holder::is_held);
        held && !grave.keep.is_empty()
    });
    *graves = kept;
    drop(graves);
    // Unmapping memory takes time; nobody waits for it under the lock.
    drop(over);
}
