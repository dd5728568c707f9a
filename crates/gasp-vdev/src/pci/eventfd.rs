//! Eventfds that are shared with a VMM, without trust in it.
//!
//! An eventfd is also the VMM's, with all its flags: it can fill the counter, and make
//! writes to it block. So nobody writes to one that is full, and never under the lock. What
//! remains is a VMM that does both between the look and the write: it holds up the thread
//! that signals, which is its own device's. A device's thread that is to stop is freed again
//! by emptying the counter, unless the VMM has taken that eventfd away meanwhile.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};

use super::irq_kind::IrqKind;
use crate::error::IrqError;

/// Signals eventfds; without the lock.
pub(super) fn notify(events: impl IntoIterator<Item = Arc<OwnedFd>>) {
    for event in events {
        // A counter that is full is a VMM that has not looked for 2^64 - 2 interrupts: it
        // will find this one, too.
        if !is_full(&event)
            && let Err(errno) = rustix::io::write(&event, &1_u64.to_ne_bytes())
        {
            tracing::debug!(%errno, "an interrupt was not delivered");
        }
    }
}

/// Whether a write to it would block.
pub(super) fn is_full(event: &OwnedFd) -> bool {
    !is_ready(event, PollFlags::OUT)
}

/// Whether there is anything in it.
pub(super) fn is_counting(event: &OwnedFd) -> bool {
    is_ready(event, PollFlags::IN)
}

fn is_ready(event: &OwnedFd, flags: PollFlags) -> bool {
    let mut fds = [PollFd::new(event, flags)];
    let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok() && fds.iter().any(|fd| fd.revents().contains(flags))
}

/// Takes what is in a counter; whether there was anything. Does not block, whatever the
/// descriptor's flags say: at most, where the kernel is older than 5.8, if somebody else
/// empties the counter at the same time.
pub(super) fn empty(event: &OwnedFd) -> bool {
    if !is_counting(event) {
        return false;
    }
    let mut count = [0; 8];
    let into = &mut [IoSliceMut::new(&mut count)];
    // This offset means: where the descriptor is.
    match rustix::io::preadv2(event, into, u64::MAX, ReadWriteFlags::NOWAIT) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => rustix::io::read(event, &mut count).is_ok(),
        read => read.is_ok(),
    }
}

/// Sees to it that a write to a descriptor from outside cannot do harm: it is an eventfd (as
/// far as can be told: not without `/proc`), and does not block, unless its peer makes it
/// block again.
pub(super) fn prepare_event(kind: IrqKind, event: BorrowedFd<'_>) -> Result<(), IrqError> {
    let name = rustix::fs::readlink(format!("/proc/self/fd/{}", event.as_raw_fd()), Vec::new());
    if name.is_ok_and(|name| name.to_bytes() != b"anon_inode:[eventfd]") {
        return Err(IrqError::NotAnEvent(kind));
    }
    let flags = rustix::fs::fcntl_getfl(event).map_err(|_| IrqError::NotAnEvent(kind))?;
    rustix::fs::fcntl_setfl(event, flags | OFlags::NONBLOCK).map_err(|_| IrqError::NotAnEvent(kind))
}
