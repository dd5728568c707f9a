//! Eventfds that KVM signals or listens to.
#![allow(unsafe_code, reason = "kvm-ioctls takes another type of eventfds than the devices")]

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use vmm_sys_util::eventfd::EventFd;

/// A new eventfd that is not blocking.
pub(crate) fn create() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// The same eventfd, in the type that kvm-ioctls takes.
pub(crate) fn for_kvm(event: OwnedFd) -> EventFd {
    // SAFETY: the descriptor is open, and nobody else owns it, because it comes out of an `OwnedFd`.
    unsafe { EventFd::from_raw_fd(event.into_raw_fd()) }
}
