//! What the service is asked to do, one thing after another.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use signal_hook::low_level;

use super::id::Id;
use super::sockets::Sockets;
use crate::signal::{Asked, on_signals};

/// How long a stop may take before the process ends without it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The exit status then, and after a second signal: that of a shell for SIGINT.
const KILLED: i32 = 130;

/// What the service is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// SIGINT or SIGTERM: end.
    End,
    /// SIGHUP: read the configuration again.
    Reload,
    /// The thread of this device has ended.
    Ended(Id),
}

/// The orders, and what others send them with.
pub(super) struct Orders {
    pub(super) sender: Sender<Order>,
    receiver: Receiver<Order>,
    /// Whether a reload waits to be carried out: another one would be the same.
    reload: Arc<AtomicBool>,
}

impl Orders {
    /// From now on signals are orders. A second one to end, or a stop that takes too long,
    /// ends the process at once, without the sockets that are left.
    ///
    /// # Errors
    /// If the signals cannot be caught.
    pub(super) fn from_signals(sockets: Sockets) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let reload = Arc::<AtomicBool>::default();
        let (waits, to, mut ending) = (Arc::clone(&reload), sender.clone(), false);
        on_signals(move |asked| match asked {
            Asked::HangUp if waits.swap(true, Ordering::AcqRel) => {}
            // Nobody takes orders any longer: the process ends anyway.
            Asked::HangUp => _ = to.send(Order::Reload),
            Asked::End if ending => end_at_once(&sockets),
            Asked::End => {
                ending = true;
                let _ = to.send(Order::End);
                let sockets = sockets.clone();
                let late = move || {
                    std::thread::sleep(PATIENCE);
                    end_at_once(&sockets);
                };
                if std::thread::Builder::new().name("deadline".into()).spawn(late).is_err() {
                    tracing::warn!("a stop that is stuck is ended by a second signal only");
                }
            }
        })?;
        Ok(Self { sender, receiver, reload })
    }

    /// Waits for the next one.
    pub(super) fn next(&self) -> Order {
        // There is a sender: our own.
        let order = self.receiver.recv().unwrap_or(Order::End);
        if order == Order::Reload {
            // Before the file is read: a change after that is another reload's.
            self.reload.store(false, Ordering::Release);
        }
        order
    }
}

fn end_at_once(sockets: &Sockets) {
    sockets.remove_all();
    low_level::exit(KILLED);
}
