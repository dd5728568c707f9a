//! Signals, and waits that a signal ends.
//!
//! | signal | effect |
//! |---|---|
//! | SIGINT, SIGTERM | orderly end of a command that waits or serves; see each command |
//! | SIGHUP | `gasp serve` reads its configuration again; other commands that wait end |
//! | SIGUSR2 | `gasp serve` and `gasp vm` report the state of vdevs in C; it ends other commands, as without a handler |
//! | SIGPIPE | none: Rust's runtime ignores it, and a write to a closed pipe returns `EPIPE` |
//! | SIGXFSZ | none: a write past the file size limit returns `EFBIG` |
//! | SIGBUS | if its owner took the memory away, the engine ends the access with `EIO`; any other one ends the process |
//!
//! SIGXFSZ is caught and not ignored, because a program that is started would inherit that,
//! while handlers are reset.

use core::ffi::c_int;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::Signals;

/// What kind of signal has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SignalKind {
    /// SIGINT or SIGTERM.
    End,
    /// SIGHUP: the terminal has been closed, or the configuration has changed.
    HangUp,
    /// SIGUSR2: the state of vdevs is asked for.
    Status,
}

/// Calls `handler` for each signal, on a thread of its own, instead of ending the process.
/// Signals of one kind that arrive before it returns may be merged into one call.
///
/// # Errors
/// If the handlers cannot be installed, or the thread cannot be started.
pub(crate) fn on_signals(handler: impl FnMut(SignalKind) + Send + 'static) -> io::Result<()> {
    on(&[SIGINT, SIGTERM, SIGHUP], handler)
}

/// As [`on_signals`], and for SIGUSR2 as well.
///
/// # Errors
/// As [`on_signals`].
pub(crate) fn on_signals_and_status(
    handler: impl FnMut(SignalKind) + Send + 'static,
) -> io::Result<()> {
    on(&[SIGINT, SIGTERM, SIGHUP, SIGUSR2], handler)
}

fn on(all: &[c_int], mut handler: impl FnMut(SignalKind) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new(all)?;
    let listen = move || {
        for signal in signals.forever() {
            handler(match signal {
                SIGHUP => SignalKind::HangUp,
                SIGUSR2 => SignalKind::Status,
                _ => SignalKind::End,
            });
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(listen)?;
    Ok(())
}

/// Lets a write past the file size limit (`ulimit -f`) return an error, not end the process.
///
/// # Errors
/// If the handler cannot be installed.
pub(crate) fn survive_file_size_limit() -> io::Result<()> {
    // The error of the write says all that the signal does, so the flag is never read.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    Ok(())
}

/// A wait that ends after a time, or earlier by a signal.
pub(crate) struct Until {
    pub(crate) time: Duration,
    signal: Receiver<()>,
}

impl Until {
    /// Catches signals from now on: they end the wait and no longer the process.
    pub(crate) fn new(time: Duration) -> io::Result<Self> {
        let (sender, signal) = mpsc::channel();
        on_signals(move |_| {
            // An error means that the wait is over, and the process ends anyway.
            let _ = sender.send(());
        })?;
        Ok(Self { time, signal })
    }

    /// Waits for the end.
    pub(crate) fn wait(self) {
        // Both the time and a signal end it.
        let _ = self.wait_for(self.time);
    }

    /// Waits for `time`; returns whether a signal has ended the wait for good.
    pub(crate) fn wait_for(&self, time: Duration) -> bool {
        self.signal.recv_timeout(time) != Err(RecvTimeoutError::Timeout)
    }
}
