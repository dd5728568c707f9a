//! Admin commands (NVMe 1.4, 5).

use gasp_disk::Direction;

use super::command::{COMPLETION, Command, ENTRY};
use super::controller::{Controller, Work};
use super::doorbell_buffers::Side;
use super::events::Event;
use super::identify::identify;
use super::identity::TRANSFER_MAX;
use super::log::{self, Request, Sources};
use super::prp::find_parts;
use super::queue::{CompletionQueue, Ring, SubmissionQueue};
use super::status::Status;

/// Opcodes.
const DELETE_SUBMISSION_QUEUE: u8 = 0x00;
const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
const GET_LOG_PAGE: u8 = 0x02;
const DELETE_COMPLETION_QUEUE: u8 = 0x04;
const CREATE_COMPLETION_QUEUE: u8 = 0x05;
const IDENTIFY: u8 = 0x06;
const ABORT: u8 = 0x08;
const SET_FEATURES: u8 = 0x09;
const GET_FEATURES: u8 = 0x0a;
const EVENT_REQUEST: u8 = 0x0c;
const DOORBELL_BUFFERS: u8 = 0x7c;

/// Bits of dword 11 when a queue is created: contiguous memory, interrupts.
const CONTIGUOUS: u32 = 1;
const INTERRUPTS: u32 = 1 << 1;

/// The result of an abort: the command was not found.
const NOT_ABORTED: u32 = 1;

impl Controller {
    /// Executes an admin command. Returns its result; `None` if it completes later.
    pub(super) fn administer(
        &mut self,
        work: &Work<'_>,
        command: &Command,
    ) -> Result<Option<u32>, Status> {
        command.check()?;
        let (dword10, dword11) = (command.dword10.get(), command.dword11.get());
        let result = match command.opcode {
            DELETE_SUBMISSION_QUEUE => self.delete_submission(work, dword10)?,
            CREATE_SUBMISSION_QUEUE => self.create_submission(work, command)?,
            GET_LOG_PAGE => self.get_log(work, command)?,
            DELETE_COMPLETION_QUEUE => self.delete_completion(work, dword10)?,
            CREATE_COMPLETION_QUEUE => self.create_completion(work, command)?,
            IDENTIFY => {
                let page = identify(work.subsystem, dword10 as u8, command.namespace.get())?;
                self.return_data(work, command, &page)?
            }
            ABORT => self.abort(dword10),
            SET_FEATURES => self.set_features(work, command)?,
            GET_FEATURES => self.features.get(dword10, dword11, command.namespace.get())?,
            EVENT_REQUEST => {
                self.events.request(command.id.get())?;
                return Ok(None);
            }
            DOORBELL_BUFFERS => self.use_shadow(work, command)?,
            _ => return Err(Status::INVALID_OPCODE),
        };
        Ok(Some(result))
    }

    /// Copies `bytes` to the command's data in the guest.
    fn return_data(
        &mut self,
        work: &Work<'_>,
        command: &Command,
        bytes: &[u8],
    ) -> Result<u32, Status> {
        let len = bytes.len() as u64;
        find_parts(work.device, command.prps(), len, self.page, &mut self.parts)?;
        self.data.map(work.device, &self.parts, Direction::ToGuest)?;
        let copied = self.data.copy_to_guest(bytes);
        self.data.finish(work.device, copied)?;
        Ok(0)
    }

    /// Create I/O Completion Queue (5.3).
    fn create_completion(&mut self, work: &Work<'_>, command: &Command) -> Result<u32, Status> {
        let id = new_queue(&self.completions, command.dword10.get())?;
        let ring = self.new_ring(work, command, COMPLETION)?;
        let vector = (command.dword11.get() >> 16) as u16;
        // One for each I/O queue, and the admin queue's.
        if vector > work.subsystem.options.queues {
            return Err(Status::INTERRUPT_VECTOR);
        }
        let vector = (command.dword11.get() & INTERRUPTS != 0).then_some(vector);
        // A value still in the doorbell was for a queue that is gone.
        work.subsystem.mmio.take_head(id);
        if let Some(place) = self.completions.get_mut(usize::from(id)) {
            *place = Some(CompletionQueue::new(ring, vector));
        }
        self.begin_shadow(work, id, Side::Head)
            .inspect_err(|_| forget(&mut self.completions, id))?;
        Ok(0)
    }

    /// Create I/O Submission Queue (5.4).
    fn create_submission(&mut self, work: &Work<'_>, command: &Command) -> Result<u32, Status> {
        let id = new_queue(&self.submissions, command.dword10.get())?;
        let completes_to = (command.dword11.get() >> 16) as u16;
        match self.completions.get(usize::from(completes_to)) {
            None => return Err(Status::QUEUE_IDENTIFIER),
            Some(Some(_)) if completes_to > 0 => {}
            Some(_) => return Err(Status::NO_COMPLETION_QUEUE),
        }
        let ring = self.new_ring(work, command, ENTRY)?;
        work.subsystem.mmio.take_tail(id);
        if let Some(place) = self.submissions.get_mut(usize::from(id)) {
            *place = Some(SubmissionQueue::new(ring, completes_to));
        }
        self.begin_shadow(work, id, Side::Tail)
            .inspect_err(|_| forget(&mut self.submissions, id))?;
        Ok(0)
    }

    /// The ring that the guest describes for a queue.
    fn new_ring(&self, work: &Work<'_>, command: &Command, entry: u64) -> Result<Ring, Status> {
        // Counted from 0; a queue of one entry is always empty.
        let size = (command.dword10.get() >> 16) + 1;
        if size < 2
            || size > work.subsystem.options.entries
            || !work.subsystem.mmio.registers().has_entry_sizes()
        {
            return Err(Status::QUEUE_SIZE);
        }
        if command.dword11.get() & CONTIGUOUS == 0 {
            return Err(Status::INVALID_FIELD);
        }
        if !command.prp1.get().is_multiple_of(self.page) {
            return Err(Status::PRP_OFFSET);
        }
        Ring::new(command.prp1.get(), size, entry).ok_or(Status::INVALID_FIELD)
    }

    /// Delete I/O Submission Queue (5.6). Commands in it that were not fetched are void.
    fn delete_submission(&mut self, work: &Work<'_>, dword10: u32) -> Result<u32, Status> {
        *old_queue(&mut self.submissions, dword10)? = None;
        self.end_shadow(work, dword10 as u16, Side::Tail);
        Ok(0)
    }

    /// Delete I/O Completion Queue (5.5), which no submission queue may use any more.
    fn delete_completion(&mut self, work: &Work<'_>, dword10: u32) -> Result<u32, Status> {
        let queue = old_queue(&mut self.completions, dword10)?;
        let users = self.submissions.iter().flatten();
        if users.clone().any(|user| u32::from(user.completes_to) == dword10 & 0xffff) {
            return Err(Status::QUEUE_DELETION);
        }
        *queue = None;
        self.end_shadow(work, dword10 as u16, Side::Head);
        Ok(0)
    }

    /// Abort (5.1). Commands are executed as they are fetched, so only event requests can still be
    /// waiting.
    fn abort(&mut self, dword10: u32) -> u32 {
        let (queue, command) = (dword10 as u16, (dword10 >> 16) as u16);
        match queue == 0 && self.events.abort(command) {
            true => 0,
            false => NOT_ABORTED,
        }
    }

    /// Set Features (5.21).
    fn set_features(&mut self, work: &Work<'_>, command: &Command) -> Result<u32, Status> {
        let (dword10, dword11) = (command.dword10.get(), command.dword11.get());
        let has_queues = self.completions.iter().skip(1).any(Option::is_some);
        let reported = self.features.reports_temperature();
        let mut changed = self.features.clone();
        let result = changed.set(dword10, dword11, command.namespace.get(), has_queues)?;
        // Data in a cache that is disabled must not stay there.
        if self.features.may_cache() && !changed.may_cache() {
            work.subsystem.disk.flush()?;
        }
        self.features = changed;
        if self.features.reports_temperature() && !reported {
            self.events.raise(Event::Temperature);
        }
        Ok(result)
    }

    /// Get Log Page (5.14).
    fn get_log(&mut self, work: &Work<'_>, command: &Command) -> Result<u32, Status> {
        let request = Request::new(command);
        if request.len > TRANSFER_MAX {
            return Err(Status::INVALID_FIELD);
        }
        let sources = Sources {
            errors: &self.errors,
            counters: work.subsystem.counters.snapshot(),
            power: &self.power,
            is_temperature_critical: self.features.is_temperature_critical(),
        };
        let page = log::read(request.page, command.namespace.get(), &sources)?;
        let mut answer = vec![0; request.len as usize];
        let bytes = request.find(&page)?;
        answer.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        self.return_data(work, command, &answer)?;
        if !request.keeps_event {
            self.events.clear(request.page);
        }
        Ok(0)
    }
}

fn forget<Queue>(queues: &mut [Option<Queue>], id: u16) {
    if let Some(place) = queues.get_mut(usize::from(id)) {
        *place = None;
    }
}

/// The number of an I/O queue to create: it must not exist yet.
fn new_queue<Queue>(queues: &[Option<Queue>], dword10: u32) -> Result<u16, Status> {
    let id = dword10 as u16;
    match queues.get(usize::from(id)) {
        Some(None) if id > 0 => Ok(id),
        _ => Err(Status::QUEUE_IDENTIFIER),
    }
}

/// The place of an I/O queue to delete: it must exist.
fn old_queue<Queue>(
    queues: &mut [Option<Queue>],
    dword10: u32,
) -> Result<&mut Option<Queue>, Status> {
    let id = dword10 as u16;
    let place = queues.get_mut(usize::from(id)).filter(|queue| id > 0 && queue.is_some());
    place.ok_or(Status::QUEUE_IDENTIFIER)
}
