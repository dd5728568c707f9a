//! Decides which thread reads the socket if several wait for something from it.
//!
//! The connection's thread waits for commands; a device's thread that has sent the client a
//! request for memory waits for the reply. One thread at a time has the *reader's role*. It
//! sorts what arrives: replies go to the threads that wait for them, commands into a queue.
//! A waiting thread that finds the role free takes it.
//!
//! So a reply is never stuck behind a command that is being executed, even if that command
//! waits for the very device that waits for the reply; and in the usual case, in which
//! nobody waits for a reply, the connection's thread reads its commands itself, without a
//! switch between threads.
//!
//! A client may accept the server's commands over a socket of their own, the *twin*. It has
//! an inbox of its own, in which only threads of the device wait. There is no order between
//! the two sockets: the client may execute a request after it has read a reply that was
//! sent later. So a request over the twin is not cancelled while its memory may still be
//! used: whoever revokes the memory waits for its reply ([`busy`](Inbox::busy)).

use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use gasp::{DeviceAddr, Span};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::stream::{Ended, Packet, Stream, timespec};
use crate::wire::{Reply, command};

/// Maximum number of commands, and of their bytes, that wait for the connection's thread.
const QUEUE_MAX: usize = 64;
const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Maximum number of descriptors that wait with them.
const QUEUE_FDS_MAX: usize = 64;
/// Interval at which a thread that waits for a reply checks whether it was cancelled.
const RETRY: Duration = Duration::from_millis(10);

/// The messages of one connection, and the threads that wait for them.
#[derive(Debug)]
pub(crate) struct Inbox {
    stream: Stream,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a thread has the reader's role.
    reading: bool,
    commands: VecDeque<Packet>,
    bytes: usize,
    requests: HashMap<u16, Request>,
    next_id: u16,
    /// The device is to stop: requests are cancelled.
    paused: bool,
    /// Whether this is the socket for the server's commands alone.
    twin: bool,
    ended: Option<Ended>,
}

/// A command of the server that waits for its reply.
#[derive(Debug)]
struct Request {
    command: u16,
    span: Span<DeviceAddr>,
    reply: Option<Packet>,
    cancelled: bool,
    sent: bool,
}

/// What the connection's thread waits for besides messages, and for how long.
pub(crate) struct Wait<'a> {
    /// Descriptors that end the wait when they become readable.
    pub(crate) others: &'a [PollFd<'a>],
    /// The longest wait; `None` waits for ever.
    pub(crate) at_most: Option<Duration>,
}

/// The end of a wait.
#[derive(Debug)]
pub(crate) enum Event {
    Command(Box<Packet>),
    /// The time is up, or one of the other descriptors is readable.
    Other,
    Ended(Ended),
}

impl Inbox {
    pub(crate) fn new(stream: Stream) -> Arc<Self> {
        Arc::new(Self { stream, state: Mutex::default(), changed: Condvar::new() })
    }

    /// The inbox of a twin, the socket for the server's commands.
    pub(crate) fn twin(stream: Stream) -> Arc<Self> {
        let state = Mutex::new(State { twin: true, ..State::default() });
        Arc::new(Self { stream, state, changed: Condvar::new() })
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Waits for the next command. Called by the connection's thread.
    pub(crate) fn next(&self, wait: Wait<'_>) -> Event {
        let mut state = self.state();
        if let Some(packet) = state.commands.pop_front() {
            state.bytes = state.bytes.saturating_sub(packet.payload.len());
            self.changed.notify_all();
            return Event::Command(Box::new(packet));
        }
        if let Some(ended) = state.ended {
            return Event::Ended(ended);
        }
        if state.reading {
            let at_most = wait.at_most.unwrap_or(RETRY).min(RETRY);
            self.changed.wait_for(&mut state, at_most);
            return Event::Other;
        }
        state.reading = true;
        drop(state);
        let mut received = self.stream.receive();
        if let Ok(None) = received {
            let mut fds = vec![PollFd::from_borrowed_fd(self.stream.as_fd(), PollFlags::IN)];
            fds.extend(wait.others.iter().cloned());
            let timeout = wait.at_most.and_then(timespec);
            let polled = poll(&mut fds, timeout.as_ref());
            if polled.is_ok() && fds.first().is_some_and(|fd| !fd.revents().is_empty()) {
                received = self.stream.receive();
            }
        }
        let mut state = self.state();
        state.reading = false;
        let event = match received {
            // No other command can have arrived meanwhile, so this one need not be queued.
            Ok(Some(packet)) if !packet.header.is_reply() => Event::Command(Box::new(packet)),
            other => {
                state.sort(other);
                state.ended.map_or(Event::Other, Event::Ended)
            }
        };
        self.changed.notify_all();
        event
    }

    /// Sends a command of the server about `span`, and waits for its reply.
    ///
    /// `still_allowed` is called once the request can be [cancelled](Self::cancel), so that
    /// whoever revokes the memory either is seen by it or cancels the request.
    pub(crate) fn request(
        &self,
        command: u16,
        span: Span<DeviceAddr>,
        message: Reply,
        patience: Duration,
        still_allowed: impl FnOnce() -> bool,
    ) -> Result<Packet, Errno> {
        let deadline = Instant::now() + patience;
        let id = self.register(command, span)?;
        let result = if still_allowed() {
            self.send_and_wait(id, &message.command(id, command), deadline)
        } else {
            Err(Errno::FAULT)
        };
        self.state().requests.remove(&id);
        result
    }

    fn register(&self, command: u16, span: Span<DeviceAddr>) -> Result<u16, Errno> {
        let mut state = self.state();
        // There is one request for each thread of the device, so there is always a free
        // number.
        let free = (0..=u16::MAX).map(|n| state.next_id.wrapping_add(n));
        let id = free.into_iter().find(|id| !state.requests.contains_key(id));
        let id = id.ok_or(Errno::BUSY)?;
        state.next_id = id.wrapping_add(1);
        state
            .requests
            .insert(id, Request { command, span, reply: None, cancelled: false, sent: false });
        Ok(id)
    }

    fn send_and_wait(&self, id: u16, message: &[u8], deadline: Instant) -> Result<Packet, Errno> {
        let sending = self.stream.sending();
        // Whoever cancels sends its reply afterwards, under the same lock, so a request is
        // never sent after that reply.
        self.state().send(id)?;
        let sent = sending.send(message, &[]);
        if let Err(ended) = sent {
            self.end(ended);
        }
        loop {
            let mut state = self.state();
            if let Some(packet) = state.outcome(id)? {
                return Ok(packet);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Errno::TIMEDOUT);
            }
            // Nobody else might check: the connection's thread may wait for the device.
            if self.stream.is_stopping() {
                return Err(Errno::NOTCONN);
            }
            let left = left.min(RETRY);
            if state.reading || state.is_full() {
                self.changed.wait_for(&mut state, left);
                continue;
            }
            state.reading = true;
            drop(state);
            let mut fds = [PollFd::from_borrowed_fd(self.stream.as_fd(), PollFlags::IN)];
            let polled = poll(&mut fds, timespec(left).as_ref());
            let received = if let Ok(1..) = polled { self.stream.receive() } else { Ok(None) };
            let mut state = self.state();
            state.reading = false;
            state.sort(received);
            self.changed.notify_all();
        }
    }

    /// Cancels requests about memory that is revoked. A reply that still arrives is
    /// dropped; a request that was sent was sent before any reply that follows this call.
    /// Requests over a twin are not cancelled: see [`busy`](Self::busy).
    pub(crate) fn cancel(&self, span: Span<DeviceAddr>) {
        let mut state = self.state();
        if state.twin {
            return;
        }
        let overlapping = state.requests.values_mut().filter(|one| one.span.overlaps(&span));
        overlapping.for_each(|request| request.cancelled = true);
        self.changed.notify_all();
    }

    /// Number of requests about these spans that the client may still execute, although it
    /// has read everything that was sent over the connection.
    pub(crate) fn busy(&self, spans: &[Span<DeviceAddr>]) -> usize {
        let state = self.state();
        let about = |one: &&Request| spans.iter().any(|span| one.span.overlaps(span));
        if state.twin { state.requests.values().filter(about).count() } else { 0 }
    }

    /// Cancels all requests, present and future, or allows them again. Requests that were
    /// sent over a twin are waited for instead.
    pub(crate) fn pause(&self, paused: bool) {
        self.state().paused = paused;
        self.changed.notify_all();
    }

    /// Ends the connection, and all waits for it.
    pub(crate) fn end(&self, ended: Ended) {
        self.state().ended.get_or_insert(ended);
        self.changed.notify_all();
    }
}

impl State {
    fn is_full(&self) -> bool {
        let fds = self.commands.iter().map(|packet| packet.fds.len()).sum::<usize>();
        self.commands.len() >= QUEUE_MAX || self.bytes >= QUEUE_BYTES_MAX || fds >= QUEUE_FDS_MAX
    }

    fn sort(&mut self, received: Result<Option<Packet>, Ended>) {
        match received {
            Ok(None) => {}
            Ok(Some(packet)) if packet.header.is_reply() => {
                let header = packet.header;
                match self.requests.get_mut(&header.id) {
                    Some(request) if request.command == header.command => {
                        request.reply = Some(packet);
                    }
                    _ => tracing::debug!(
                        command = command::name(header.command),
                        id = header.id,
                        "a reply to no request"
                    ),
                }
            }
            Ok(Some(packet)) if self.twin => {
                let command = command::name(packet.header.command);
                tracing::warn!(
                    command,
                    "a command of the client on the socket for the server's commands"
                );
                self.ended.get_or_insert(Ended::Closed);
            }
            Ok(Some(packet)) => {
                self.bytes = self.bytes.saturating_add(packet.payload.len());
                self.commands.push_back(packet);
            }
            Err(ended) => {
                self.ended.get_or_insert(ended);
            }
        }
    }

    /// Marks a request as sent, unless it was cancelled before.
    fn send(&mut self, id: u16) -> Result<(), Errno> {
        self.outcome(id)?;
        if let Some(request) = self.requests.get_mut(&id) {
            request.sent = true;
        }
        Ok(())
    }

    /// The reply to a request, if it has arrived, or why none will.
    fn outcome(&mut self, id: u16) -> Result<Option<Packet>, Errno> {
        let request = self.requests.get_mut(&id).ok_or(Errno::CANCELED)?;
        let waits = self.twin && request.sent && self.ended.is_none();
        if request.cancelled || self.paused && !waits {
            return Err(Errno::CANCELED);
        }
        match (request.reply.take(), self.ended) {
            (None, Some(_)) => Err(Errno::NOTCONN),
            (reply, _) => Ok(reply),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::received::Received;
    use super::*;
    use crate::wire::Header;
    use std::os::fd::OwnedFd;

    fn command(payload: usize, fds: usize) -> Result<Option<Packet>, Ended> {
        let header = Header { id: 0, command: 2, size: 16, flags: 0, error: 0 };
        let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        Ok(Some(Packet {
            header,
            payload: vec![0; payload],
            fds: Received::from_iter((0..fds).map(|_| fd())),
            fds_lost: false,
            since: Instant::now(),
        }))
    }

    #[test]
    fn the_queue_is_bounded_in_commands_in_bytes_and_in_descriptors() {
        for (payload, fds, most) in [(0, 0, 64), (1 << 20, 0, 4), (0, 16, 4), (0, 1, 64)] {
            let mut state = State::default();
            for _ in 0..most {
                assert!(!state.is_full(), "{payload} {fds}");
                state.sort(command(payload, fds));
            }
            assert!(state.is_full(), "{payload} {fds}");
        }
    }
}
