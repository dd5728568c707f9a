//! Whether a file's pages are kept by this host, or come from somebody who need not answer.
//!
//! An access to a page of a file on FUSE, or on a network, waits for whoever serves it, in a
//! way that nothing but a kill ends. So does almost every question about such a file:
//! fstat(2), fstatfs(2), closing it. What is asked here is answered by the kernel alone.

use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, StatxFlags, statx};

use crate::error::{Errno, Reason};

/// Refuses a file whose server might not answer.
///
/// A file on tmpfs or hugetlbfs, as each memfd is, and one on a block device of this host are
/// served by the kernel. A file system without a device is on FUSE, on a network, or stacked
/// on another (overlayfs) of which nothing is known; or it is one of the few that have no
/// single device (btrfs, ZFS), which cannot be told from these without asking.
///
/// # Errors
/// `ENODEV`, as mmap(2) has it for file systems that cannot be mapped; also for what is no
/// regular file.
///
/// # References
/// [statx(2)](https://man7.org/linux/man-pages/man2/statx.2.html), `AT_STATX_DONT_SYNC`
pub(super) fn check(fd: &OwnedFd) -> Result<(), Reason> {
    // Only these have seals.
    if rustix::fs::fcntl_get_seals(fd).is_ok() {
        return Ok(());
    }
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let known = statx(fd, "", flags, StatxFlags::TYPE).map_err(Reason::os("statx"))?;
    match (FileType::from_raw_mode(known.stx_mode.into()), known.stx_dev_major) {
        (FileType::RegularFile, 0) => Err(Reason::Os {
            what: "adopting a file that is neither in memory nor on a block device of this host, of \
                   an owner who is not trusted to serve it (FUSE, a network, an overlay),",
            errno: Errno::NODEV,
        }),
        (FileType::RegularFile, _) => Ok(()),
        (other, _) => Err(Reason::NotAFile(name(other))),
    }
}

/// The most descriptors that are being closed aside at a time; further ones stay open.
const ASIDE_MAX: usize = 64;

/// Closes a descriptor that somebody handed over, without waiting for the server of its file:
/// a thread of its own does if the file is not [this host's](super::MemoryObject::adopt). If 64 of
/// them are waiting for their servers, further descriptors are left open for good.
///
/// close(2) asks the server of a FUSE or network file to take what was written, each time that
/// a descriptor of it is closed. A socket does not linger (`SO_LINGER` is set to that).
pub fn close(fd: OwnedFd) {
    static ASIDE: AtomicUsize = AtomicUsize::new(0);
    match check(&fd) {
        Ok(()) => return drop(fd),
        Err(Reason::Os { .. }) => {}
        Err(_) => {
            // A socket waits until its peer has taken everything, if it is told to linger.
            let _ = rustix::net::sockopt::set_socket_linger(&fd, None);
            return drop(fd);
        }
    }
    if ASIDE.fetch_add(1, Ordering::Relaxed) >= ASIDE_MAX {
        ASIDE.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!("a descriptor is left open: too many are being closed by slow servers");
        return core::mem::forget(fd);
    }
    // If there is no thread to be had, the closure that was to run is dropped here, and the
    // descriptor must not be dropped with it.
    let fd = ManuallyDrop::new(fd);
    let close = move || {
        drop(ManuallyDrop::into_inner(fd));
        ASIDE.fetch_sub(1, Ordering::Relaxed);
    };
    if let Err(error) = std::thread::Builder::new().name("gasp-close".into()).spawn(close) {
        ASIDE.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!(%error, "a descriptor is left open: no thread can be started");
    }
}

/// What a descriptor is that is no memory.
pub(super) fn name(kind: FileType) -> &'static str {
    match kind {
        FileType::CharacterDevice => "a device",
        FileType::BlockDevice => "a block device",
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        _ => "an eventfd or the like",
    }
}
