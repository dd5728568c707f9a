//! A client after its handshake: the objects that its commands work on, and its replies.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::drains::{Drains, Waiting};
use super::watch::Watch;
use crate::dma::DmaSpace;
use crate::report::{Counters, ServerEvent};
use crate::service::Service;
use crate::socket::Inbox;
use crate::wire::version::Capabilities;
use crate::wire::{Header, Refused, Reply, command};

/// A client after its handshake.
pub(super) struct Connection<'a> {
    pub(super) service: &'a Service,
    pub(super) inbox: Arc<Inbox>,
    /// The inbox for the server's commands: the same, or that of the twin socket.
    pub(super) requests: Arc<Inbox>,
    /// The client's capabilities.
    pub(super) client: Capabilities,
    pub(super) space: DmaSpace,
    pub(super) drains: Drains,
    pub(super) watch: Watch,
}

/// The reply to a command, now or later.
pub(super) enum Answer {
    Now(Reply),
    /// An unmap, which is answered when its mappings are gone.
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

    /// Counts and reports a command that is refused, in whole or in part.
    pub(super) fn note_refusal(&self, of: u16, refused: &Refused) {
        let counters = &self.service.counters;
        let (name, device) = (command::name(of), self.service.shell.name());
        tracing::debug!(device, command = name, why = %refused, "refuses a command");
        Counters::count(&counters.refused, 1);
        counters.report_limited(&counters.refusals, || ServerEvent::Refused {
            command: name,
            errno: refused.errno,
            why: refused.what.clone(),
        });
    }

    /// Sends a message. If it cannot be sent, the connection has ended; the next wait for a
    /// command reports that.
    pub(super) fn send(&self, bytes: &[u8], fds: &[OwnedFd]) {
        if let Err(ended) = self.inbox.stream().send(bytes, fds) {
            self.inbox.end(ended);
        }
    }
}
