//! The socket file: created for its owner alone, never taken from a live server, removed at
//! the end.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::BindError;

/// Backlog of the socket; the kernel refuses further connections.
const BACKLOG: i32 = 8;

/// How long to try to acquire the lock, and how often. It is held only briefly.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// A listening stream socket with a file of its own: created with its permissions, never taken from
/// another server that still listens, taken over from one that has gone, and removed at the end.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    file: Arc<SocketFile>,
}

/// The file of the socket, which is removed once.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode number of the server's own file.
    inode: (u64, u64),
    removed: AtomicBool,
}

impl SocketFile {
    /// Removes the file if it is still this server's. Only the first call does: after that,
    /// a file with the same inode may be another server's.
    pub(crate) fn remove(&self) {
        if self.removed.swap(true, Ordering::AcqRel) {
            return;
        }
        let ours = rustix::fs::lstat(&self.path)
            .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.inode);
        if ours && let Err(errno) = rustix::fs::unlink(&self.path) {
            tracing::warn!(path = %self.path.display(), %errno, "the socket cannot be removed");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Listener {
    /// Listens at `path`. `mode` is the file's permissions.
    ///
    /// # Errors
    /// If another server listens there, the file is no socket, or it cannot be created.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, BindError> {
        let fail = |source: Errno| BindError::System { path: path.into(), source: source.into() };
        let address = SocketAddrUnix::new(path).map_err(fail)?;
        // Of two servers that start at the same time, one could find a stale file and
        // remove the other's new one.
        let _lock = Lock::acquire(path)?;
        remove_stale(path, &address)?;
        let fd = socket().map_err(fail)?;
        // Before the file exists, so that it never has another mode.
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(fail)?;
        rustix::net::bind(&fd, &address).map_err(|errno| match errno {
            Errno::ADDRINUSE => BindError::InUse { path: path.into() },
            errno => fail(errno),
        })?;
        let stat = set_mode(path, mode).map_err(fail)?;
        let inode = (stat.st_dev, stat.st_ino);
        let file = SocketFile { path: path.into(), inode, removed: AtomicBool::new(false) };
        let listener = Self { fd, file: Arc::new(file) };
        rustix::net::listen(&listener.fd, BACKLOG).map_err(fail)?;
        Ok(listener)
    }

    /// Accepts the next connection, if one is waiting.
    pub(crate) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match rustix::net::accept_with(&self.fd, SocketFlags::CLOEXEC) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    pub(crate) fn file(&self) -> Arc<SocketFile> {
        Arc::clone(&self.file)
    }
}

impl AsFd for Listener {
    /// The socket, which is not blocking.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A stopper, which shares the file, may live longer.
        self.file.remove();
    }
}

/// The lock for creating a socket, until it is dropped: a file of our own, which nobody
/// else can open. The folder itself could be locked by anybody.
struct Lock {
    _fd: OwnedFd,
    path: PathBuf,
}

impl Lock {
    fn acquire(socket: &Path) -> Result<Self, BindError> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let since = Instant::now();
        loop {
            match Self::try_acquire(&path) {
                Ok(fd) => return Ok(Self { _fd: fd, path }),
                Err(Errno::AGAIN) if since.elapsed() >= PATIENCE => {
                    let what = "another process holds this lock file and does not release it";
                    let source = io::Error::new(io::ErrorKind::TimedOut, what);
                    return Err(BindError::System { path, source });
                }
                Err(Errno::AGAIN) => std::thread::sleep(PAUSE),
                Err(errno) => return Err(BindError::System { path, source: errno.into() }),
            }
        }
    }

    fn try_acquire(path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // `NONBLOCK`: another user may have put a FIFO there, for one.
        let fd = rustix::fs::open(path, flags | OFlags::NONBLOCK, Mode::from_raw_mode(0o600))?;
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
        // The previous holder has removed the file: by now, another may exist at this path.
        let ours = rustix::fs::fstat(&fd)?;
        match rustix::fs::lstat(path) {
            Ok(there) if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) => Ok(fd),
            Ok(_) | Err(Errno::NOENT) => Err(Errno::AGAIN),
            Err(errno) => Err(errno),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked.
        if let Err(errno) = rustix::fs::unlink(&self.path) {
            tracing::warn!(path = %self.path.display(), %errno, "the lock file cannot be removed");
        }
    }
}

fn socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Sets the permissions of the socket file that the process's umask has masked. Nobody can
/// connect yet.
fn set_mode(path: &Path, mode: u32) -> Result<Stat, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
    if is_socket && stat.st_mode & 0o777 != mode & 0o777 {
        // Through its descriptor, so that it is this file whatever the path leads to by
        // now.
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::chmod(name, Mode::from_raw_mode(mode))?;
    }
    Ok(stat)
}

/// Removes a stale socket, on which nobody listens any more.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), BindError> {
    let fail = |source: Errno| BindError::System { path: path.into(), source: source.into() };
    let stat = match rustix::fs::lstat(path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(fail(errno)),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(BindError::NotASocket { path: path.into() });
    }
    match rustix::net::connect(&socket().map_err(fail)?, address) {
        Err(Errno::CONNREFUSED) => {
            tracing::info!(path = %path.display(), "removes the stale socket of an earlier server");
            rustix::fs::unlink(path).map_err(fail)
        }
        // Connected, or would be if there were room in the backlog.
        Ok(()) | Err(Errno::AGAIN) => Err(BindError::InUse { path: path.into() }),
        Err(errno) => Err(fail(errno)),
    }
}
