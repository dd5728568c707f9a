//! The first message: which version, and within which limits.

use std::sync::Arc;
use std::time::Instant;

use super::STOPS;
use crate::report::{Counters, Happened};
use crate::server::Server;
use crate::socket::{Ended, Event, FDS_MAX, Inbox, Packet, Wait};
use crate::wire::version::{self, Capabilities};
use crate::wire::{Header, Refused, Reply, command};

/// What the client can do, how many windows both can, and the answer to send once the
/// device is attached.
type Shaken = (Capabilities, usize, (Vec<u8>, Vec<std::os::fd::OwnedFd>));

/// Waits for the first message and judges it; otherwise why the client is sent away.
pub(super) fn shake(server: &Server, inbox: &Arc<Inbox>) -> Result<Shaken, &'static str> {
    let since = Instant::now();
    let packet = loop {
        if server.stop.is_asked() {
            return Err(STOPS);
        }
        let left = server.options.patience.saturating_sub(since.elapsed());
        if left.is_zero() {
            return Err("it says nothing");
        }
        let others = [server.stop.poll_fd()];
        match inbox.next(Wait { others: &others, at_most: Some(left) }) {
            Event::Command(packet) => break packet,
            Event::Other => {}
            Event::Ended(Ended::Unframed(header)) => {
                return refuse(server, inbox, header, &Refused::invalid("not this size"));
            }
            Event::Ended(Ended::Stopped) => return Err(STOPS),
            Event::Ended(_) => return Err("it left before it said anything"),
        }
    };
    Counters::count(&server.counters.commands, 1);
    let header = packet.header;
    match judge(server, &packet) {
        Ok((client, maps, hello)) => {
            let maps = usize::try_from(maps).unwrap_or(usize::MAX);
            Ok((client, maps, hello.answer(header)))
        }
        Err(refused) => refuse(server, inbox, header, &refused),
    }
}

fn judge(server: &Server, packet: &Packet) -> Result<(Capabilities, u64, Reply), Refused> {
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
    let options = &server.options;
    let ours = Capabilities {
        max_msg_fds: FDS_MAX as u64,
        max_data_xfer_size: u64::from(options.max_data_xfer_size.max(4096)),
        max_dma_maps: client.max_dma_maps.min(u64::from(options.max_dma_maps)),
        pgsizes: gasp::GRANULE,
        write_multiple: client.write_multiple,
    };
    Ok((client, ours.max_dma_maps, version::encode(ours, &proposal)))
}

fn refuse<T>(
    server: &Server,
    inbox: &Inbox,
    header: Header,
    refused: &Refused,
) -> Result<T, &'static str> {
    let counters = &server.counters;
    Counters::count(&counters.refused, 1);
    let command = command::name(header.command);
    let (errno, why) = (refused.errno, refused.what.clone());
    if counters.tell_seldom(&counters.refusals, || Happened::Refused { command, errno, why }) {
        tracing::warn!(device = server.shell.name(), why = %refused, "refuses a first message");
    }
    // It is sent away whether it hears why or not.
    let _ = inbox.stream().send(&Reply::refusal(header, refused.errno), &[]);
    Err("its first message was not acceptable")
}
