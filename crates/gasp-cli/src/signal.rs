//! Waiting for a while, or until somebody ends the wait by a signal.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

/// The end of the wait: a time, or SIGINT, SIGTERM or SIGHUP before that.
pub(crate) struct Until {
    pub(crate) time: Duration,
    signal: Receiver<()>,
}

impl Until {
    /// From now on the signals no longer end the process.
    pub(crate) fn new(time: Duration) -> io::Result<Self> {
        let (sender, signal) = mpsc::channel();
        ctrlc::set_handler(move || {
            // Nobody waits any longer: the process ends anyway.
            let _ = sender.send(());
        })
        .map_err(io::Error::other)?;
        Ok(Self { time, signal })
    }

    /// Waits for it.
    pub(crate) fn wait(self) {
        // Time over, or a signal: the end in both cases.
        let _ = self.wait_for(self.time);
    }

    /// Waits for a while; says whether a signal has ended the wait for good.
    pub(crate) fn wait_for(&self, time: Duration) -> bool {
        self.signal.recv_timeout(time) != Err(RecvTimeoutError::Timeout)
    }
}
