//! Signals, and waits that they end.
//!
//! | signal | what it does |
//! |---|---|
//! | SIGINT, SIGTERM | ends what waits or serves, in order; see each command |
//! | SIGHUP | `gasp serve` reads its configuration again; it ends what else waits |
//! | SIGPIPE | nothing: Rust's runtime ignores it, and a write to a reader that is gone is `EPIPE` |
//! | SIGXFSZ | nothing: a write past the limit of file sizes is `EFBIG`, an error of what wrote |
//! | SIGBUS | memory that its owner took away: the engine ends the access with `EIO`. Any other one ends the process |
//!
//! Handlers are reset in a program that is started, unlike signals that are ignored, so
//! SIGXFSZ is caught.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// SIGINT or SIGTERM.
    End,
    /// SIGHUP: the terminal is gone, or the configuration has changed.
    HangUp,
}

/// Calls `handler` for each signal, on a thread of its own, instead of ending the process.
/// Signals of one kind that come faster than it returns may be one call.
///
/// # Errors
/// If the handlers cannot be installed, or the thread not started.
pub(crate) fn on_signals(mut handler: impl FnMut(Asked) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let listen = move || {
        for signal in signals.forever() {
            handler(if signal == SIGHUP { Asked::HangUp } else { Asked::End });
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(listen)?;
    Ok(())
}

/// Makes a write past the limit of file sizes (`ulimit -f`) an error, not the process's end.
///
/// # Errors
/// If the handler cannot be installed.
pub(crate) fn survive_file_size_limit() -> io::Result<()> {
    // The signal says nothing that the write's error does not.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    Ok(())
}

/// The end of a wait: a time, or a signal before that.
pub(crate) struct Until {
    pub(crate) time: Duration,
    signal: Receiver<()>,
}

impl Until {
    /// A wait that begins now; signals no longer end the process.
    pub(crate) fn new(time: Duration) -> io::Result<Self> {
        let (sender, signal) = mpsc::channel();
        on_signals(move |_| {
            // Nobody waits any longer: the process ends anyway.
            let _ = sender.send(());
        })?;
        Ok(Self { time, signal })
    }

    /// Waits for it.
    pub(crate) fn wait(self) {
        // Time over, or a signal: the end in both cases.
        let _ = self.wait_for(self.time);
    }

    /// Waits for a while; returns whether a signal has ended the wait for good.
    pub(crate) fn wait_for(&self, time: Duration) -> bool {
        self.signal.recv_timeout(time) != Err(RecvTimeoutError::Timeout)
    }
}
