//! Executes the commands of a client, one after another.

use std::os::fd::AsFd;

use gasp::Errno;
use rustix::event::{PollFd, PollFlags};

use super::device::feature;
use super::state::{Answer, Connection};
use crate::report::{Counters, ServerEvent};
use crate::socket::{Ended, Event, FDS_MAX, Packet, Wait};
use crate::stop::STOPS;
use crate::wire::{Header, Refused, command};

impl Connection<'_> {
    /// Executes commands until the connection ends; returns why it ended.
    pub(super) fn run(&mut self) -> &'static str {
        let service = self.service;
        loop {
            self.finish_drains();
            self.check_traces();
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
                Event::Command(packet) => self.execute(*packet),
                Event::Ended(ended) => return self.end(ended),
                Event::Other => {
                    service.shell.interrupts().take_unmask_event();
                }
            }
        }
    }

    /// Why the connection ends. A client whose next message cannot be found is answered
    /// first.
    fn end(&self, ended: Ended) -> &'static str {
        match ended {
            Ended::Closed => "it closed the connection",
            Ended::Stalled => "it did not finish a message, or did not read one, in time",
            Ended::Stopped => STOPS,
            Ended::Unframed(header) => {
                self.refuse(header, &Refused::invalid("the message has an invalid size"));
                "it sent a header with an invalid size"
            }
        }
    }

    /// Executes one command.
    fn execute(&mut self, mut packet: Packet) {
        let counters = &self.service.counters;
        Counters::count(&counters.commands, 1);
        let Packet { header, since, .. } = packet;
        let answer = self.dispatch(&mut packet);
        // Descriptors that were not used are closed before the client is answered.
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
                true => Refused::new(Errno::MFILE, "this process is out of descriptors"),
                false => Refused::invalid("more descriptors than are accepted in one message"),
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
            command::VERSION => return Err(Refused::invalid("the version is already negotiated")),
            command::DMA_READ | command::DMA_WRITE => {
                return Err(Refused::invalid("only the server sends this command"));
            }
            command::DEVICE_FEATURE => return Err(feature(payload)),
            command::MIG_DATA_READ | command::MIG_DATA_WRITE => {
                return Err(Refused::new(
                    Errno::OPNOTSUPP,
                    "the device does not support migration",
                ));
            }
            other => return Err(Refused::new(Errno::NOSYS, format!("command {other} is unknown"))),
        };
        Ok(Answer::Now(reply))
    }

    /// Reports memory files that the guest does not seem to write to.
    fn check_traces(&self) {
        if !self.watch.is_due() {
            return;
        }
        let Some(len) = self.space.seems_unshared() else { return };
        let counters = &self.service.counters;
        let event = || ServerEvent::NotShared { len, seen: false };
        if !counters.report_limited(&counters.routine, event) {
            return;
        }
        tracing::warn!(
            device = self.service.shell.name(),
            bytes = len,
            "the guest uses the device, but its memory files are still empty: its VMM seems to \
             map them privately, so the guest's commands never arrive here (QEMU: share=off; \
             use share=on)"
        );
    }
}
