//! One client, from its first message to its last.

mod device;
mod drains;
mod handshake;
mod irqs;
mod memory;
mod regions;
mod watch;

use core::time::Duration;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use gasp::Errno;
use rustix::event::{PollFd, PollFlags};

use crate::dma::DmaSpace;
use crate::door::{Door, Visitor};
use crate::options::Options;
use crate::report::{Counters, Happened};
use crate::service::Service;
use crate::socket::{Ended, Event, FDS_MAX, Inbox, Packet, Stream, Wait};
use crate::wire::version::Capabilities;
use crate::wire::{Header, Refused, Reply, command};
use drains::{Drains, Waiting};
use handshake::Shaken;
use watch::Watch;

/// The longest message beside its data: headers, and one byte for each of the most
/// interrupts there can be.
const MESSAGE_MAX: usize = 16 << 10;

/// A client, past its handshake.
struct Connection<'a> {
    service: &'a Service,
    inbox: Arc<Inbox>,
    /// Over which the client is asked: the same, or that of a socket of its own.
    requests: Arc<Inbox>,
    /// What the client can do.
    client: Capabilities,
    space: DmaSpace,
    drains: Drains,
    watch: Watch,
}

/// How a command is answered.
enum Answer {
    Now(Reply),
    /// When its mappings are gone.
    Later(Box<Waiting>),
}

/// Serves one client to its end. Nothing of it is left then but the device's own state.
pub(crate) fn serve(service: &Service, door: &Door, client: Visitor) {
    let Service { options, counters, shell, .. } = service;
    let Visitor { fd, pid, .. } = client;
    let inbox =
        Inbox::new(Stream::new(fd, limit(options), options.patience, Arc::clone(&service.stop)));
    Counters::count(&counters.connections, 1);
    let mut connection = match attach(service, &inbox, pid) {
        Ok(connection) => connection,
        Err(why) => {
            drop(inbox);
            door.free();
            return service.turned_away(why);
        }
    };
    Counters::set(&counters.attached, 1);
    Counters::set(&counters.pid, pid.and_then(|pid| u64::try_from(pid).ok()).unwrap_or(0));
    let logs = counters.visits.allow().is_some();
    if logs {
        tracing::info!(device = shell.name(), ?pid, "a VMM attaches");
    }
    counters.tell(|| Happened::Attached { pid });
    let why = connection.run();
    // Whoever waits for the client waits no longer; then the device's thread can end, and
    // with it the mappings that drains wait for.
    for inbox in [&inbox, &connection.requests] {
        inbox.end(Ended::Closed);
        inbox.stream().shut();
    }
    shell.detach();
    *service.guest.lock() = None;
    drop((connection, inbox));
    door.free();
    Counters::set(&counters.draining, 0);
    Counters::set(&counters.attached, 0);
    Counters::set(&counters.pid, 0);
    if logs {
        tracing::info!(device = shell.name(), why, "the VMM is gone");
    }
    counters.tell(|| Happened::Detached { why });
}

/// The longest message that is taken.
fn limit(options: &Options) -> usize {
    options.max_data_xfer_size.max(4096) as usize + MESSAGE_MAX
}

/// Shakes hands, and attaches the device.
fn attach<'a>(
    service: &'a Service,
    inbox: &Arc<Inbox>,
    pid: Option<i32>,
) -> Result<Connection<'a>, &'static str> {
    let Service { options, counters, shell, .. } = service;
    let Shaken { client, max_windows, twin, answer } = handshake::shake(service, inbox)?;
    let requests = twin.map_or_else(
        || Arc::clone(inbox),
        |fd| {
            Inbox::twin(Stream::new(
                Arc::new(fd),
                limit(options),
                options.patience,
                Arc::clone(&service.stop),
            ))
        },
    );
    let fail = |what: &'static str, error: &dyn core::fmt::Display| {
        tracing::error!(device = shell.name(), %error, what);
        what
    };
    let space = DmaSpace::new(shell.name(), options, &requests, max_windows, pid, counters)
        .map_err(|error| fail("no guest can be made for it", &error))?;
    let most = client.max_data_xfer_size.min(u64::from(options.max_data_xfer_size));
    let messages = space.messages(usize::try_from(most).unwrap_or(4096), options);
    shell
        .attach(space.vdev().clone(), Some(messages))
        .map_err(|error| fail("the device cannot be attached", &error))?;
    *service.guest.lock() = Some(space.guest().clone());
    let connection = Connection {
        service,
        inbox: Arc::clone(inbox),
        requests,
        client,
        space,
        drains: Drains::new(options),
        watch: Watch::default(),
    };
    connection.send(&answer.0, &answer.1);
    Ok(connection)
}

impl Connection<'_> {
    /// Carries out commands until the connection ends; gives back why it did.
    fn run(&mut self) -> &'static str {
        let service = self.service;
        loop {
            self.finish_drains();
            self.look_for_traces();
            if service.stop.is_asked() {
                return STOPS;
            }
            let unmask = service.shell.interrupts().unmask_event();
            let mut others = vec![service.stop.poll_fd()];
            if let Some(unmask) = &unmask {
                others.push(PollFd::from_borrowed_fd(unmask.as_fd(), PollFlags::IN));
            }
            let pauses = [self.drains.pause(), self.watch.pause()];
            let at_most = pauses.into_iter().flatten().min();
            match self.inbox.next(Wait { others: &others, at_most }) {
                Event::Command(packet) => self.take(*packet),
                Event::Ended(ended) => return self.end(ended),
                Event::Other => {
                    service.shell.interrupts().take_unmask_event();
                }
            }
        }
    }

    /// Tells a client whose messages cannot be told apart any more, and why it ends.
    fn end(&self, ended: Ended) -> &'static str {
        match ended {
            Ended::Closed => "it closed the connection",
            Ended::Stalled => "it does not finish its message, or does not take ours",
            Ended::Stopped => STOPS,
            Ended::Unframed(header) => {
                self.refuse(header, &Refused::invalid("the message cannot have this size"));
                "it sent a header with an impossible size"
            }
        }
    }

    /// Carries out one command.
    fn take(&mut self, mut packet: Packet) {
        let counters = &self.service.counters;
        Counters::count(&counters.commands, 1);
        let Packet { header, since, .. } = packet;
        let answer = self.dispatch(&mut packet);
        // Descriptors that were not wanted are closed before the client hears of it.
        drop(packet);
        if header.command == command::DMA_MAP {
            let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            Counters::count(&counters.map_nanos, nanos);
        }
        match answer {
            Ok(Answer::Now(reply)) => self.reply(header, reply),
            Ok(Answer::Later(waiting)) => self.drains.add(*waiting),
            Err(refused) => self.refuse(header, &refused),
        }
    }

    fn dispatch(&mut self, packet: &mut Packet) -> Result<Answer, Refused> {
        let Packet { header, payload, fds, fds_lost, .. } = packet;
        if header.flags & !Header::NO_REPLY != 0 {
            let what = format!("the flags {:#x} are not those of a command", header.flags);
            return Err(Refused::invalid(what));
        }
        if *fds_lost {
            return Err(match fds.len() < FDS_MAX {
                true => Refused::new(Errno::MFILE, "this process has no descriptor left"),
                false => Refused::invalid("more descriptors than are taken in one message"),
            });
        }
        let takes_fds = matches!(header.command, command::DMA_MAP | command::DEVICE_SET_IRQS);
        if !fds.is_empty() && !takes_fds {
            return Err(Refused::invalid("the command takes no descriptors"));
        }
        let fds = core::mem::take(fds);
        let reply = match header.command {
            command::DMA_MAP => self.dma_map(payload, fds)?,
            command::DMA_UNMAP => return self.dma_unmap(*header, payload),
            command::DEVICE_GET_INFO => self.device_info(payload)?,
            command::DEVICE_GET_REGION_INFO => self.region_info(payload)?,
            command::DEVICE_GET_REGION_IO_FDS => self.region_io_fds(payload)?,
            command::DEVICE_GET_IRQ_INFO => self.irq_info(payload)?,
            command::DEVICE_SET_IRQS => self.set_irqs(payload, fds)?,
            command::REGION_READ => self.region_read(payload)?,
            command::REGION_WRITE => self.region_write(payload)?,
            command::REGION_WRITE_MULTI => self.region_write_multi(payload)?,
            command::DEVICE_RESET => self.reset(payload)?,
            command::VERSION => return Err(Refused::invalid("versions were agreed upon before")),
            command::DMA_READ | command::DMA_WRITE => {
                return Err(Refused::invalid("this command is the server's to send"));
            }
            command::DEVICE_FEATURE => return Err(device::feature(payload)),
            command::MIG_DATA_READ | command::MIG_DATA_WRITE => {
                return Err(Refused::new(Errno::OPNOTSUPP, "the device does not migrate"));
            }
            other => return Err(Refused::new(Errno::NOSYS, format!("command {other} is unknown"))),
        };
        Ok(Answer::Now(reply))
    }

    fn reply(&self, to: Header, reply: Reply) {
        if to.wants_reply() {
            let (bytes, fds) = reply.answer(to);
            self.send(&bytes, &fds);
        }
    }

    fn refuse(&self, to: Header, refused: &Refused) {
        self.note_refusal(to.command, refused);
        if to.wants_reply() {
            self.send(&Reply::refusal(to, refused.errno), &[]);
        }
    }

    /// Counts and reports a command that is refused, all or its rest.
    fn note_refusal(&self, of: u16, refused: &Refused) {
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
    fn send(&self, bytes: &[u8], fds: &[OwnedFd]) {
        if let Err(ended) = self.inbox.stream().send(bytes, fds) {
            self.inbox.end(ended);
        }
    }
}

/// Why a connection ends whose server was told to.
const STOPS: &str = "the server stops";
/// How long a connection thread goes without looking at drains, at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);
