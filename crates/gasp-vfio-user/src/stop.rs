//! The order to end, which every wait of a server also waits for.

use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::io::Errno;

use crate::socket::SocketFile;

/// Ends a [`Server::run`](crate::Server::run).
#[derive(Clone, Debug)]
pub struct Stopper {
    pub(crate) stop: Arc<Stop>,
    pub(crate) file: Arc<SocketFile>,
}

impl Stopper {
    /// Asks the server to end: the VMM is disconnected, the device detached. May be called
    /// more than once, from any thread.
    ///
    /// The socket file is removed before this returns, however long the device takes to end
    /// its work. A process that exits without waiting for its servers leaves none.
    pub fn stop(&self) {
        self.file.remove();
        self.stop.ask();
    }
}

/// Whether the server is to end.
#[derive(Debug)]
pub(crate) struct Stop {
    asked: AtomicBool,
    event: OwnedFd,
}

impl Stop {
    pub(crate) fn new() -> Result<Self, Errno> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { asked: AtomicBool::new(false), event })
    }

    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        if let Err(errno) = rustix::io::write(&self.event, &1_u64.to_ne_bytes()) {
            tracing::debug!(%errno, "a stop was requested very often");
        }
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Readable once a stop was requested.
    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.event, PollFlags::IN)
    }
}
