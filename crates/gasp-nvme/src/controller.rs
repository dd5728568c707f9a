//! The controller at work, on the device's thread: it reads registers and doorbells, fetches a few
//! commands from each queue in turn, executes them, and posts completions.
//!
//! One command is executed at a time, from beginning to end: a reset takes effect after the command
//! in progress, and a guest that revokes memory waits for one transfer at most.

use core::mem;

use gasp_disk::{Data, Part};
use gasp_vdev::{DeviceContext, DmaError, IrqKind};

use super::command::Command;
use super::doorbell_buffers::DoorbellBuffers;
use super::events::{Event, Events};
use super::features::Features;
use super::log::{Entry, ErrorLog};
use super::power::Power;
use super::queue::{CompletionQueue, SubmissionQueue};
use super::status::Status;
use super::subsystem::Subsystem;

/// The maximum number of commands, and about the maximum number of bytes, of one queue's turn; then
/// the guest is interrupted and the next queue has its turn.
const BATCH: usize = 32;
const BATCH_BYTES: u64 = 512 << 10;

/// What the controller works with.
pub(super) struct Work<'a> {
    pub(super) subsystem: &'a Subsystem,
    pub(super) device: &'a DeviceContext,
}

impl Work<'_> {
    /// Whether a command that takes long should end: the device is to stop, or the guest has
    /// disabled the controller.
    pub(super) fn should_stop(&self) -> bool {
        self.device.should_stop() || self.subsystem.mmio.is_disabled()
    }
}

/// The state of the controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// The guest has not enabled it.
    Off,
    Running,
    /// It completes the commands submitted before, and then flushes.
    ShuttingDown,
    /// It fetches no commands until it is reset.
    ShutDown,
    /// It has lost its queues, or never had any, and waits for a reset.
    Failed,
}

/// The controller, as the device's thread sees it.
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
    pub(super) shadow: Option<DoorbellBuffers>,
    /// These outlast a reset.
    pub(super) errors: ErrorLog,
    pub(super) power: Power,
    /// The queue whose turn is first.
    first: u16,
    /// Whether the interrupt pin is raised.
    pin: bool,
    /// Kept so that their memory is reused; not in use between commands.
    pub(super) parts: Vec<Part>,
    pub(super) data: Data,
}

impl Controller {
    /// A disabled controller with this many pairs of I/O queues.
    pub(super) fn new(pairs: u16) -> Self {
        Self {
            state: State::Off,
            page: gasp::GRANULE,
            submissions: (0..=pairs).map(|_| None).collect(),
            completions: (0..=pairs).map(|_| None).collect(),
            events: Events::default(),
            features: Features::new(pairs),
            shadow: None,
            errors: ErrorLog::default(),
            power: Power::default(),
            first: 0,
            pin: false,
            parts: Vec::new(),
            data: Data::default(),
        }
    }

    /// Resets to the state after power-on, except for what outlasts a reset.
    pub(super) fn reset(&mut self, pairs: u16) {
        let (errors, power) = (mem::take(&mut self.errors), mem::take(&mut self.power));
        *self = Self { errors, power, ..Self::new(pairs) };
    }

    /// Works until there is nothing more to do, or it should stop.
    pub(super) fn work(&mut self, work: &Work<'_>) {
        while !work.device.should_stop() {
            if work.subsystem.mmio.take_registers_changed() {
                self.handle_registers(work);
            }
            let busy = match self.state {
                State::Running | State::ShuttingDown | State::ShutDown => {
                    self.round(work).unwrap_or_else(|error| {
                        // What fails because the device is to stop is no fault of the guest's.
                        if work.device.should_stop() {
                            return true;
                        }
                        if let Some(times) = work.subsystem.warnings.next_logged() {
                            tracing::warn!(%error, times, "a queue is lost: the controller fails");
                        }
                        self.fail(work);
                        false
                    })
                }
                State::Off | State::Failed => {
                    work.subsystem.mmio.clear_doorbells();
                    false
                }
            };
            if !busy {
                self.power.idles();
                if work.subsystem.mmio.fall_asleep() {
                    return;
                }
            }
        }
        self.power.idles();
        work.subsystem.mmio.stop();
    }

    /// Reads all doorbells and gives each queue its turn. Returns whether there was anything to do.
    fn round(&mut self, work: &Work<'_>) -> Result<bool, DmaError> {
        let mut busy = self.take_doorbells(work) | self.take_shadow(work)?;
        if [State::Running, State::ShuttingDown].contains(&self.state) {
            busy |= self.post_events(work)?;
            let count = self.submissions.len() as u16;
            let mut served = false;
            for turn in 0..count {
                if work.device.should_stop() || work.subsystem.mmio.registers_changed() {
                    return Ok(true);
                }
                served |= self.serve(work, (self.first + turn) % count)?;
            }
            self.first = (self.first + 1) % count;
            if self.state == State::ShuttingDown && !served {
                self.finish_shutdown(work);
            }
            busy |= served;
        }
        if self.pin {
            self.update_pin(work);
        }
        Ok(busy || self.arm_shadow(work)?)
    }

    /// Takes the values written to doorbells. Returns whether there were any. New commands are void
    /// during and after a shutdown.
    pub(super) fn take_doorbells(&mut self, work: &Work<'_>) -> bool {
        let mmio = &work.subsystem.mmio;
        let (mut no_such, mut bad) = (mmio.take_stray(), false);
        let mut any = no_such;
        for (id, queue) in (0..).zip(&mut self.submissions) {
            if let Some(tail) = mmio.take_tail(id) {
                any = true;
                if self.state == State::Running {
                    no_such |= queue.is_none();
                    // What was written to the register may be older than a shadow doorbell.
                    let queue = queue.as_mut().filter(|queue| !queue.shadow.is_used());
                    bad |= queue.is_some_and(|queue| queue.set_tail(tail).is_err());
                }
            }
        }
        for (id, queue) in (0..).zip(&mut self.completions) {
            if let Some(head) = mmio.take_head(id) {
                any = true;
                no_such |= queue.is_none();
                let queue = queue.as_mut().filter(|queue| !queue.shadow.is_used());
                bad |= queue.is_some_and(|queue| queue.set_head(head).is_err());
            }
        }
        if no_such {
            self.events.raise(Event::NoSuchDoorbell);
            self.record_failure_without_command(work, Status::QUEUE_IDENTIFIER);
        }
        if bad {
            self.events.raise(Event::BadDoorbellValue);
            self.record_failure_without_command(work, Status::INVALID_FIELD);
        }
        any
    }

    /// Completes event requests, as far as there are events and free entries in the completion
    /// queue.
    fn post_events(&mut self, work: &Work<'_>) -> Result<bool, DmaError> {
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
                let count = work.subsystem.counters.failed(status.is_of_media());
                status = status.with_more();
                self.errors.record(Entry {
                    queue: 0.into(),
                    command: command.into(),
                    status: status.field(completion.phase),
                    ..Entry::of_no_command(count, status)
                });
            }
            completion.post(work.device, result, (0, submission.head()), command, status)?;
            any = true;
        }
        if any {
            self.signal_completions(work, 0);
        }
        Ok(any)
    }

    /// Executes a batch of one queue's commands. Returns whether there were any.
    fn serve(&mut self, work: &Work<'_>, id: u16) -> Result<bool, DmaError> {
        let (mut count, mut bytes) = (0, 0);
        let mut to_signal = None;
        while count < BATCH && bytes < BATCH_BYTES {
            let Some(Some(queue)) = self.submissions.get_mut(usize::from(id)) else { break };
            let completes_to = queue.completes_to;
            let full = match self.completions.get(usize::from(completes_to)) {
                Some(Some(completion)) => completion.is_full(),
                _ => true,
            };
            // Without a free entry for its completion a command is not fetched.
            if full || queue.is_empty() {
                break;
            }
            let command = queue.fetch(work.device)?;
            let head = queue.head();
            count += 1;
            let done = match id {
                0 => {
                    work.subsystem.counters.administered();
                    self.administer(work, &command)
                }
                _ => {
                    self.power.works();
                    self.transfer(work, &command).map(|moved| {
                        bytes += moved;
                        Some(0)
                    })
                }
            };
            let (result, status) = match done {
                Ok(Some(result)) => (result, Status::SUCCESS),
                Ok(None) => continue,
                Err(status) => (0, self.record_failure(work, id, &command, status)),
            };
            if let Some(Some(completion)) = self.completions.get_mut(usize::from(completes_to)) {
                completion.post(work.device, result, (id, head), command.id.get(), status)?;
                to_signal = Some(completes_to);
            }
            if work.device.should_stop() || work.subsystem.mmio.registers_changed() {
                break;
            }
        }
        if let Some(queue) = to_signal {
            self.signal_completions(work, queue);
        }
        Ok(count > 0)
    }

    /// Counts a command that failed and records it in the error log. Returns its status with the
    /// bit that says so.
    #[cold]
    fn record_failure(
        &mut self,
        work: &Work<'_>,
        queue: u16,
        command: &Command,
        status: Status,
    ) -> Status {
        let completes_to = self.submissions.get(usize::from(queue)).and_then(Option::as_ref);
        let completes_to = completes_to.map_or(0, |queue| usize::from(queue.completes_to));
        let completion = self.completions.get(completes_to).and_then(Option::as_ref);
        let phase = completion.is_some_and(|queue| queue.phase);
        let count = work.subsystem.counters.failed(status.is_of_media());
        self.errors.record(Entry {
            queue: queue.into(),
            command: command.id,
            status: status.with_more().field(phase),
            location: status.location().into(),
            block: self.failed_block(work, queue, command).into(),
            namespace: command.namespace,
            ..Entry::of_no_command(count, status)
        });
        status.with_more()
    }

    /// Counts and records an error that belongs to no command.
    #[cold]
    pub(super) fn record_failure_without_command(&mut self, work: &Work<'_>, status: Status) {
        let count = work.subsystem.counters.failed(status.is_of_media());
        self.errors.record(Entry::of_no_command(count, status));
    }

    /// Signals completions to the guest, with one interrupt for all of them.
    fn signal_completions(&mut self, work: &Work<'_>, queue: u16) {
        let Some(Some(completion)) = self.completions.get(usize::from(queue)) else { return };
        let Some(vector) = completion.vector else { return };
        work.subsystem.counters.interrupted();
        match work.device.interrupts().assigned(IrqKind::Msix) {
            0 => self.update_pin(work),
            _ => work.device.signal(vector),
        }
    }

    /// Raises the pin while the guest uses it and has completions to consume, and lowers it
    /// otherwise (7.5.1).
    pub(super) fn update_pin(&mut self, work: &Work<'_>) {
        let masked = work.subsystem.mmio.registers().masked;
        let uses_pin = work.device.interrupts().assigned(IrqKind::Msix) == 0;
        let wanted = uses_pin
            && self.completions.iter().flatten().any(|queue| {
                let unmasked = |vector: u16| masked >> (vector % 32) & 1 == 0;
                queue.vector.is_some_and(unmasked) && queue.is_waiting()
            });
        match wanted {
            true => work.device.signal(0),
            false if self.pin => work.device.lower(),
            false => {}
        }
        self.pin = wanted;
    }

    pub(super) fn lower_pin(&mut self, work: &Work<'_>) {
        if self.pin {
            work.device.lower();
            self.pin = false;
        }
    }
}
