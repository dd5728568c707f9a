//! The controller at work, on the device's thread: it looks at registers and doorbells,
//! takes a few commands from each queue in turn, does them, and tells the guest.
//!
//! One command is done at a time, from beginning to end, so there is never one to wait for:
//! a reset takes effect after the command that is being done, and a guest that takes
//! memory back waits for one transfer at most.

use core::mem;

use super::Nvme;
use super::command::Command;
use super::data::Data;
use super::events::{Event, Events};
use super::features::Features;
use super::life::State;
use super::log::{Entry, ErrorLog};
use super::power::Power;
use super::prp::Part;
use super::queue::{CompletionQueue, SubmissionQueue};
use super::status::Status;
use crate::bus::Bus;
use crate::error::DmaError;
use crate::pci::IrqKind;

/// The most commands, and about the most bytes, that are done for one queue before the
/// guest is told and the next queue has its turn.
const BATCH: usize = 32;
const BATCH_BYTES: u64 = 512 << 10;

/// What the work is done with.
pub(super) struct Context<'a> {
    pub(super) nvme: &'a Nvme,
    pub(super) bus: &'a Bus,
}

impl Context<'_> {
    /// Whether a command that takes long should end: the VMM or the guest wants a reset.
    pub(super) fn should_stop(&self) -> bool {
        self.bus.should_stop() || self.nvme.front.is_disabled()
    }
}

/// What the device's thread knows.
#[derive(Debug)]
pub(super) struct Controller {
    pub(super) state: State,
    /// The size of a memory page.
    pub(super) page: u64,
    /// Queues by number; the first are the admin queues.
    pub(super) submissions: Vec<Option<SubmissionQueue>>,
    pub(super) completions: Vec<Option<CompletionQueue>>,
    pub(super) events: Events,
    pub(super) features: Features,
    /// These outlast a reset.
    pub(super) errors: ErrorLog,
    pub(super) power: Power,
    /// The queue whose turn is first.
    first: u16,
    /// Whether the interrupt pin is raised.
    pin: bool,
    /// Kept for their memory; empty between commands.
    pub(super) parts: Vec<Part>,
    pub(super) data: Data,
}

impl Controller {
    /// A controller with this many pairs of I/O queues, switched off.
    pub(super) fn new(pairs: u16) -> Self {
        Self {
            state: State::Off,
            page: gasp::GRANULE,
            submissions: (0..=pairs).map(|_| None).collect(),
            completions: (0..=pairs).map(|_| None).collect(),
            events: Events::default(),
            features: Features::new(pairs),
            errors: ErrorLog::default(),
            power: Power::default(),
            first: 0,
            pin: false,
            parts: Vec::new(),
            data: Data::default(),
        }
    }

    /// As after power-on, but for what outlasts a reset.
    pub(super) fn reset(&mut self, pairs: u16) {
        let (errors, power) = (mem::take(&mut self.errors), mem::take(&mut self.power));
        *self = Self { errors, power, ..Self::new(pairs) };
    }

    /// Works until there is nothing more to do, or it should stop.
    pub(super) fn work(&mut self, at: &Context<'_>) {
        while !at.bus.should_stop() {
            if at.nvme.front.take_look() {
                self.look(at);
            }
            let busy = match self.state {
                State::Running | State::ShuttingDown | State::ShutDown => {
                    self.round(at).unwrap_or_else(|error| {
                        // What a stop has given up is no fault of the guest's.
                        if at.bus.should_stop() {
                            return true;
                        }
                        if let Some(times) = at.nvme.warnings.again() {
                            tracing::warn!(%error, times, "a queue cannot be reached: it stops");
                        }
                        self.fail(at);
                        false
                    })
                }
                State::Off | State::Failed => {
                    at.nvme.front.clear_doorbells();
                    false
                }
            };
            if !busy {
                self.power.idles();
                if at.nvme.front.fall_asleep() {
                    return;
                }
            }
        }
        self.power.idles();
        at.nvme.front.stop();
    }

    /// Looks at all doorbells and gives each queue its turn. Returns whether there was
    /// anything to do.
    fn round(&mut self, at: &Context<'_>) -> Result<bool, DmaError> {
        let mut busy = self.take_doorbells(at);
        if [State::Running, State::ShuttingDown].contains(&self.state) {
            busy |= self.post_events(at)?;
            let count = self.submissions.len() as u16;
            let mut served = false;
            for turn in 0..count {
                if at.bus.should_stop() || at.nvme.front.should_look() {
                    return Ok(true);
                }
                served |= self.serve(at, (self.first + turn) % count)?;
            }
            self.first = (self.first + 1) % count;
            if self.state == State::ShuttingDown && !served {
                self.finish_shutdown(at);
            }
            busy |= served;
        }
        if self.pin {
            self.settle_pin(at);
        }
        Ok(busy)
    }

    /// Takes what was written to doorbells. Returns whether anything was. New commands are
    /// void during and after a shutdown.
    pub(super) fn take_doorbells(&mut self, at: &Context<'_>) -> bool {
        let front = &at.nvme.front;
        let (mut no_such, mut bad) = (front.take_stray(), false);
        let mut any = no_such;
        for (id, queue) in (0..).zip(&mut self.submissions) {
            if let Some(tail) = front.take_tail(id) {
                any = true;
                if self.state == State::Running {
                    no_such |= queue.is_none();
                    bad |= queue.as_mut().is_some_and(|queue| queue.set_tail(tail).is_err());
                }
            }
        }
        for (id, queue) in (0..).zip(&mut self.completions) {
            if let Some(head) = front.take_head(id) {
                any = true;
                no_such |= queue.is_none();
                bad |= queue.as_mut().is_some_and(|queue| queue.set_head(head).is_err());
            }
        }
        if no_such {
            self.events.raise(Event::NoSuchDoorbell);
            self.failed_without_command(at, Status::QUEUE_IDENTIFIER);
        }
        if bad {
            self.events.raise(Event::BadDoorbellValue);
            self.failed_without_command(at, Status::INVALID_FIELD);
        }
        any
    }

    /// Ends requests for events, as far as there are events and room.
    fn post_events(&mut self, at: &Context<'_>) -> Result<bool, DmaError> {
        let (Some(Some(submission)), Some(Some(completion))) =
            (self.submissions.first(), self.completions.first_mut())
        else {
            return Ok(false);
        };
        let mut any = false;
        while !completion.is_full()
            && let Some((command, result, mut status)) = self.events.next()
        {
            if status != Status::SUCCESS {
                let count = at.nvme.counters.failed(status.is_of_media());
                status = status.with_more();
                let (queue, location, phase) = (0, u16::MAX, completion.phase);
                let (block, namespace) = (0, 0);
                let entry =
                    Entry { count, queue, command, status, phase, location, block, namespace };
                self.errors.record(entry);
            }
            completion.post(at.bus, result, (0, submission.head()), command, status)?;
            any = true;
        }
        if any {
            self.tell(at, 0);
        }
        Ok(any)
    }

    /// Does a batch of one queue's commands. Returns whether there were any.
    fn serve(&mut self, at: &Context<'_>, id: u16) -> Result<bool, DmaError> {
        let (mut count, mut bytes) = (0, 0);
        let mut told = None;
        while count < BATCH && bytes < BATCH_BYTES {
            let Some(Some(queue)) = self.submissions.get_mut(usize::from(id)) else { break };
            let completes_to = queue.completes_to;
            let full = match self.completions.get(usize::from(completes_to)) {
                Some(Some(completion)) => completion.is_full(),
                _ => true,
            };
            // Without room for its completion a command is not begun.
            if full || queue.is_empty() {
                break;
            }
            let command = queue.fetch(at.bus)?;
            let head = queue.head();
            count += 1;
            let done = match id {
                0 => {
                    at.nvme.counters.administered();
                    self.administer(at, &command)
                }
                _ => {
                    self.power.works();
                    self.transfer(at, &command).map(|moved| {
                        bytes += moved;
                        Some(0)
                    })
                }
            };
            let (result, status) = match done {
                Ok(Some(result)) => (result, Status::SUCCESS),
                Ok(None) => continue,
                Err(status) => (0, self.failed(at, id, &command, status)),
            };
            if let Some(Some(completion)) = self.completions.get_mut(usize::from(completes_to)) {
                completion.post(at.bus, result, (id, head), command.id(), status)?;
                told = Some(completes_to);
            }
            if at.bus.should_stop() || at.nvme.front.should_look() {
                break;
            }
        }
        if let Some(queue) = told {
            self.tell(at, queue);
        }
        Ok(count > 0)
    }

    /// Counts a command that failed and puts it into the error log. Returns its status with
    /// the bit that says so.
    #[cold]
    fn failed(
        &mut self,
        at: &Context<'_>,
        queue: u16,
        command: &Command,
        status: Status,
    ) -> Status {
        let completes_to = self.submissions.get(usize::from(queue)).and_then(Option::as_ref);
        let completes_to = completes_to.map_or(0, |queue| usize::from(queue.completes_to));
        let completion = self.completions.get(completes_to).and_then(Option::as_ref);
        let entry = Entry {
            count: at.nvme.counters.failed(status.is_of_media()),
            queue,
            command: command.id(),
            status: status.with_more(),
            phase: completion.is_some_and(|queue| queue.phase),
            location: status.location(),
            block: self.failed_block(at, queue, command),
            namespace: command.namespace(),
        };
        self.errors.record(entry);
        status.with_more()
    }

    /// The same for an error that belongs to no command.
    #[cold]
    pub(super) fn failed_without_command(&mut self, at: &Context<'_>, status: Status) {
        let count = at.nvme.counters.failed(status.is_of_media());
        self.errors.record(Entry::of_no_command(count, status));
    }

    /// Tells the guest of completions, with one interrupt for all of them.
    fn tell(&mut self, at: &Context<'_>, queue: u16) {
        let Some(Some(completion)) = self.completions.get(usize::from(queue)) else { return };
        let Some(vector) = completion.vector else { return };
        at.nvme.counters.interrupted();
        match at.bus.interrupts().assigned(IrqKind::Msix) {
            0 => self.settle_pin(at),
            _ => at.bus.signal(vector),
        }
    }

    /// Raises the pin, if the guest uses it, while it has completions to take (7.5.1).
    pub(super) fn settle_pin(&mut self, at: &Context<'_>) {
        let masked = at.nvme.front.registers().masked;
        let uses_pin = at.bus.interrupts().assigned(IrqKind::Msix) == 0;
        let wanted = uses_pin
            && self.completions.iter().flatten().any(|queue| {
                let unmasked = |vector: u16| masked >> (vector % 32) & 1 == 0;
                queue.vector.is_some_and(unmasked) && queue.is_waiting()
            });
        match wanted {
            true => at.bus.signal(0),
            false if self.pin => at.bus.lower(),
            false => {}
        }
        self.pin = wanted;
    }

    pub(super) fn lower_pin(&mut self, at: &Context<'_>) {
        if self.pin {
            at.bus.lower();
            self.pin = false;
        }
    }
}
