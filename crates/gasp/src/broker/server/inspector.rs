//! Inspections of the memory of a user's processes, in a thread of that user's own.
//!
//! A read of a page map waits while its process changes its mappings, and how long such a change
//! takes is up to the process: it may wait for a file system that the same user serves. Whoever
//! redeems a token must not wait for that.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::broker::wire;
use crate::error::Errno;

/// The timeout of an inspection: shorter than the time that its client waits for the broker.
const PATIENCE: Duration = Duration::from_secs(1);
const _: () = assert!(PATIENCE.as_secs() < wire::PATIENCE.as_secs());
/// The maximum number of inspections that wait.
const QUEUE: usize = 64;

type Inspection = Box<dyn FnOnce() + Send>;

/// A thread that executes inspections. It ends after all clones are dropped and the last inspection
/// has ended.
#[derive(Clone)]
pub(super) struct Inspector(SyncSender<Inspection>);

impl Inspector {
    pub(super) fn start() -> io::Result<Self> {
        let (inspections, queue) = sync_channel::<Inspection>(QUEUE);
        let work = move || queue.into_iter().for_each(|inspection| inspection());
        thread::Builder::new().name("inspector".into()).spawn(work)?;
        Ok(Self(inspections))
    }

    /// Executes an inspection and returns its result.
    ///
    /// # Errors
    /// `ETIMEDOUT` if it, or those before it, take too long; and its own errors.
    pub(super) fn inspect<T: Send + 'static>(
        &self,
        inspect: impl FnOnce() -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, Errno> {
        let (found, answer) = sync_channel(1);
        // The client may have stopped waiting.
        let inspection = Box::new(move || found.send(inspect()).unwrap_or(()));
        self.0.try_send(inspection).map_err(|_| Errno::TIMEDOUT)?;
        answer.recv_timeout(PATIENCE).map_err(|_| Errno::TIMEDOUT)?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};
    use std::time::Instant;

    use super::*;

    #[test]
    fn an_inspection_that_hangs_makes_nobody_wait_for_long_and_no_other_user_at_all() {
        let (slow, fast) = (Inspector::start().unwrap(), Inspector::start().unwrap());
        let hangs = Arc::new(Barrier::new(2));
        let begun = Instant::now();
        let released = Arc::clone(&hangs);
        let late = slow.inspect(move || {
            released.wait();
            Ok(1)
        });
        assert_eq!(late, Err(Errno::TIMEDOUT));
        assert_eq!(slow.inspect(|| Ok(2)), Err(Errno::TIMEDOUT), "after it");
        assert!((2 * PATIENCE..4 * PATIENCE).contains(&begun.elapsed()));
        let begun = Instant::now();
        assert_eq!(
            (fast.inspect(|| Ok(3)), fast.inspect(|| Err::<(), _>(Errno::STALE))),
            (Ok(3), Err(Errno::STALE))
        );
        // No more wait than the queue has room for.
        thread::scope(|scope| {
            for _ in 0..QUEUE - 1 {
                scope.spawn(|| slow.inspect(|| Ok(())));
            }
        });
        assert!(begun.elapsed() < 2 * PATIENCE);
        let begun = Instant::now();
        assert_eq!(slow.inspect(|| Ok(4)), Err(Errno::TIMEDOUT));
        assert!(begun.elapsed() < PATIENCE / 2, "at once");
        hangs.wait();
        // It continues as soon as the inspection that hung has ended.
        let again = (0..100).any(|_| {
            thread::sleep(Duration::from_millis(10));
            slow.inspect(|| Ok(5)) == Ok(5)
        });
        assert!(again);
    }
}
