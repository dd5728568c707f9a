//! Where frames go to and come from: a tap interface, or a datagram socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::tap;

/// The outside of a network device, at which Ethernet frames arrive and leave one by one.
#[derive(Debug)]
pub struct Port(Kind);

#[derive(Debug)]
enum Kind {
    Tap(OwnedFd),
    Datagrams(UnixDatagram),
}

impl Port {
    /// The tap interface of this name, which is created if it does not exist and the process may
    /// (`CAP_NET_ADMIN`), and then lasts as long as the port.
    ///
    /// # Errors
    /// If the name is empty or has more than 15 bytes (`EINVAL`), there is no `/dev/net/tun`
    /// (`ENOENT`), it is not permitted (`EPERM`, `EACCES`), or the interface is in use (`EBUSY`).
    pub fn tap(name: &str) -> io::Result<Self> {
        Ok(Self(Kind::Tap(tap::open(name)?)))
    }

    /// A connected datagram socket, of which each message is a frame: one of a pair, of which
    /// another device or a program has the other.
    pub fn datagrams(socket: UnixDatagram) -> Self {
        Self(Kind::Datagrams(socket))
    }

    /// Receives a frame and returns its length; `EAGAIN` if there is none.
    pub(super) fn receive(&self, into: &mut [u8]) -> Result<usize, Errno> {
        match &self.0 {
            Kind::Tap(tap) => retry_on_intr(|| rustix::io::read(tap, &mut *into)),
            Kind::Datagrams(socket) => {
                let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
                // With this flag the length is that of the whole message, whatever fits.
                retry_on_intr(|| recv(socket, &mut *into, flags)).map(|(_, len)| len)
            }
        }
    }

    /// Sends a frame; `EAGAIN` if none is taken now.
    pub(super) fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        let sent = match &self.0 {
            Kind::Tap(tap) => retry_on_intr(|| rustix::io::write(tap, frame)),
            Kind::Datagrams(socket) => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                retry_on_intr(|| send(socket, frame, flags))
            }
        };
        sent.map(|_| ())
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Kind::Tap(tap) => tap.as_fd(),
            Kind::Datagrams(socket) => socket.as_fd(),
        }
    }
}
