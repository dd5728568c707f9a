//! The first message: which version, and within which limits.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::report::{Counters, Happened};
use crate::service::Service;
use crate::socket::{Ended, Event, FDS_MAX, Inbox, Packet, Wait};
use crate::stop::STOPS;
use crate::wire::version::{self, Capabilities};
use crate::wire::{Header, Refused, Reply, command};

/// What client and server agree on.
pub(super) struct Shaken {
    /// What the client can do.
    pub(super) client: Capabilities,
    /// How many windows both can have.
    pub(super) max_windows: usize,
    /// Our end of the socket for commands to the client, if there is one.
    pub(super) twin: Option<OwnedFd>,
    /// The answer, and its descriptors, to send once the device is attached.
    pub(super) answer: (Vec<u8>, Vec<OwnedFd>),
}

/// Waits for the first message and agrees on its terms; otherwise why the client is sent away.
pub(super) fn shake(service: &Service, inbox: &Arc<Inbox>) -> Result<Shaken, &'static str> {
    let since = Instant::now();
    let packet = loop {
        if service.stop.is_asked() {
            return Err(STOPS);
        }
        let left = service.options.patience.saturating_sub(since.elapsed());
        if left.is_zero() {
            return Err("it says nothing");
        }
        let others = [service.stop.poll_fd()];
        match inbox.next(Wait { others: &others, at_most: Some(left) }) {
            Event::Command(packet) => break packet,
            Event::Other => {}
            Event::Ended(Ended::Unframed(header)) => {
                return refuse(service, inbox, header, &Refused::invalid("not this size"));
            }
            Event::Ended(Ended::Stopped) => return Err(STOPS),
            Event::Ended(_) => return Err("it left before it said anything"),
        }
    };
    Counters::count(&service.counters.commands, 1);
    let header = packet.header;
    match negotiate(service, &packet) {
        Ok(shaken) => Ok(shaken),
        Err(refused) => refuse(service, inbox, header, &refused),
    }
}

fn negotiate(service: &Service, packet: &Packet) -> Result<Shaken, Refused> {
    if packet.header.command != command::VERSION || !packet.header.wants_reply() {
        return Err(Refused::invalid("the first message is VERSION, and wants a reply"));
    }
    if packet.header.flags != 0 || !packet.fds.is_empty() || packet.fds_lost {
        return Err(Refused::invalid("VERSION has no flags and no descriptors"));
    }
    let proposal = version::decode(&packet.payload)?;
    let client = proposal.capabilities();
    if client.pgsizes & gasp::GRANULE == 0 {
        return Err(Refused::invalid("windows are in pages of 4 KiB, which it does not offer"));
    }
    // A transfer in smaller messages would take for ever.
    if client.max_data_xfer_size < 4096 {
        return Err(Refused::invalid("it takes less than 4 KiB of data in one message"));
    }
    let options = &service.options;
    let ours = Capabilities {
        max_msg_fds: FDS_MAX as u64,
        max_data_xfer_size: u64::from(options.max_data_xfer_size.max(4096)),
        max_dma_maps: client.max_dma_maps.min(u64::from(options.max_dma_maps)),
        pgsizes: gasp::GRANULE,
        write_multiple: client.write_multiple,
    };
    let (twin, theirs) = match proposal.takes_twin() {
        true => twin_socket().unzip(),
        false => (None, None),
    };
    Ok(Shaken {
        client,
        max_windows: usize::try_from(ours.max_dma_maps).unwrap_or(usize::MAX),
        twin,
        answer: version::encode(ours, &proposal, theirs).answer(packet.header),
    })
}

fn refuse<T>(
    service: &Service,
    inbox: &Inbox,
    header: Header,
    refused: &Refused,
) -> Result<T, &'static str> {
    let counters = &service.counters;
    Counters::count(&counters.refused, 1);
    let command = command::name(header.command);
    let (errno, why) = (refused.errno, refused.what.clone());
    if counters.tell_seldom(&counters.refusals, || Happened::Refused { command, errno, why }) {
        tracing::warn!(device = service.shell.name(), why = %refused, "refuses a first message");
    }
    // It is sent away whether it hears why or not.
    let _ = inbox.stream().send(&Reply::refusal(header, refused.errno), &[]);
    Err("its first message was not acceptable")
}

/// A socket for commands to the client: our end and the client's. Without descriptors left
/// they go over the connection, like those to a client that takes no such socket.
fn twin_socket() -> Option<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let pair = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None);
    pair.inspect_err(|errno| tracing::warn!(%errno, "no socket for commands to the client")).ok()
}
