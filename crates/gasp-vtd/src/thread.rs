//! The thread of a unit. It works while invalidations wait for drains, so that no vCPU does, and sleeps
//! otherwise. It is created with the unit: a guest that waits for an invalidation may never touch a
//! register again, so that nobody could complete it if a thread could not be created by then.

use core::time::Duration;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// The longest time between two looks at what has completed.
const LONGEST: Duration = Duration::from_millis(1);

/// What is left to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// Nothing: the thread sleeps.
    Nothing,
    /// To wait for drains.
    Drains,
    /// To process descriptors.
    Descriptors,
}

/// A handle that wakes the thread, which ends when this is dropped.
pub(crate) struct Waker<T>(SyncSender<T>);

impl<T: Send + 'static> Waker<T> {
    /// Creates the thread. Each time that it is woken it calls `step` until nothing is left.
    pub(crate) fn new(step: impl Fn(&T) -> Left + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(1);
        thread::Builder::new().name("vtd".into()).spawn(move || run(&receiver, step))?;
        Ok(Self(sender))
    }

    /// Wakes the thread, to work on `unit`. It never waits: the thread takes one up before it is
    /// woken a second time.
    pub(crate) fn wake(&self, unit: T) {
        if self.0.try_send(unit).is_err() {
            tracing::error!("the thread that completes invalidations has ended");
        }
    }
}

fn run<T>(woken: &Receiver<T>, step: impl Fn(&T) -> Left) {
    for unit in woken {
        let mut pause = Duration::from_micros(1);
        loop {
            match step(&unit) {
                Left::Nothing => break,
                Left::Descriptors => thread::yield_now(),
                Left::Drains => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
    }
}
