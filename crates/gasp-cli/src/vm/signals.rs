//! Signals of a VM: the power button, and the view.
//!
//! | signal | effect |
//! |---|---|
//! | SIGINT, SIGTERM, SIGHUP, SIGQUIT | the power button; a second one ends the VM, a third one the process |
//! | SIGUSR1 | a table of counters on stderr |
//! | SIGUSR2 | the state of the vdevs in C on stderr |

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gasp_vm::{End, Ending, PowerButton, RawTerminal};
use parking_lot::Mutex;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::STOPPED;

/// What the signals have asked for.
pub(super) struct Signalled(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    pressed: AtomicBool,
    view: AtomicBool,
    status: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The first signal has arrived.
    pressed: bool,
    /// The machine that runs, with its button if that is the guest's.
    machine: Option<(Option<PowerButton>, Ending)>,
    /// A signal has arrived while there was none.
    ends: bool,
}

/// Signals go to a machine until this is dropped.
#[must_use = "dropping it disconnects the machine"]
pub(super) struct Connected<'a>(&'a Signalled);

impl Signalled {
    /// Catches the signals from now on.
    pub(super) fn install() -> io::Result<Self> {
        let inner = Arc::<Inner>::default();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2])?;
        let to = Arc::clone(&inner);
        let listen = move || {
            for signal in signals.forever() {
                match signal {
                    SIGUSR1 => to.view.store(true, Ordering::Release),
                    SIGUSR2 => to.status.store(true, Ordering::Release),
                    _ => to.press(),
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(listen)?;
        Ok(Self(inner))
    }

    /// Passes signals to this machine. If one has arrived before, the machine ends at once. Without
    /// a button a press is only noted.
    pub(super) fn connect(&self, button: Option<PowerButton>, ending: &Ending) -> Connected<'_> {
        let mut state = self.0.state.lock();
        if state.ends {
            ending.request(End::Stopped);
        }
        // Another machine, another button.
        state.pressed = false;
        state.machine = Some((button, ending.clone()));
        Connected(self)
    }

    /// Whether the power button was pressed since the last call.
    pub(super) fn take_press(&self) -> bool {
        self.0.pressed.swap(false, Ordering::AcqRel)
    }

    /// Whether the state of the vdevs was asked for since the last call.
    pub(super) fn take_status(&self) -> bool {
        self.0.status.swap(false, Ordering::AcqRel)
    }

    /// Whether the view was asked for since the last call.
    pub(super) fn take_view(&self) -> bool {
        self.0.view.swap(false, Ordering::AcqRel)
    }
}

impl Inner {
    fn press(&self) {
        let mut state = self.state.lock();
        let again = core::mem::replace(&mut state.pressed, true);
        match &state.machine {
            Some((button, _)) if !again => {
                if let Some(button) = button {
                    button.press();
                }
                self.pressed.store(true, Ordering::Release);
            }
            // It ends already, or is about to begin: something takes too long.
            Some((_, ending)) if !ending.request(End::Stopped) => end_at_once(),
            Some(_) => {}
            None if again => end_at_once(),
            None => state.ends = true,
        }
    }
}

/// Ends the process without waiting for anything.
fn end_at_once() {
    RawTerminal::restore();
    low_level::exit(STOPPED.into());
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.0.state.lock().machine = None;
    }
}
