//! Eventfds, most of them shared with a VMM that is not trusted.
//!
//! Such a VMM shares the counter and the flags of an eventfd: it can fill the counter, and make writes
//! block. So nothing is written to a full counter, nor under the lock. A VMM that does both between
//! the check and the write still blocks the thread that signals, which is its own device's. A
//! device's thread that is to stop is unblocked by emptying the counter, unless the VMM has removed
//! that eventfd meanwhile.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};

use super::irq_kind::IrqKind;
use crate::error::IrqError;

/// The eventfd of an interrupt.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) fd: OwnedFd,
    /// Whether a VMM that is not trusted has it as well.
    pub(super) shared: bool,
}

/// Signals eventfds. The caller does not hold the lock.
pub(super) fn notify(events: impl IntoIterator<Item = Arc<Event>>) {
    for event in events {
        // A VMM whose counter is full has not read 2^64 - 2 interrupts: it will notice this one,
        // too.
        if !(event.shared && is_full(&event.fd))
            && let Err(errno) = rustix::io::write(&event.fd, &1_u64.to_ne_bytes())
        {
            tracing::debug!(%errno, "an interrupt was not delivered");
        }
    }
}

/// Whether a write would block.
pub(super) fn is_full(event: &OwnedFd) -> bool {
    !is_ready(event, PollFlags::OUT)
}

/// Whether the counter is not 0.
pub(super) fn is_counting(event: &OwnedFd) -> bool {
    is_ready(event, PollFlags::IN)
}

fn is_ready(event: &OwnedFd, flags: PollFlags) -> bool {
    let mut fds = [PollFd::new(event, flags)];
    let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok() && fds.iter().any(|fd| fd.revents().contains(flags))
}

/// Resets a counter to 0; returns whether it was not 0. Does not block, whatever the descriptor's
/// flags say; except, on a kernel before 5.8, if somebody else empties the counter at the same
/// time.
pub(super) fn empty(event: &OwnedFd) -> bool {
    if !is_counting(event) {
        return false;
    }
    let mut count = [0; 8];
    let into = &mut [IoSliceMut::new(&mut count)];
    // This offset, -1, means the descriptor's own.
    match rustix::io::preadv2(event, into, u64::MAX, ReadWriteFlags::NOWAIT) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => rustix::io::read(event, &mut count).is_ok(),
        read => read.is_ok(),
    }
}

/// Makes a descriptor from outside safe to write to: checks that it is an eventfd (if `/proc` says
/// what it is), and makes it non-blocking, until its peer makes it block again.
pub(super) fn prepare_event(kind: IrqKind, event: BorrowedFd<'_>) -> Result<(), IrqError> {
    let name = rustix::fs::readlink(format!("/proc/self/fd/{}", event.as_raw_fd()), Vec::new());
    if name.is_ok_and(|name| name.to_bytes() != b"anon_inode:[eventfd]") {
        return Err(IrqError::NotAnEvent(kind));
    }
    let flags = rustix::fs::fcntl_getfl(event).map_err(|_| IrqError::NotAnEvent(kind))?;
    rustix::fs::fcntl_setfl(event, flags | OFlags::NONBLOCK).map_err(|_| IrqError::NotAnEvent(kind))
}
