//! Log output: lines to stderr, or to a function that has taken them over.
//!
//! A line that cannot be written is dropped. It may come from a thread that serves a guest,
//! which a closed pipe or a full disk must not end.

use std::io::{self, Write};
use std::sync::OnceLock;

/// What receives the lines instead of stderr.
type Taker = Box<dyn Fn(&[u8]) + Send + Sync>;

static TAKER: OnceLock<Taker> = OnceLock::new();

/// Passes all further lines to `taker`, on the threads that log: it must not block. Only the
/// first call has an effect.
pub(crate) fn take(taker: impl Fn(&[u8]) + Send + Sync + 'static) {
    if TAKER.set(Box::new(taker)).is_err() {
        tracing::debug!("log lines have already been taken over");
    }
}

/// A writer of one line that never fails.
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
            // The logger would report an error on stderr, and panic if that failed, too.
            None => _ = io::stderr().write_all(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
