//! Log lines: to stderr, or to whoever has taken that over.
//!
//! A line that cannot be written is dropped. It may come from a thread that serves a guest,
//! and neither a reader that is gone nor a full disk is to end that.

use std::io::{self, Write};
use std::sync::OnceLock;

/// Who gets the lines instead of stderr.
type Taker = Box<dyn Fn(&[u8]) + Send + Sync>;

static TAKER: OnceLock<Taker> = OnceLock::new();

/// Passes all further lines to `taker`, on the threads that log: it must not wait. Only the
/// first taker counts.
pub(crate) fn take(taker: impl Fn(&[u8]) + Send + Sync + 'static) {
    if TAKER.set(Box::new(taker)).is_err() {
        tracing::debug!("log lines are taken already");
    }
}

/// The writer of one line, which never fails.
pub(crate) struct Line;

impl Line {
    pub(crate) fn new() -> Self {
        Self
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match TAKER.get() {
            Some(taker) => taker(bytes),
            // An error would be written to stderr by the logger, and end the thread if that
            // cannot be done either.
            None => _ = io::stderr().write_all(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
