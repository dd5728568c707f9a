//! The queue of orders to the service: from signals, and from devices that end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use signal_hook::low_level;

use super::id::Id;
use super::sockets::Sockets;
use crate::signal::{SignalKind, on_signals_and_status};

/// How long an orderly stop may take before the process is ended.
const PATIENCE: Duration = Duration::from_secs(10);
/// The exit status in that case and after a second signal: a shell's for SIGINT.
const KILLED: i32 = 130;

/// An order to the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// SIGINT or SIGTERM: end.
    End,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR2: report the state of vdevs.
    Status,
    /// The thread of this device has ended.
    Ended(Id),
}

/// The queue, with both ends.
pub(super) struct Orders {
    pub(super) sender: Sender<Order>,
    receiver: Receiver<Order>,
    /// Whether a reload is queued: another one would be redundant.
    reload: Arc<AtomicBool>,
}

impl Orders {
    /// Turns signals into orders from now on. A second signal to end, or a stop that takes too
    /// long, ends the process at once, after removing its sockets.
    ///
    /// # Errors
    /// If the signals cannot be caught.
    pub(super) fn from_signals(sockets: Sockets) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let reload = Arc::<AtomicBool>::default();
        let (waits, to, mut ending) = (Arc::clone(&reload), sender.clone(), false);
        on_signals_and_status(move |kind| match kind {
            SignalKind::HangUp if waits.swap(true, Ordering::AcqRel) => {}
            // An error means that the service has ended, and the process ends anyway.
            SignalKind::HangUp => _ = to.send(Order::Reload),
            SignalKind::Status => _ = to.send(Order::Status),
            SignalKind::End if ending => end_at_once(&sockets),
            SignalKind::End => {
                ending = true;
                let _ = to.send(Order::End);
                let sockets = sockets.clone();
                let late = move || {
                    std::thread::sleep(PATIENCE);
                    end_at_once(&sockets);
                };
                if std::thread::Builder::new().name("deadline".into()).spawn(late).is_err() {
                    tracing::warn!("only a second signal will end a stop that is stuck");
                }
            }
        })?;
        Ok(Self { sender, receiver, reload })
    }

    /// Waits for the next order.
    pub(super) fn next(&self) -> Order {
        // The channel is open, because this has a sender itself.
        let order = self.receiver.recv().unwrap_or(Order::End);
        if order == Order::Reload {
            // Before the file is read: a later change needs another reload.
            self.reload.store(false, Ordering::Release);
        }
        order
    }
}

fn end_at_once(sockets: &Sockets) {
    sockets.remove_all();
    low_level::exit(KILLED);
}
