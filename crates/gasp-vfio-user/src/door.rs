//! Who comes in: a thread that takes connections while another serves one of them.
//!
//! A client is served once it has begun to speak, so one that is silent holds nobody up. If
//! another is served by then, it is answered at once (`EBUSY`), whatever the other one does:
//! in the middle of a message, or not reading. If the process has no descriptor left, a
//! descriptor that is held in reserve takes the connection, so that it can be told.

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

/// The most clients that wait to be served or answered; of more, the first has to go.
const VISITORS_MAX: usize = 16;
/// The most bytes of a first message that are read before it is refused.
const UNREAD_MAX: usize = 64 << 10;
/// How often a client is looked at that has begun to speak, and cannot be answered yet.
const GLANCE: Duration = Duration::from_millis(20);
/// How long a client that no descriptor is left for has for its first message.
const HURRY: Duration = Duration::from_millis(100);
/// How long no connection is taken when not even the reserve helps.
const PAUSE: Duration = Duration::from_secs(1);

/// The meeting point of the thread that takes connections and the one that serves.
#[derive(Debug)]
pub(crate) struct Door {
    state: Mutex<State>,
    changed: Condvar,
    /// Wakes the thread that takes connections.
    woken: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    /// To be served next.
    next: Option<Visitor>,
    /// Being served.
    current: Option<Current>,
    closed: bool,
}

/// A connection that is not served yet.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) pid: Option<i32>,
    since: Instant,
    /// Whether something has come from it.
    speaks: bool,
}

#[derive(Debug)]
struct Current {
    fd: Arc<OwnedFd>,
    pid: Option<i32>,
    since: Instant,
}

impl Door {
    pub(crate) fn new() -> Result<Self, Errno> {
        let woken = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: Mutex::default(), changed: Condvar::new(), woken })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Lets clients in again that a run before has kept out.
    pub(crate) fn open(&self) {
        *self.state() = State::default();
    }

    /// The next client to serve; `None` once the door is closed.
    pub(crate) fn next(&self) -> Option<Visitor> {
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

    /// Notes that the client is served no longer, and nothing of it is left but this.
    pub(crate) fn free(&self) {
        self.state().current = None;
        // It can only be full, and then it wakes as well.
        let _ = rustix::io::write(&self.woken, &1_u64.to_ne_bytes());
    }

    /// Takes connections until the server is to end. For a thread of its own.
    pub(crate) fn keep(&self, service: &Service) -> Result<(), std::io::Error> {
        let mut keeper =
            Keeper { door: self, service, visitors: Vec::new(), reserve: reserve(), pause: None };
        // Whoever waits for the next client waits no longer, even if this thread panics.
        let _closed = Closed(self);
        keeper.run()
    }
}

/// Closes the door when it is dropped.
struct Closed<'a>(&'a Door);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        state.next = None;
        self.0.changed.notify_all();
    }
}

/// A descriptor to be given up when another is needed.
fn reserve() -> Option<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC).ok()
}

/// The thread that takes connections.
struct Keeper<'a> {
    door: &'a Door,
    service: &'a Service,
    visitors: Vec<Visitor>,
    reserve: Option<OwnedFd>,
    /// Until when no connection is taken.
    pause: Option<Instant>,
}

impl Keeper<'_> {
    fn run(&mut self) -> Result<(), std::io::Error> {
        while !self.service.stop.is_asked() {
            if self.wait().map_err(std::io::Error::from)? {
                self.accept()?;
            }
            self.attend();
        }
        Ok(())
    }

    /// Waits until there is something to do; whether a connection can be accepted.
    fn wait(&mut self) -> Result<bool, Errno> {
        let now = Instant::now();
        self.pause = self.pause.filter(|until| *until > now);
        let mut at_most = self.pause.map(|until| until - now);
        let mut sooner = |time: Duration| at_most = Some(at_most.map_or(time, |t| t.min(time)));
        let patience = self.service.options.patience;
        for visitor in &self.visitors {
            let left = patience.saturating_sub(visitor.since.elapsed());
            sooner(if visitor.speaks { GLANCE } else { left });
        }
        let mut fds =
            vec![self.service.stop.poll_fd(), PollFd::new(&self.door.woken, PollFlags::IN)];
        let listens = self.pause.is_none();
        if listens {
            fds.push(PollFd::from_borrowed_fd(self.service.listener.as_fd(), PollFlags::IN));
        }
        let silent = self.visitors.iter().filter(|visitor| !visitor.speaks);
        fds.extend(silent.map(|visitor| PollFd::new(&*visitor.fd, PollFlags::IN)));
        let timeout = at_most.and_then(|time| Timespec::try_from(time).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let can_accept = listens && fds.get(2).is_some_and(|fd| !fd.revents().is_empty());
        let mut count = [0; 8];
        // It is empty unless it has woken this thread.
        let _ = rustix::io::read(&self.door.woken, &mut count);
        Ok(can_accept)
    }

    fn accept(&mut self) -> Result<(), std::io::Error> {
        match self.service.listener.accept() {
            Ok(None) => Ok(()),
            Ok(Some(fd)) => {
                if self.visitors.len() >= VISITORS_MAX {
                    self.visitors.remove(0);
                    self.service.turned_away("too many wait to be served");
                }
                self.visitors.push(Visitor::new(fd));
                Ok(())
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::MFILE | Errno::NFILE) => {
                    self.turn_away_without_descriptor();
                    Ok(())
                }
                Some(Errno::NOMEM | Errno::NOBUFS) => {
                    self.pause = Some(Instant::now() + PAUSE);
                    self.service.turned_away("this process has no memory for a connection");
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    /// Takes a connection with the descriptor that is held in reserve, and says no.
    fn turn_away_without_descriptor(&mut self) {
        self.service.turned_away("this process has no descriptor left for another connection");
        if self.reserve.take().is_some()
            && let Ok(Some(fd)) = self.service.listener.accept()
        {
            let visitor = Visitor::new(fd);
            let mut fds = [PollFd::new(&*visitor.fd, PollFlags::IN), self.service.stop.poll_fd()];
            let _ = poll(&mut fds, Timespec::try_from(HURRY).ok().as_ref());
            if let Peeked::Header(header) = visitor.peek() {
                visitor.refuse(header, gasp::Errno::MFILE);
            }
        }
        self.reserve = reserve();
        if self.reserve.is_none() {
            self.pause = Some(Instant::now() + PAUSE);
        }
    }

    /// Does for each visitor what can be done.
    fn attend(&mut self) {
        let patience = self.service.options.patience;
        for mut visitor in core::mem::take(&mut self.visitors) {
            let peeked = visitor.peek();
            visitor.speaks = !matches!(peeked, Peeked::Nothing);
            if let Peeked::Gone = peeked {
                self.service.turned_away("it left before it said anything");
                continue;
            }
            if visitor.since.elapsed() >= patience && !matches!(peeked, Peeked::Header(_)) {
                self.service.turned_away("it says nothing");
                continue;
            }
            match peeked {
                Peeked::Nothing | Peeked::Gone => self.visitors.push(visitor),
                Peeked::Part => self.visitors.extend(self.let_in(visitor, None)),
                Peeked::Header(header) => self.visitors.extend(self.let_in(visitor, Some(header))),
            }
        }
    }

    /// Has a client served if nobody else is, or answers it; gives it back if neither can
    /// be done yet.
    fn let_in(&self, visitor: Visitor, header: Option<Header>) -> Option<Visitor> {
        let mut state = self.door.state();
        let Some(current) = &state.current else {
            let (fd, pid) = (Arc::clone(&visitor.fd), visitor.pid);
            state.current = Some(Current { fd, pid, since: Instant::now() });
            state.next = Some(visitor);
            self.door.changed.notify_all();
            return None;
        };
        // A VMM that was killed, and its successor: the successor is not to be sent away
        // because the end of the other has not been seen yet. But the device may take its time.
        let patience = self.service.options.patience;
        if is_hung_up(&current.fd) && visitor.since.elapsed() < patience {
            return Some(visitor);
        }
        let Some(header) = header else { return Some(visitor) };
        let (by, since) = (current.pid, current.since.elapsed());
        drop(state);
        visitor.refuse(header, gasp::Errno::BUSY);
        self.service.in_use(visitor.pid, by, since);
        None
    }
}

/// What a visitor has said so far.
enum Peeked {
    Nothing,
    /// Less than a header.
    Part,
    Header(Header),
    Gone,
}

impl Visitor {
    fn new(fd: OwnedFd) -> Self {
        let pid = gasp::ffi::peer_of(&fd).ok().and_then(|peer| peer.pid);
        Self { fd: Arc::new(fd), pid, since: Instant::now(), speaks: false }
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

    /// Answers its first message. The client is gone whether it takes the answer or not.
    fn refuse(&self, header: Header, errno: gasp::Errno) {
        let mut rest = [0; 4096];
        // What it sent is taken first: it would lose the answer with what is unread.
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

/// Whether the peer has gone, though what it sent before may not be read yet.
fn is_hung_up(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let gone = PollFlags::HUP | PollFlags::ERR;
    poll(&mut fds, Some(&now)).is_ok() && fds.iter().any(|fd| fd.revents().intersects(gone))
}
