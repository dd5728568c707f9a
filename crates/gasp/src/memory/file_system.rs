//! Whether this host keeps the pages of a file, or a server that need not answer.
//!
//! An access to a page of a file on FUSE or on a network waits for its server, and only a kill ends
//! that wait. So does almost every system call about such a file: fstat(2), fstatfs(2), close(2).
//! Those here are answered by the kernel alone.

use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, StatxFlags, statx};

use crate::error::{Errno, Reason};

/// Refuses a file whose server might not answer.
///
/// The kernel serves files on tmpfs or hugetlbfs, which includes every memfd, and files on a block
/// device of this host. A file system without a device is FUSE, on a network, or stacked on another
/// (overlayfs) of which nothing is known; or it is one of the few that have no single device
/// (btrfs, ZFS), which cannot be distinguished from these without asking the server.
///
/// # Errors
/// `ENODEV`, which mmap(2) returns for file systems that cannot be mapped; also if it is not a
/// regular file.
///
/// # References
/// [statx(2)](https://man7.org/linux/man-pages/man2/statx.2.html), `AT_STATX_DONT_SYNC`
pub(super) fn check(fd: &OwnedFd) -> Result<(), Reason> {
    // Only files on tmpfs and hugetlbfs have seals.
    if rustix::fs::fcntl_get_seals(fd).is_ok() {
        return Ok(());
    }
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let known = statx(fd, "", flags, StatxFlags::TYPE).map_err(Reason::os("statx"))?;
    match (FileType::from_raw_mode(known.stx_mode.into()), known.stx_dev_major) {
        (FileType::RegularFile, 0) => Err(Reason::Os { what: UNTRUSTED, errno: Errno::NODEV }),
        (FileType::RegularFile, _) => Ok(()),
        (other, _) => Err(Reason::NotAFile(name(other))),
    }
}

const UNTRUSTED: &str = "adopting a file of an owner who is not trusted, on FUSE, a network or an \
                         overlay,";

/// The maximum number of descriptors that threads of their own close at a time; further ones stay
/// open.
const ASIDE_MAX: usize = 64;

/// Closes a descriptor that somebody handed over, without waiting for the server of its file: if
/// this host does not keep the pages of [the file](super::MemoryObject::adopt), a thread of its own
/// closes it. While 64 such threads wait for servers, further descriptors are left open for good.
///
/// close(2) asks the server of a FUSE or network file to accept what was written, each time that a
/// descriptor of it is closed. A socket does not linger: `SO_LINGER` is switched off first.
pub fn close(fd: OwnedFd) {
    static ASIDE: AtomicUsize = AtomicUsize::new(0);
    match check(&fd) {
        Ok(()) => return drop(fd),
        Err(Reason::Os { .. }) => {}
        Err(_) => {
            // If a socket is set to linger, its close waits until the peer has received everything.
            let _ = rustix::net::sockopt::set_socket_linger(&fd, None);
            return drop(fd);
        }
    }
    if ASIDE.fetch_add(1, Ordering::Relaxed) >= ASIDE_MAX {
        ASIDE.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!("a descriptor is left open: too many others wait for slow servers");
        return core::mem::forget(fd);
    }
    // If no thread can be started, `spawn` drops the closure in this thread, which must not close
    // the descriptor.
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

/// The kind of a descriptor that is not memory, for messages.
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
