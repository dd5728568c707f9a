//! The handshake, which is the first message and its reply: the version, and the limits.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::report::{Counters, ServerEvent};
use crate::service::Service;
use crate::socket::{Ended, Event, FDS_MAX, Inbox, Packet, Wait};
use crate::stop::STOPS;
use crate::wire::version::{self, Capabilities};
use crate::wire::{Header, Refused, Reply, command};

/// The result of a handshake.
pub(super) struct Handshake {
    /// The client's capabilities.
    pub(super) client: Capabilities,
    /// Maximum number of windows, by both sides' limits.
    pub(super) max_windows: usize,
    /// The server's end of the socket for its commands, if there is one.
    pub(super) twin: Option<OwnedFd>,
    /// The reply and its descriptors, to be sent once the device is attached.
    pub(super) answer: (Vec<u8>, Vec<OwnedFd>),
}

/// Waits for the first message and negotiates; otherwise returns why the client is turned
/// away.
pub(super) fn run(service: &Service, inbox: &Arc<Inbox>) -> Result<Handshake, &'static str> {
    let since = Instant::now();
    let packet = loop {
        if service.stop.is_asked() {
            return Err(STOPS);
        }
        let left = service.options.patience.saturating_sub(since.elapsed());
        if left.is_zero() {
            return Err("its first message did not arrive in time");
        }
        let others = [service.stop.poll_fd()];
        match inbox.next(Wait { others: &others, at_most: Some(left) }) {
            Event::Command(packet) => break packet,
            Event::Other => {}
            Event::Ended(Ended::Unframed(header)) => {
                return refuse(
                    service,
                    inbox,
                    header,
                    &Refused::invalid("the message has an invalid size"),
                );
            }
            Event::Ended(Ended::Stopped) => return Err(STOPS),
            Event::Ended(_) => return Err("it disconnected before its first message"),
        }
    };
    Counters::count(&service.counters.commands, 1);
    let header = packet.header;
    match negotiate(service, &packet) {
        Ok(handshake) => Ok(handshake),
        Err(refused) => refuse(service, inbox, header, &refused),
    }
}

fn negotiate(service: &Service, packet: &Packet) -> Result<Handshake, Refused> {
    if packet.header.command != command::VERSION || !packet.header.wants_reply() {
        return Err(Refused::invalid("the first message must be VERSION, with a reply"));
    }
    if packet.header.flags != 0 || !packet.fds.is_empty() || packet.fds_lost {
        return Err(Refused::invalid("VERSION takes no flags and no descriptors"));
    }
    let proposal = version::decode(&packet.payload)?;
    let client = proposal.capabilities();
    if client.pgsizes & gasp::GRANULE == 0 {
        return Err(Refused::invalid(
            "windows are in pages of 4 KiB, which the client does not offer",
        ));
    }
    // A transfer in smaller messages would take too long.
    if client.max_data_xfer_size < 4096 {
        return Err(Refused::invalid("the client accepts less than 4 KiB of data in one message"));
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
    Ok(Handshake {
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
    if counters.report_limited(&counters.refusals, || ServerEvent::Refused { command, errno, why })
    {
        tracing::warn!(device = service.shell.name(), why = %refused, "refuses a first message");
    }
    // It is turned away whether it receives the reason or not.
    let _ = inbox.stream().send(&Reply::refusal(header, refused.errno), &[]);
    Err("its first message was refused")
}

/// A pair of sockets for the server's commands: the server's end and the client's. If the
/// process is out of descriptors, these commands go over the connection, as for a client
/// that accepts no such socket.
fn twin_socket() -> Option<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let pair = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None);
    pair.inspect_err(|errno| tracing::warn!(%errno, "no socket for the server's commands")).ok()
}
