//! The log: one line an event, to stderr or to a function of the program.
#![allow(unsafe_code, reason = "calls a function that C has given")]

use core::cell::Cell;
use core::ffi::c_void;
use core::sync::atomic::{AtomicU32, Ordering};
use std::ffi::CString;
use std::io::{self, Write};
use std::sync::{Mutex, Once, PoisonError};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, filter, fmt, registry};

use crate::types::{GASP_LOG_DEBUG, GASP_LOG_ERROR, GASP_LOG_INFO, GASP_LOG_WARN, Log};

static LEVEL: AtomicU32 = AtomicU32::new(GASP_LOG_WARN);
static TARGET: Mutex<Target> = Mutex::new(Target { log: None, context: 0 });

thread_local! {
    /// Whether this thread is inside the program's function.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Where lines go: the program's function with its context, or stderr.
#[derive(Clone, Copy)]
struct Target {
    log: Log,
    context: usize,
}

/// Takes the log over, unless the program has done so in Rust. Called with the first guest.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let wanted = |metadata: &Metadata<'_>| {
            metadata.target().starts_with("gasp")
                && level(*metadata.level()) <= LEVEL.load(Ordering::Relaxed)
        };
        let lines = fmt::layer()
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_ansi(false)
            .with_writer(Lines)
            .with_filter(filter::filter_fn(wanted));
        // Refused where the program has a subscriber of its own: that one gets the events.
        let _ = tracing::subscriber::set_global_default(registry().with(lines));
    });
}

/// Says how much is logged, and where to.
pub(crate) fn set(level: u32, log: Log, context: *mut c_void) {
    prepare();
    let target = Target { log, context: context.expose_provenance() };
    *TARGET.lock().unwrap_or_else(PoisonError::into_inner) = target;
    LEVEL.store(level, Ordering::Relaxed);
    // What is not wanted is not even looked at: that must be found out again.
    tracing::callsite::rebuild_interest_cache();
}

fn level(level: Level) -> u32 {
    match level {
        Level::ERROR => GASP_LOG_ERROR,
        Level::WARN => GASP_LOG_WARN,
        Level::INFO => GASP_LOG_INFO,
        Level::DEBUG => GASP_LOG_DEBUG,
        Level::TRACE => GASP_LOG_DEBUG + 1,
    }
}

/// Makes a writer for each event.
struct Lines;

/// Collects one event's line.
struct Line {
    level: u32,
    bytes: Vec<u8>,
}

impl<'event> MakeWriter<'event> for Lines {
    type Writer = Line;

    fn make_writer(&'event self) -> Line {
        Line { level: GASP_LOG_INFO, bytes: Vec::new() }
    }

    fn make_writer_for(&'event self, metadata: &Metadata<'_>) -> Line {
        Line { level: level(*metadata.level()), bytes: Vec::new() }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut bytes = core::mem::take(&mut self.bytes);
        bytes.retain(|&byte| byte != 0 && byte != b'\n');
        let target = *TARGET.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = target.log else {
            bytes.splice(..0, *b"gasp: ");
            bytes.push(b'\n');
            // Nobody is left to be told that stderr is closed, or a file that is full; and
            // neither ends the program.
            let _ = gasp::signal::without_signals(|| io::stderr().write_all(&bytes));
            return;
        };
        let Ok(line) = CString::new(bytes) else { return };
        let context = core::ptr::with_exposed_provenance_mut(target.context);
        // What the function itself makes the library say is not told: it would go on for ever.
        if TELLING.replace(true) {
            return;
        }
        // SAFETY: the program has promised a function that can be called from any thread,
        // with the context that it gave; the line is a C string for as long as the call.
        unsafe { log(context, self.level, line.as_ptr()) };
        TELLING.set(false);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_log_that_nobody_reads_does_not_end_the_program() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = "log::tests::logs_to_a_pipe_without_a_reader";
        command.args(["--ignored", "--exact", name]).env("GASP_TEST_CHILD", "1");
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = command.stderr(Stdio::from(writer)).output().unwrap();
        assert_eq!(output.status.signal(), None);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("running 1 test"), "{text}");
    }

    #[test]
    #[ignore = "run by `a_log_that_nobody_reads_does_not_end_the_program`"]
    fn logs_to_a_pipe_without_a_reader() {
        if std::env::var_os("GASP_TEST_CHILD").is_some() {
            // A program in C has not been told to ignore it, as one in Rust has.
            // SAFETY: sets the default action.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            drop(Line { level: GASP_LOG_WARN, bytes: b"nobody reads this".to_vec() });
        }
    }
}
