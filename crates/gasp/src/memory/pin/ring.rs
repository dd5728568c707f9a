//! A long-term pin through io_uring's registered buffers.
//!
//! The kernel accepts buffers of at most 1 GiB, so an object is registered as several, in a sparse
//! table. Closing a ring releases pages only some time later, and a forked child that inherited it
//! would keep them, so the buffers are unregistered explicitly.
#![allow(unsafe_code, reason = "registers raw memory with the kernel")]

use io_uring::IoUring;

use crate::memory::window::Window;

/// The maximum length of a registered buffer, in bytes.
const BUFFER_LEN: usize = 1 << 30;
/// The maximum number of registered buffers.
const BUFFERS_MAX: usize = 1 << 14;

/// A pin on all pages of one window, until dropped.
pub(crate) struct RingPin {
    ring: IoUring,
}

impl core::fmt::Debug for RingPin {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RingPin")
    }
}

impl RingPin {
    /// Pins all of `window`.
    ///
    /// # Errors
    /// Why the kernel refuses, and what would help.
    pub(super) fn new(window: &Window) -> Result<Self, &'static str> {
        let buffers = window.len().div_ceil(BUFFER_LEN);
        let count = u32::try_from(buffers).ok().filter(|_| buffers <= BUFFERS_MAX);
        let count = count.ok_or("the object is larger than 16 TiB")?;
        let ring = IoUring::new(1).map_err(|error| refusal(&error))?;
        let submitter = ring.submitter();
        submitter.register_buffers_sparse(count).map_err(|error| refusal(&error))?;
        for (index, start) in (0..count).zip((0..window.len()).step_by(BUFFER_LEN)) {
            let iovec = iovec(window, start, BUFFER_LEN.min(window.len() - start));
            // SAFETY: `register_buffers_update` requires that the buffer is valid until it is
            // unregistered or the ring is destroyed. It is inside the window, and the object that
            // owns both drops this pin, which unregisters it and closes the ring, before it unmaps
            // the window. The kernel never writes to the buffers, because no request is ever
            // submitted on this ring.
            unsafe { submitter.register_buffers_update(index, &[iovec], None) }
                .map_err(|error| refusal(&error))?;
        }
        Ok(Self { ring })
    }
}

impl Drop for RingPin {
    fn drop(&mut self) {
        // Closing the ring would release the pages, too, but only some time later.
        if let Err(error) = self.ring.submitter().unregister_buffers() {
            tracing::warn!(%error, "cannot unregister buffers: their pages are released later");
        }
    }
}

fn iovec(window: &Window, start: usize, len: usize) -> libc::iovec {
    // SAFETY: `start < window.len()`, by the loop of `RingPin::new`, the only caller, so the sum is
    // inside the window, which is no longer than `isize::MAX`.
    let base = unsafe { window.base().add(start) };
    libc::iovec { iov_base: base.cast(), iov_len: len }
}

fn refusal(error: &std::io::Error) -> &'static str {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            "io_uring is disabled here (sysctl kernel.io_uring_disabled or a seccomp filter)"
        }
        Some(Errno::NOSYS | Errno::INVAL) => {
            "the kernel has no io_uring buffer table (5.19 or newer is needed)"
        }
        Some(Errno::NOMEM) => {
            "RLIMIT_MEMLOCK is too small to pin guest RAM; raise it (ulimit -l) or grant \
             CAP_IPC_LOCK"
        }
        Some(Errno::FAULT | Errno::OPNOTSUPP) => {
            "the kernel does not pin pages of this file or of a read-only mapping"
        }
        _ => "the kernel refuses to pin these pages",
    }
}
