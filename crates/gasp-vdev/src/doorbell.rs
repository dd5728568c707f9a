//! The doorbell that wakes a device's thread: an eventfd, so that rings add up and none is lost.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// A doorbell that one thread waits on and any thread rings.
#[derive(Debug)]
pub(crate) struct Doorbell(OwnedFd);

impl Doorbell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC)?))
    }

    /// Wakes the waiting thread, or makes its next wait return at once.
    pub(crate) fn ring(&self) {
        // This blocks only after 2^64 - 2 rings without a wait.
        if let Err(errno) =
            rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &1_u64.to_ne_bytes()))
        {
            tracing::error!(%errno, "a doorbell cannot be rung");
        }
    }

    /// A handle to the same doorbell.
    pub(crate) fn bell(&self) -> io::Result<Bell> {
        Ok(Bell(Self(self.0.try_clone()?)))
    }

    /// The eventfd that a ring signals.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Waits until the doorbell has been rung since the last wait.
    pub(crate) fn wait(&self) -> Result<(), Errno> {
        let mut count = [0; 8];
        rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut count)).map(|_| ())
    }
}

/// A handle that rings a device's doorbell from any thread, such as one that waits for a file.
///
/// [`DeviceContext::bell`](crate::DeviceContext::bell) returns one. It can be kept longer than its
/// VMM is attached; it then rings for nobody.
#[derive(Debug)]
pub struct Bell(Doorbell);

impl Bell {
    /// Wakes the device's thread, as [`DeviceContext::ring`](crate::DeviceContext::ring) does.
    pub fn ring(&self) {
        self.0.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_before_a_wait_end_it_at_once_and_together() {
        let bell = Doorbell::new().unwrap();
        bell.ring();
        bell.ring();
        bell.wait().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| bell.wait());
            bell.ring();
            waiting.join().unwrap().unwrap();
        });
    }
}
