//! The log: one line for each event, to stderr or to a function of the program.
#![allow(unsafe_code, reason = "calls a log function of C")]

use core::cell::Cell;
use core::ffi::c_void;
use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicU32, Ordering};
use std::ffi::CString;
use std::io::{self, Write as _};
use std::sync::Once;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::types::{GASP_LOG_DEBUG, GASP_LOG_ERROR, GASP_LOG_INFO, GASP_LOG_WARN, Log};

static LEVEL: AtomicU32 = AtomicU32::new(GASP_LOG_WARN);
static TARGET: Mutex<Target> = Mutex::new(Target { log: None, context: 0 });

thread_local! {
    /// Whether this thread is inside the program's log function.
    static EMITTING: Cell<bool> = const { Cell::new(false) };
}

/// The destination of lines: the program's function with its context, or stderr.
#[derive(Clone, Copy)]
struct Target {
    log: Log,
    context: usize,
}

/// Installs the subscriber, unless the program has one in Rust. Called with the first guest.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Refused if the program has a subscriber of its own, which then receives the events.
        let _ = tracing::subscriber::set_global_default(Lines);
    });
}

/// Sets the level and the destination of the log.
///
/// # Safety
/// `log` can be called from any thread, by several at a time and from now on, with this context
/// and a line that is valid during the call; and it returns: it neither throws nor jumps out.
pub(crate) unsafe fn set(level: u32, log: Log, context: *mut c_void) {
    prepare();
    let target = Target { log, context: context.expose_provenance() };
    *TARGET.lock() = target;
    LEVEL.store(level, Ordering::Relaxed);
    // Callsites cache whether their events are enabled: the level has changed.
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

/// Formats each event as a line. It uses no thread-local data with a destructor: threads fail
/// calls, and log, even while they end.
struct Lines;

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("gasp")
            && level(*metadata.level()) <= LEVEL.load(Ordering::Relaxed)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        emit(level(*event.metadata().level()), line.0);
    }

    // Spans are not used.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The message of an event, then its fields.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, "{name}={value:?}"),
        };
    }
}

/// Passes a line to the program's function, or writes it to stderr.
fn emit(level: u32, line: String) {
    let mut bytes = line.into_bytes();
    bytes.retain(|&byte| byte != 0 && byte != b'\n');
    let target = *TARGET.lock();
    let Some(log) = target.log else {
        bytes.splice(..0, *b"gasp: ");
        bytes.push(b'\n');
        // Nobody is left to whom it could be reported that stderr is closed or its file full; and
        // neither ends the program.
        let _ = gasp::signal::without_signals(|| io::stderr().write_all(&bytes));
        return;
    };
    let Ok(line) = CString::new(bytes) else { return };
    let context = core::ptr::with_exposed_provenance_mut(target.context);
    // Events that the function itself causes are not logged: it would recurse for ever.
    if EMITTING.replace(true) {
        return;
    }
    // SAFETY: `set`, which alone writes a function to `TARGET`, asks that it can be called from any
    // thread with the context of the same call, which the lock has kept with it, and returns.
    // `line` is a C string that outlives the call.
    unsafe { log(context, level, line.as_ptr()) };
    EMITTING.set(false);
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
            // Rust's runtime ignores SIGPIPE; a program in C has the default action.
            // SAFETY: the default action has no handler that could be wrong.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            emit(GASP_LOG_WARN, "nobody reads this".into());
        }
    }
}
