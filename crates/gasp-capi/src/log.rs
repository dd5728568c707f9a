//! The log: one line an event, to stderr or to a function of the program.
#![allow(unsafe_code, reason = "calls a function that C has given")]

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
    /// Whether this thread is inside the program's function.
    static EMITTING: Cell<bool> = const { Cell::new(false) };
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
        // Refused where the program has a subscriber of its own: that one gets the events.
        let _ = tracing::subscriber::set_global_default(Lines);
    });
}

/// Says how much is logged, and where to.
///
/// # Safety
/// `log` can be called from any thread, by several at a time and from now on, with this context
/// and a line that is valid during the call; and it returns: it neither throws nor jumps out.
pub(crate) unsafe fn set(level: u32, log: Log, context: *mut c_void) {
    prepare();
    let target = Target { log, context: context.expose_provenance() };
    *TARGET.lock() = target;
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

/// Makes a line of each event. It keeps nothing in thread-local data that could be gone
/// before the thread is: threads fail calls, and so log, also while they end.
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

    // There are no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An event's message, then its fields.
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

/// Gives a line to the program's function, or to stderr.
fn emit(level: u32, line: String) {
    let mut bytes = line.into_bytes();
    bytes.retain(|&byte| byte != 0 && byte != b'\n');
    let target = *TARGET.lock();
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
            // A program in C has not been told to ignore it, as one in Rust has.
            // SAFETY: the default action has no handler that could be wrong.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            emit(GASP_LOG_WARN, "nobody reads this".into());
        }
    }
}
