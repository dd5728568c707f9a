//! The terminal in raw mode: every key goes to the guest at once, and none to the shell.

use core::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Once;

use parking_lot::Mutex;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// The terminal as it was, while it is raw.
static BEFORE: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// A terminal in raw mode, until this is dropped. A panic restores it as well, before its message
/// is printed; a program that ends by [`exit`](std::process::exit) calls [`restore`](Self::restore)
/// before.
#[must_use = "dropping it restores the terminal"]
pub struct RawTerminal(());

impl RawTerminal {
    /// Makes a terminal raw. Returns `None` if `fd` is none, or one is raw already.
    ///
    /// # Errors
    /// Those of tcgetattr(3) and tcsetattr(3).
    pub fn enter(fd: impl AsFd) -> io::Result<Option<Self>> {
        static HOOK: Once = Once::new();
        let mut before = BEFORE.lock();
        if before.is_some() || !isatty(&fd) {
            return Ok(None);
        }
        HOOK.call_once(|| {
            let others = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                Self::restore();
                others(panic);
            }));
        });
        let fd = fd.as_fd().try_clone_to_owned()?;
        let was = tcgetattr(&fd)?;
        let mut raw = was.clone();
        raw.make_raw();
        tcsetattr(&fd, OptionalActions::Now, &raw)?;
        *before = Some((fd, was));
        Ok(Some(Self(())))
    }

    /// Restores the terminal, if it is raw.
    pub fn restore() {
        if let Some((fd, was)) = BEFORE.lock().take() {
            // It can only have gone.
            let _ = tcsetattr(&fd, OptionalActions::Now, &was);
        }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        Self::restore();
    }
}

impl fmt::Debug for RawTerminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawTerminal").finish_non_exhaustive()
    }
}
