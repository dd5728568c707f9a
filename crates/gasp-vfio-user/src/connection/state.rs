//! A client past its handshake: what its commands work on, and how they are answered.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::drains::{Drains, Waiting};
use super::watch::Watch;
use crate::dma::DmaSpace;
use crate::report::{Counters, Happened};
use crate::service::Service;
use crate::socket::Inbox;
use crate::wire::version::Capabilities;
use crate::wire::{Header, Refused, Reply, command};

/// A client, past its handshake.
pub(super) struct Connection<'a> {
    pub(super) service: &'a Service,
    pub(super) inbox: Arc<Inbox>,
    /// Over which the client is asked: the same, or that of a socket of its own.
    pub(super) requests: Arc<Inbox>,
    /// What the client can do.
    pub(super) client: Capabilities,
    pub(super) space: DmaSpace,
    pub(super) drains: Drains,
    pub(super) watch: Watch,
}

/// How a command is answered.
pub(super) enum Answer {
    Now(Reply),
    /// When its mappings are gone.
    Later(Box<Waiting>),
}

impl Connection<'_> {
    pub(super) fn reply(&self, to: Header, reply: Reply) {
        if to.wants_reply() {
            let (bytes, fds) = reply.answer(to);
            self.send(&bytes, &fds);
        }
    }

    pub(super) fn refuse(&self, to: Header, refused: &Refused) {
        self.note_refusal(to.command, refused);
        if to.wants_reply() {
            self.send(&Reply::refusal(to, refused.errno), &[]);
        }
    }

    /// Counts and reports a command that is refused, all or its rest.
    pub(super) fn note_refusal(&self, of: u16, refused: &Refused) {
        let counters = &self.service.counters;
        let (name, device) = (command::name(of), self.service.shell.name());
        tracing::debug!(device, command = name, why = %refused, "refuses");
        Counters::count(&counters.refused, 1);
        counters.tell_seldom(&counters.refusals, || Happened::Refused {
            command: name,
            errno: refused.errno,
            why: refused.what.clone(),
        });
    }

    /// A connection that takes no message has ended; the next wait for one says so.
    pub(super) fn send(&self, bytes: &[u8], fds: &[OwnedFd]) {
        if let Err(ended) = self.inbox.stream().send(bytes, fds) {
            self.inbox.end(ended);
        }
    }
}
