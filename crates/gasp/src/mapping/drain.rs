//! Drains: the wait for mappings of a revoked range to end (decisions 15 and 16).
//!
//! A revoke has three steps. The caller, under its locks, removes the range from the views.
//! [`Revocation::scan`](super::Revocation::scan) makes that visible and collects the mappings
//! that overlap the range; after it, no look-up finds the range. The [`Drain`] that it returns
//! waits, without any lock, until those mappings have ended, or the policy's deadline decides.
//! The memory behind them is kept until then, and longer if a mapping is
//! [detached](super::detached).

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use super::detached::{self, Keep};
use crate::protocol::{Holder, is_own};

/// The action at the deadline of a drain, if mappings are still held (decision 15).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Deadline {
    /// Log a warning and keep waiting: the guest's invalidation completes when the device has
    /// unmapped.
    #[default]
    Wait,
    /// End the drain, so that the invalidation completes. The mappings keep their memory, and
    /// report that they are [revoked](crate::Mapping::is_revoked).
    Detach,
}

/// The policy of a drain (decision 15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrainPolicy {
    /// The time from the revoke until `at_deadline` applies.
    pub deadline: Duration,
    /// The action at the deadline.
    pub at_deadline: Deadline,
}

impl Default for DrainPolicy {
    /// A deadline of one second, and [`Deadline::Wait`].
    fn default() -> Self {
        Self { deadline: Duration::from_secs(1), at_deadline: Deadline::Wait }
    }
}

/// The drain of a revoke that has taken effect: waits for the mappings created before it.
///
/// New maps of the range already fail. Call [`wait`](Self::wait), or [`poll`](Self::poll) until
/// it returns the result, before reporting to the guest that its invalidation is complete. A
/// drain that is dropped instead marks the remaining mappings as revoked, and keeps their memory
/// until they end.
#[derive(Debug)]
#[must_use = "an invalidation is complete only after `wait`"]
pub struct Drain {
    holders: Vec<Holder>,
    keep: Keep,
    policy: DrainPolicy,
    started: Instant,
    total: usize,
    warned: bool,
}

/// The result of a drain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drained {
    /// The number of mappings that were held when the revoke took effect.
    pub holders: usize,
    /// The number of those that are still held, and marked as revoked.
    pub detached: usize,
    /// The time from the revoke to the end of the drain.
    pub waited: Duration,
}

impl Drained {
    /// Whether every mapping has ended.
    pub fn completed(&self) -> bool {
        self.detached == 0
    }
}

impl Drain {
    pub(super) fn new(holders: Vec<Holder>, keep: Keep, policy: DrainPolicy) -> Self {
        let (total, started) = (holders.len(), Instant::now());
        Self { holders, keep, policy, started, total, warned: false }
    }

    /// The number of mappings that are still held.
    pub fn pending(&mut self) -> usize {
        self.holders.retain(Holder::is_held);
        self.holders.len()
    }

    /// The policy that the drain follows.
    pub fn policy(&self) -> DrainPolicy {
        self.policy
    }

    /// The number of mappings that are still held and were created by this thread. If no other
    /// thread unmaps them, [`wait`](Self::wait) on this thread waits for ever with
    /// [`Deadline::Wait`], and until the deadline with [`Deadline::Detach`] (decision 22).
    ///
    /// It is known which thread has mapped, but not which one will unmap: a mapping that was
    /// sent to another thread counts here, and does not deadlock.
    pub fn held_by_this_thread(&self) -> usize {
        self.holders.iter().filter(|holder| is_own(holder)).count()
    }

    /// Whether any mapping is still held. It examines each mapping that has ended once, and one
    /// of the others, so that a wait for very many does not examine all of them at each poll.
    fn any_held(&mut self) -> bool {
        while let Some(holder) = self.holders.last() {
            if holder.is_held() {
                return true;
            }
            self.holders.pop();
        }
        false
    }

    /// One drain for the mappings of both, with the policy of `self`: for whoever waits for several
    /// changes at once. A mapping that both wait for counts once, so that the size of the result does
    /// not depend on how many drains were joined. The deadline counts from the later revoke.
    pub fn joined(mut self, mut other: Self) -> Self {
        self.holders.retain(Holder::is_held);
        self.holders.append(&mut other.holders);
        // A mapping that overlaps ranges of both counts once.
        self.holders.sort_unstable_by_key(Holder::key);
        self.holders.dedup_by_key(|holder| holder.key());
        self.total = self.holders.len();
        self.keep.append(&mut other.keep);
        self.keep.sort_unstable_by_key(Arc::as_ptr);
        self.keep.dedup_by_key(|segment| Arc::as_ptr(segment));
        self.started = self.started.max(other.started);
        self
    }

    /// Waits until every mapping has ended, or the policy detaches those that have not.
    ///
    /// It holds no lock while it waits, and returns at once if nothing is held.
    ///
    /// # Deadlocks
    /// With [`Deadline::Wait`] it never returns if only this thread can unmap one of the
    /// mappings: see [`held_by_this_thread`](Self::held_by_this_thread). Nor does it return if
    /// the thread that is to unmap waits for something that this thread holds, such as a
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

    /// Returns the result if the drain has ended, else `None`, without waiting: for event loops,
    /// which cannot [`wait`](Self::wait).
    ///
    /// A drain ends when every mapping has ended, or when the deadline has passed and the policy
    /// is to [detach](Deadline::Detach), which marks the others as revoked. Otherwise the first
    /// call after the deadline that finds a mapping still held logs a warning.
    pub fn poll(&mut self) -> Option<Drained> {
        self.poll_with(0)
    }

    /// [`poll`](Self::poll) for a caller that drains something else together with the mappings,
    /// such as transfers in flight on a socket: `others` is the number of those that have not
    /// finished, which count as mappings that are held.
    pub fn poll_with(&mut self, others: usize) -> Option<Drained> {
        self.total = self.total.max(others.saturating_add(self.holders.len()));
        let any_held = self.any_held() || others > 0;
        if any_held && !self.is_to_detach(others) {
            return None;
        }
        let waited =
            if self.total == 0 && !any_held { Duration::ZERO } else { self.started.elapsed() };
        detached::reclaim();
        let detached = self.detach().saturating_add(others);
        Some(Drained { holders: self.total, detached, waited })
    }

    /// Marks the mappings that are still held as revoked, keeps their memory for them, and
    /// returns their number.
    fn detach(&mut self) -> usize {
        let held = self.pending();
        if held > 0 {
            detached::detach(&self.holders, core::mem::take(&mut self.keep));
        }
        held
    }

    /// Whether the deadline has passed and the policy is to detach what is still held.
    fn is_to_detach(&mut self, others: usize) -> bool {
        if self.started.elapsed() < self.policy.deadline {
            return false;
        }
        let detaches = self.policy.at_deadline == Deadline::Detach;
        if !detaches && !core::mem::replace(&mut self.warned, true) {
            let mappings = self.holders.len();
            tracing::warn!(mappings, others, "a drain has passed its deadline and keeps waiting");
        }
        detaches
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.detach();
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU32, Ordering};

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber, subscriber};

    use super::*;

    /// Counts log lines.
    struct Log(Arc<AtomicU32>);

    impl Subscriber for Log {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_drain_that_is_polled_for_ever_warns_once() {
        let policy = DrainPolicy { deadline: Duration::ZERO, at_deadline: Deadline::Wait };
        let lines = Arc::default();
        subscriber::with_default(Log(Arc::clone(&lines)), || {
            let mut drain = Drain::new(Vec::new(), Keep::new(), policy);
            (0..1000).for_each(|_| assert_eq!(drain.poll_with(1), None));
            assert!(drain.poll().is_some());
        });
        assert_eq!(lines.load(Ordering::Relaxed), 1);
    }
}
