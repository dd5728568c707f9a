//! Who is at the other end of a socket.
#![allow(unsafe_code, reason = "asks the kernel for what rustix cannot hold")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// The process at the other end of a Unix socket, when it connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its number; `None` where it is in another PID namespace.
    pub pid: Option<i32>,
    /// Its effective user.
    pub user: u32,
}

/// Who has connected (`SO_PEERCRED`). For servers beside guest memory: the broker, and those
/// that VMMs connect to.
///
/// rustix has a type for the number of a process that cannot be 0, which is what the kernel
/// says of one in another PID namespace; so it is not asked.
///
/// # Errors
/// `ENOTSOCK` and others of getsockopt(2).
pub fn peer_of(socket: impl AsFd) -> Result<Peer, Errno> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `peer`, which has as many, of numbers
    // that may have any value; both live until it returns.
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
