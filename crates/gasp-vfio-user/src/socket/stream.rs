//! Sends and receives whole messages over one connection.
//!
//! No wait is unbounded: a peer that does not finish a message it has begun, or does not
//! read what is sent to it, has a deadline, and the connection ends at it.

use core::mem::MaybeUninit;
use core::time::Duration;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown,
};
use zerocopy::{FromZeros, IntoBytes};

use super::received::Received;
use crate::stop::Stop;
use crate::wire::Header;

/// Maximum number of descriptors accepted with one message.
pub(crate) const FDS_MAX: usize = 16;

/// A received message.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    pub(crate) fds: Received,
    /// Whether descriptors were lost, because more came than are accepted or than the
    /// process can hold.
    pub(crate) fds_lost: bool,
    /// When its first byte was read.
    pub(crate) since: Instant,
}

/// Why no message was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// The peer has closed the connection, or it broke.
    Closed,
    /// The peer did not finish a message, or did not read one, in time.
    Stalled,
    /// A stop was requested, and the peer is no longer waited for.
    Stopped,
    /// The size in a header is invalid: the start of the next message is unknown.
    Unframed(Header),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: Arc<OwnedFd>,
    /// Held while a message is written, so that messages do not mix. Whether a message was
    /// left unfinished: nothing can be sent after it.
    sending: Mutex<bool>,
    /// Maximum size of a message that is accepted, in bytes.
    limit: usize,
    patience: Duration,
    stop: Arc<Stop>,
}

/// The right to send, until it is dropped.
pub(crate) struct Sending<'a> {
    stream: &'a Stream,
    broken: MutexGuard<'a, bool>,
}

impl Stream {
    pub(crate) fn new(fd: Arc<OwnedFd>, limit: usize, patience: Duration, stop: Arc<Stop>) -> Self {
        Self { fd, sending: Mutex::new(false), limit, patience, stop }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether a stop was requested.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_asked()
    }

    /// Reads the next message; `None` if none has begun yet. Called by one thread at a
    /// time.
    pub(crate) fn receive(&self) -> Result<Option<Packet>, Ended> {
        let mut fds = Received::default();
        let mut fds_lost = false;
        let mut header = Header::new_zeroed();
        let mut have = 0;
        let mut since = None;
        while let Some(rest) = header.as_mut_bytes().get_mut(have..).filter(|rest| !rest.is_empty())
        {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let got =
                rustix::net::recvmsg(&*self.fd, &mut [IoSliceMut::new(rest)], &mut control, flags);
            match got {
                Ok(got) if got.bytes == 0 => return Err(Ended::Closed),
                Ok(got) => {
                    have += got.bytes;
                    fds_lost |= got.flags.contains(ReturnFlags::CTRUNC);
                    for message in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(rights) = message {
                            fds.extend(rights);
                        }
                    }
                    since.get_or_insert_with(Instant::now);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => match since {
                    None => return Ok(None),
                    Some(since) => self.wait(PollFlags::IN, since)?,
                },
                Err(_) => return Err(Ended::Closed),
            }
        }
        // A peer that sends its header byte by byte must not accumulate descriptors.
        fds_lost |= fds.len() > FDS_MAX;
        fds.truncate(FDS_MAX);
        let since = since.unwrap_or_else(Instant::now);
        let size = header.size as usize;
        if size < Header::SIZE || size > self.limit {
            return Err(Ended::Unframed(header));
        }
        let mut payload = vec![0; size - Header::SIZE];
        let mut have = 0;
        while let Some(rest) = payload.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match rustix::net::recv(&*self.fd, rest, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(Ended::Closed),
                Ok((_, got)) => have += got,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, since)?,
                Err(_) => return Err(Ended::Closed),
            }
        }
        Ok(Some(Packet { header, payload, fds, fds_lost, since }))
    }

    /// Waits for the socket until `patience` after `since`, or until a stop is requested.
    fn wait(&self, flags: PollFlags, since: Instant) -> Result<(), Ended> {
        if self.stop.is_asked() {
            return Err(Ended::Stopped);
        }
        let left = self.patience.saturating_sub(since.elapsed());
        if left.is_zero() {
            return Err(Ended::Stalled);
        }
        let mut fds = [PollFd::new(&*self.fd, flags), self.stop.poll_fd()];
        match poll(&mut fds, timespec(left).as_ref()) {
            Ok(0) => Err(Ended::Stalled),
            Ok(_) if self.stop.is_asked() => Err(Ended::Stopped),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(_) => Err(Ended::Closed),
        }
    }

    /// Shuts the connection down in both directions, which ends all waits to send.
    pub(crate) fn shut(&self) {
        // This fails only if the connection has already ended.
        let _ = rustix::net::shutdown(&*self.fd, Shutdown::Both);
    }

    /// Acquires the right to send; other threads wait for it.
    pub(crate) fn sending(&self) -> Sending<'_> {
        let broken = self.sending.lock();
        Sending { stream: self, broken }
    }

    /// Sends one message.
    pub(crate) fn send(&self, bytes: &[u8], fds: &[OwnedFd]) -> Result<(), Ended> {
        self.sending().send(bytes, fds)
    }
}

impl Sending<'_> {
    /// Sends one message.
    pub(crate) fn send(mut self, bytes: &[u8], fds: &[OwnedFd]) -> Result<(), Ended> {
        if *self.broken {
            return Err(Ended::Stalled);
        }
        let sent = self.write(bytes, fds);
        *self.broken = sent.is_err();
        sent
    }

    fn write(&self, bytes: &[u8], fds: &[OwnedFd]) -> Result<(), Ended> {
        let stream = self.stream;
        let since = Instant::now();
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            // Descriptors are sent with the first byte.
            if sent == 0 && !borrowed.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&borrowed));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::sendmsg(&*stream.fd, &[IoSlice::new(rest)], &mut control, flags) {
                Ok(more) => sent += more,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => stream.wait(PollFlags::OUT, since)?,
                Err(_) => return Err(Ended::Closed),
            }
        }
        Ok(())
    }
}

/// A timeout for poll(); `None`, which waits for ever, if it is too long.
pub(crate) fn timespec(time: Duration) -> Option<Timespec> {
    Timespec::try_from(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn nothing_is_sent_after_a_message_that_was_not_finished() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let stop = Arc::new(Stop::new().unwrap());
        let stream = Stream::new(Arc::new(ours.into()), 1 << 20, Duration::from_millis(20), stop);
        let sent = stream.send(&vec![1; 16 << 20], &[]);
        assert_eq!(sent, Err(Ended::Stalled));
        // There is room again.
        peer.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 1 << 20];
        while peer.read(&mut buffer).is_ok() {}
        assert_eq!(stream.send(&[2; 16], &[]), Err(Ended::Stalled));
        assert!(peer.read(&mut buffer).is_err(), "something was sent");
    }
}
