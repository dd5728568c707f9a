//! A thread of the host for each vdev that needs it: it delivers pulses and timers, one at a time.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use gasp::Errno;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::abi::{Pulse, TimerData};
use crate::clock;

/// The most pulses that wait for a vdev.
pub(crate) const PULSES_MAX: usize = 1024;
/// The most timers of a vdev.
pub(crate) const TIMERS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Worker {
    name: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pulses: VecDeque<Pulse>,
    timers: BTreeMap<usize, Timer>,
    thread: Option<JoinHandle<()>>,
    /// The vdev is ending: nothing more is delivered.
    is_over: bool,
    /// Nothing is being delivered any more.
    has_ended: bool,
}

/// A timer; its times are nanoseconds of the guest's clock, and the host's, which are one.
#[derive(Clone, Copy, Debug)]
struct Timer {
    /// What the vdev gets back.
    data: usize,
    requested: u64,
    due: Option<u64>,
    /// When it was due last.
    was_due: u64,
}

/// When a timer is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// Never.
    Never,
    /// At this time.
    At(u64),
    /// So many ticks from now.
    FromNow(u64),
    /// So many ticks from when it was due last.
    FromDue(u64),
}

/// Who receives pulses and timers, on the thread of a worker.
pub(crate) trait Receiver: Send + Sync + 'static {
    /// Its worker.
    fn worker(&self) -> &Worker;

    /// The thread begins.
    fn begin(&self);

    /// A pulse.
    fn pulse(&self, pulse: &Pulse);

    /// A timer, with the data that it was added with.
    fn expire(&self, data: usize, times: &TimerData);
}

/// To whom pulses are sent.
pub(crate) trait Pulsed: Send + Sync {
    /// Has a pulse delivered soon, as [`Worker::pulse`] does.
    fn send(self: Arc<Self>, pulse: Pulse) -> Result<(), Errno>;
}

impl<R: Receiver> Pulsed for R {
    fn send(self: Arc<Self>, pulse: Pulse) -> Result<(), Errno> {
        self.worker().pulse(&self, pulse)
    }
}

/// What there is to deliver.
enum Due {
    Pulse(Pulse),
    Timer { data: usize, times: TimerData },
}

impl Worker {
    pub(crate) fn new(vdev: &str) -> Self {
        Self { name: vdev.to_owned(), state: Mutex::default(), changed: Condvar::new() }
    }

    /// Delivers a pulse soon.
    ///
    /// # Errors
    /// `EAGAIN` if too many wait, or there can be no thread; `ENXIO` if the vdev is ending.
    pub(crate) fn pulse(&self, of: &Arc<impl Receiver>, pulse: Pulse) -> Result<(), Errno> {
        let mut state = self.started(of)?;
        if state.pulses.len() >= PULSES_MAX {
            return Err(Errno::AGAIN);
        }
        state.pulses.push_back(pulse);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Adds a timer that is not due.
    ///
    /// # Errors
    /// `ENOSPC` if there are too many; `ENXIO` as above.
    pub(crate) fn add_timer(&self, number: usize, data: usize) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.is_over {
            return Err(Errno::NXIO);
        }
        if state.timers.len() >= TIMERS_MAX {
            return Err(Errno::NOSPC);
        }
        let timer = Timer { data, requested: 0, due: None, was_due: clock::now() };
        state.timers.insert(number, timer);
        Ok(())
    }

    /// Has a timer delivered once, and not as was set before.
    ///
    /// # Errors
    /// `EINVAL` if there is no such timer; otherwise as [`pulse`](Self::pulse).
    pub(crate) fn set_timer(
        &self,
        of: &Arc<impl Receiver>,
        number: usize,
        when: When,
    ) -> Result<(), Errno> {
        let mut state = self.started(of)?;
        let timer = state.timers.get_mut(&number).ok_or(Errno::INVAL)?;
        let now = clock::now();
        timer.requested = now;
        timer.due = match when {
            When::Never => None,
            When::At(due) => Some(due),
            When::FromNow(ticks) => Some(now.saturating_add(ticks)),
            When::FromDue(ticks) => Some(timer.was_due.saturating_add(ticks)),
        };
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// When a timer was set; `None` if there is no such timer.
    pub(crate) fn requested(&self, number: usize) -> Option<u64> {
        self.state.lock().timers.get(&number).map(|timer| timer.requested)
    }

    /// Delivers no more, and waits for what is being delivered, for so long at most. Returns whether
    /// that has ended.
    pub(crate) fn end(&self, limit: Duration) -> bool {
        let mut state = self.state.lock();
        state.is_over = true;
        let thread = state.thread.take();
        state.pulses.clear();
        state.timers.clear();
        self.changed.notify_all();
        // A vdev that ends itself in a delivery does not wait for itself.
        let Some(_) = thread.filter(|it| it.thread().id() != thread::current().id()) else {
            return true;
        };
        let deadline = Instant::now() + limit;
        while !state.has_ended {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return state.has_ended;
            }
        }
        true
    }

    /// The state, once the thread is running.
    fn started(&self, of: &Arc<impl Receiver>) -> Result<MutexGuard<'_, State>, Errno> {
        let mut state = self.state.lock();
        if state.is_over {
            return Err(Errno::NXIO);
        }
        if state.thread.is_none() {
            let of = Arc::downgrade(of);
            let thread = thread::Builder::new().name(self.name.clone());
            let thread = thread.spawn(move || deliver(&of));
            state.thread = Some(thread.map_err(|_| Errno::AGAIN)?);
        }
        Ok(state)
    }

    /// What is due, as soon as something is; `None` at the end.
    fn next(&self) -> Option<Due> {
        let mut state = self.state.lock();
        loop {
            if state.is_over {
                return None;
            }
            let now = clock::now();
            let has_pulse = !state.pulses.is_empty();
            let first = state.timers.values_mut().filter_map(|timer| Some((timer.due?, timer)));
            match first.min_by_key(|(due, _)| *due) {
                Some((due, timer)) if due <= now => {
                    timer.due = None;
                    timer.was_due = due;
                    let times = TimerData {
                        host_notify_start: timer.requested,
                        host_current: now,
                        guest_notify_start: timer.requested,
                        guest_current: now,
                    };
                    return Some(Due::Timer { data: timer.data, times });
                }
                // Timers come first: they are few.
                _ if has_pulse => return state.pulses.pop_front().map(Due::Pulse),
                Some((due, _)) => {
                    let wait = Duration::from_nanos(due - now);
                    // A wait past the clock's end is a wait without one.
                    match Instant::now().checked_add(wait) {
                        Some(until) => _ = self.changed.wait_until(&mut state, until),
                        None => self.changed.wait(&mut state),
                    }
                }
                None => self.changed.wait(&mut state),
            }
        }
    }
}

/// The thread.
fn deliver<R: Receiver>(of: &Weak<R>) {
    // The receiver waits for this thread before it ends.
    let Some(receiver) = of.upgrade() else { return };
    gasp::signal::block_in_thread();
    receiver.begin();
    while let Some(due) = receiver.worker().next() {
        match due {
            Due::Pulse(pulse) => receiver.pulse(&pulse),
            Due::Timer { data, times } => receiver.expire(data, &times),
        }
    }
    let worker = receiver.worker();
    worker.state.lock().has_ended = true;
    worker.changed.notify_all();
}
