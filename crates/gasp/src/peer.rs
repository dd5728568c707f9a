//! The identity of the process at the other end of a socket.
#![allow(unsafe_code, reason = "calls getsockopt, whose result rustix cannot represent")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// The process at the other end of a Unix socket, as of when it connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Process ID; `None` if this process's PID namespace does not have the peer.
    pub pid: Option<i32>,
    /// Effective user ID.
    pub user: u32,
}

/// The peer of a Unix socket (`SO_PEERCRED`). For the servers of the project: the broker, and
/// those that VMMs connect to.
///
/// It does not use rustix, whose type for a process ID cannot be 0, which is the kernel's
/// answer for a process that is not in this PID namespace.
///
/// # Errors
/// `ENOTSOCK`, and other errors of getsockopt(2).
///
/// # References
/// [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html)
pub fn peer_of(socket: impl AsFd) -> Result<Peer, Errno> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the descriptor is open, as `socket` is borrowed. `len` is initialised and writable.
    // The kernel writes at most `len` bytes to `peer`, which has as many, and whose fields are
    // integers, valid with any value. Both live until the call returns, and the kernel keeps no
    // pointer to them.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    match done {
        0 => Ok(Peer { pid: Some(peer.pid).filter(|&pid| pid > 0), user: peer.uid }),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peer_of_a_pair_is_this_process_and_a_file_has_none() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = peer_of(&one).unwrap();
        assert_eq!(peer.pid, i32::try_from(std::process::id()).ok());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(peer_of(&file), Err(Errno::NOTSOCK));
    }
}
