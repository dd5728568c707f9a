//! Log output: lines to stderr, or to a function that receives them instead.
//!
//! A line that cannot be written is dropped. It may come from a thread that serves a guest,
//! which a closed pipe or a full disk must not end.

use std::io::{self, Write};
use std::sync::OnceLock;

/// What receives the lines instead of stderr.
type Receiver = Box<dyn Fn(&[u8]) + Send + Sync>;

static RECEIVER: OnceLock<Receiver> = OnceLock::new();

/// Passes all further lines to `receiver`, on the threads that log: it must not block. Only the
/// first call has an effect.
pub(crate) fn redirect(receiver: impl Fn(&[u8]) + Send + Sync + 'static) {
    if RECEIVER.set(Box::new(receiver)).is_err() {
        tracing::debug!("log lines are already redirected");
    }
}

/// A writer of one line that never fails.
pub(crate) struct LogWriter;

impl LogWriter {
    pub(crate) fn new() -> Self {
        Self
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match RECEIVER.get() {
            Some(receiver) => receiver(bytes),
            // The logger would report an error on stderr, and panic if that failed, too.
            None => _ = io::stderr().write_all(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
