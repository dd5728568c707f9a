//! The threads of a vdev.
//!
//! A thread is counted until its thread-local data is destroyed, so also if it is cancelled.

use core::any::Any;
use core::cell::RefCell;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::doing::Forever;

/// The threads of a vdev that are running, by name.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    names: Mutex<Vec<String>>,
    ended: Condvar,
}

/// This thread as one of a vdev's.
struct Running {
    of: Arc<Threads>,
    name: String,
    _doing: Forever,
    /// What it uses until it ends.
    _uses: Arc<dyn Any + Send + Sync>,
}

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

impl Threads {
    /// Counts a thread that is about to start.
    pub(crate) fn add(&self, name: &str) {
        self.names.lock().push(name.to_owned());
    }

    pub(crate) fn remove(&self, name: &str) {
        let mut names = self.names.lock();
        if let Some(at) = names.iter().position(|running| running == name) {
            names.swap_remove(at);
        }
        drop(names);
        self.ended.notify_all();
    }

    /// Has this thread, which is counted already, counted until it ends. Until then it does
    /// `doing`, and keeps what it uses.
    pub(crate) fn is_this(
        self: &Arc<Self>,
        name: &str,
        doing: Forever,
        uses: Arc<dyn Any + Send + Sync>,
    ) {
        let (of, name) = (Arc::clone(self), name.to_owned());
        RUNNING.set(Some(Running { of, name, _doing: doing, _uses: uses }));
    }

    /// The names of those that are running.
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.lock().clone()
    }

    /// Waits until all have ended, for so long at most; the names of the others.
    pub(crate) fn wait(&self, limit: Duration) -> Vec<String> {
        let deadline = Instant::now() + limit;
        let mut names = self.names.lock();
        while !names.is_empty() {
            if self.ended.wait_until(&mut names, deadline).timed_out() {
                break;
            }
        }
        names.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.of.remove(&self.name);
    }
}
