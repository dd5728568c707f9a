//! The stop request, which ends every wait of a server.

use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::io::Errno;

/// Reason of a connection that ends because its server is stopped.
pub(crate) const STOPS: &str = "the server stops";

/// Whether a stop was requested, as a flag and as an eventfd.
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
