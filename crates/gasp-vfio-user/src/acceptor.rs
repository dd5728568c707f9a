//! Accepts connections, in a thread of its own, while another thread serves one of them.
//!
//! A client is served once its first bytes arrive, so a silent client blocks nobody. If
//! another client is served by then, it is answered at once (`EBUSY`), whatever the other
//! client is doing, be it in the middle of a message or not reading. If the process is out
//! of descriptors, a reserved descriptor is released to accept the connection, so that the
//! client can be answered.

use core::time::Duration;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use zerocopy::{FromZeros, IntoBytes};

use crate::service::Service;
use crate::wire::{Header, Reply};

/// Maximum number of clients that wait to be served or answered; past it, the oldest is
/// dropped.
const PENDING_MAX: usize = 16;
/// Maximum number of bytes of a first message that are read before it is refused.
const UNREAD_MAX: usize = 64 << 10;
/// How often a client that has sent something, and cannot be answered yet, is polled.
const RETRY: Duration = Duration::from_millis(20);
/// How long a client that was accepted with the reserved descriptor has for its first
/// message.
const RESERVED_TIMEOUT: Duration = Duration::from_millis(100);
/// How long no connection is accepted if not even the reserved descriptor helps.
const PAUSE: Duration = Duration::from_secs(1);

/// State shared by the thread that accepts connections and the thread that serves.
#[derive(Debug)]
pub(crate) struct Acceptor {
    state: Mutex<State>,
    changed: Condvar,
    /// Wakes the thread that accepts connections.
    woken: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    /// The client to serve next.
    next: Option<Pending>,
    /// The client that is served.
    current: Option<Current>,
    closed: bool,
}

/// A connection that is not served yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) pid: Option<i32>,
    since: Instant,
    /// Whether it has sent anything.
    has_sent: bool,
}

#[derive(Debug)]
struct Current {
    fd: Arc<OwnedFd>,
    pid: Option<i32>,
    since: Instant,
}

impl Acceptor {
    pub(crate) fn new() -> Result<Self, Errno> {
        let woken = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: Mutex::default(), changed: Condvar::new(), woken })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Reopens it after an earlier run has closed it.
    pub(crate) fn open(&self) {
        *self.state() = State::default();
    }

    /// The next client to serve; `None` once it is closed.
    pub(crate) fn next(&self) -> Option<Pending> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(next) = state.next.take() {
                return Some(next);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Marks the client as no longer served; nothing else of it may be left.
    pub(crate) fn free(&self) {
        self.state().current = None;
        // The write can only fail because the counter is full, and then the eventfd is
        // readable.
        let _ = rustix::io::write(&self.woken, &1_u64.to_ne_bytes());
    }

    /// Accepts connections until a stop is requested. Runs in a thread of its own.
    pub(crate) fn accept_all(&self, service: &Service) -> Result<(), std::io::Error> {
        let mut accepting = AcceptLoop {
            acceptor: self,
            service,
            pending: Vec::new(),
            reserve: reserve(),
            pause: None,
        };
        // Ends the wait for the next client, even if this thread panics.
        let _closed = Closed(self);
        accepting.run()
    }
}

/// Closes the acceptor when it is dropped.
struct Closed<'a>(&'a Acceptor);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        state.next = None;
        self.0.changed.notify_all();
    }
}

/// A descriptor in reserve, to be closed when another is needed.
fn reserve() -> Option<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC).ok()
}

/// The thread that accepts connections.
struct AcceptLoop<'a> {
    acceptor: &'a Acceptor,
    service: &'a Service,
    pending: Vec<Pending>,
    reserve: Option<OwnedFd>,
    /// The time until which no connection is accepted.
    pause: Option<Instant>,
}

impl AcceptLoop<'_> {
    fn run(&mut self) -> Result<(), std::io::Error> {
        while !self.service.stop.is_asked() {
            if self.wait().map_err(std::io::Error::from)? {
                self.accept()?;
            }
            self.process_pending();
        }
        Ok(())
    }

    /// Waits until there is something to do; returns whether a connection can be accepted.
    fn wait(&mut self) -> Result<bool, Errno> {
        let now = Instant::now();
        self.pause = self.pause.filter(|until| *until > now);
        let mut at_most = self.pause.map(|until| until - now);
        let mut sooner = |time: Duration| at_most = Some(at_most.map_or(time, |t| t.min(time)));
        let patience = self.service.options.patience;
        for client in &self.pending {
            let left = patience.saturating_sub(client.since.elapsed());
            sooner(if client.has_sent { RETRY } else { left });
        }
        let mut fds =
            vec![self.service.stop.poll_fd(), PollFd::new(&self.acceptor.woken, PollFlags::IN)];
        let listens = self.pause.is_none();
        if listens {
            fds.push(PollFd::from_borrowed_fd(self.service.listener.as_fd(), PollFlags::IN));
        }
        let silent = self.pending.iter().filter(|client| !client.has_sent);
        fds.extend(silent.map(|client| PollFd::new(&*client.fd, PollFlags::IN)));
        let timeout = at_most.and_then(|time| Timespec::try_from(time).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let can_accept = listens && fds.get(2).is_some_and(|fd| !fd.revents().is_empty());
        let mut count = [0; 8];
        // The read fails unless the eventfd has woken this thread.
        let _ = rustix::io::read(&self.acceptor.woken, &mut count);
        Ok(can_accept)
    }

    fn accept(&mut self) -> Result<(), std::io::Error> {
        match self.service.listener.accept() {
            Ok(None) => Ok(()),
            Ok(Some(fd)) => {
                if self.pending.len() >= PENDING_MAX {
                    self.pending.remove(0);
                    self.service.turned_away("too many clients are waiting");
                }
                self.pending.push(Pending::new(fd));
                Ok(())
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::MFILE | Errno::NFILE) => {
                    self.turn_away_without_descriptor();
                    Ok(())
                }
                Some(Errno::NOMEM | Errno::NOBUFS) => {
                    self.pause = Some(Instant::now() + PAUSE);
                    self.service
                        .turned_away("this process is out of memory for another connection");
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    /// Accepts a connection with the descriptor held in reserve, and refuses it.
    fn turn_away_without_descriptor(&mut self) {
        self.service.turned_away("this process is out of descriptors for another connection");
        if self.reserve.take().is_some()
            && let Ok(Some(fd)) = self.service.listener.accept()
        {
            let client = Pending::new(fd);
            let mut fds = [PollFd::new(&*client.fd, PollFlags::IN), self.service.stop.poll_fd()];
            let _ = poll(&mut fds, Timespec::try_from(RESERVED_TIMEOUT).ok().as_ref());
            if let Peeked::Header(header) = client.peek() {
                client.refuse(header, gasp::Errno::MFILE);
            }
        }
        self.reserve = reserve();
        if self.reserve.is_none() {
            self.pause = Some(Instant::now() + PAUSE);
        }
    }

    /// Serves, answers or drops each client if that is possible yet.
    fn process_pending(&mut self) {
        let patience = self.service.options.patience;
        for mut client in core::mem::take(&mut self.pending) {
            let peeked = client.peek();
            client.has_sent = !matches!(peeked, Peeked::Nothing);
            if let Peeked::Gone = peeked {
                self.service.turned_away("it disconnected before its first message");
                continue;
            }
            if client.since.elapsed() >= patience && !matches!(peeked, Peeked::Header(_)) {
                self.service.turned_away("its first message did not arrive in time");
                continue;
            }
            match peeked {
                Peeked::Nothing | Peeked::Gone => self.pending.push(client),
                Peeked::Part => self.pending.extend(self.serve_or_answer(client, None)),
                Peeked::Header(header) => {
                    self.pending.extend(self.serve_or_answer(client, Some(header)))
                }
            }
        }
    }

    /// Passes a client to the serving thread if nobody else is served, or answers it;
    /// returns it if neither is possible yet.
    fn serve_or_answer(&self, client: Pending, header: Option<Header>) -> Option<Pending> {
        let mut state = self.acceptor.state();
        let Some(current) = &state.current else {
            let (fd, pid) = (Arc::clone(&client.fd), client.pid);
            state.current = Some(Current { fd, pid, since: Instant::now() });
            state.next = Some(client);
            self.acceptor.changed.notify_all();
            return None;
        };
        // If a VMM was killed and its successor connects, the successor must not be refused
        // because the hang-up of the first has not been seen yet. The device may take its
        // time, though.
        let patience = self.service.options.patience;
        if is_hung_up(&current.fd) && client.since.elapsed() < patience {
            return Some(client);
        }
        let Some(header) = header else { return Some(client) };
        let (by, since) = (current.pid, current.since.elapsed());
        drop(state);
        client.refuse(header, gasp::Errno::BUSY);
        self.service.in_use(client.pid, by, since);
        None
    }
}

/// What a client has sent so far.
enum Peeked {
    Nothing,
    /// Less than a header.
    Part,
    Header(Header),
    Gone,
}

impl Pending {
    fn new(fd: OwnedFd) -> Self {
        let pid = gasp::ffi::peer_of(&fd).ok().and_then(|peer| peer.pid);
        Self { fd: Arc::new(fd), pid, since: Instant::now(), has_sent: false }
    }

    fn peek(&self) -> Peeked {
        let mut header = Header::new_zeroed();
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(&*self.fd, header.as_mut_bytes(), flags) {
            Ok((_, 0)) => Peeked::Gone,
            Ok((_, Header::SIZE)) => Peeked::Header(header),
            Ok(_) => Peeked::Part,
            Err(Errno::AGAIN | Errno::INTR) => Peeked::Nothing,
            Err(_) => Peeked::Gone,
        }
    }

    /// Answers the first message with an error. The connection ends whether the client
    /// reads the answer or not.
    fn refuse(&self, header: Header, errno: gasp::Errno) {
        let mut rest = [0; 4096];
        // Its message is read first: closing a socket with unread data discards the answer.
        for _ in 0..UNREAD_MAX / rest.len() {
            match rustix::net::recv(&*self.fd, &mut rest, RecvFlags::DONTWAIT) {
                Ok((_, got)) if got == rest.len() => {}
                _ => break,
            }
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = rustix::net::send(&*self.fd, &Reply::refusal(header, errno), flags);
    }
}

/// Whether the peer has hung up; what it sent before may still be unread.
fn is_hung_up(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let gone = PollFlags::HUP | PollFlags::ERR;
    poll(&mut fds, Some(&now)).is_ok() && fds.iter().any(|fd| fd.revents().intersects(gone))
}
