//! Shadow doorbells (NVMe 1.4, 5.7 and 7.13): the guest writes the doorbells of its I/O queues to its
//! own memory, and to the registers only if the controller has asked for that.
//!
//! | page of the guest | written by | value |
//! |---|---|---|
//! | shadow doorbells | the guest | as it would write to the register |
//! | event indices | the controller | the register is to be written when the doorbell passes this value |
//!
//! While the controller works, it reads the shadow doorbells each round, and leaves the event indices
//! behind, so that the guest writes no register. Before it sleeps, it sets the event indices to where
//! the doorbells are, and reads these once more: the guest writes its doorbell before it reads the
//! event index, so one of both sees the other. What is then written to a register says only that there
//! is work, and rings the device's doorbell without a call of the device, if the front end can do that.
//! Until the guest has written a shadow doorbell for the first time, the value in its register counts:
//! it may come from before the guest knew that the shadow doorbells are used.
//!
//! The admin queues use registers only, as drivers expect.

use core::sync::atomic::{Ordering, fence};

use gasp_vdev::{DmaError, IrqKind};

use super::command::Command;
use super::controller::{Controller, State, Work};
use super::doorbell_buffers::{DoorbellBuffers, Known, Side, register};
use super::events::Event;
use super::queue::BadValue;
use super::status::Status;

impl Controller {
    /// Doorbell Buffer Config (5.7).
    pub(super) fn use_shadow(&mut self, work: &Work<'_>, command: &Command) -> Result<u32, Status> {
        let (doorbells, events) = command.prps();
        if !doorbells.is_multiple_of(self.page) || !events.is_multiple_of(self.page) {
            return Err(Status::PRP_OFFSET);
        }
        if doorbells.checked_add(self.page).is_none() || events.checked_add(self.page).is_none() {
            return Err(Status::INVALID_FIELD);
        }
        self.stop_shadow(work);
        self.shadow = Some(DoorbellBuffers { doorbells, events });
        for id in 1..self.submissions.len() as u16 {
            for side in [Side::Tail, Side::Head] {
                if let Err(status) = self.begin_shadow(work, id, side) {
                    self.stop_shadow(work);
                    return Err(status);
                }
            }
        }
        Ok(0)
    }

    /// Begins to use the shadow doorbell of a queue, if there are a queue and shadow doorbells.
    pub(super) fn begin_shadow(
        &mut self,
        work: &Work<'_>,
        id: u16,
        side: Side,
    ) -> Result<(), Status> {
        let Some(shadow) = self.shadow else { return Ok(()) };
        let index = usize::from(id);
        let place = match side {
            Side::Tail => {
                let queue = self.submissions.get_mut(index).and_then(Option::as_mut);
                queue.map(|queue| (queue.tail(), &mut queue.shadow))
            }
            Side::Head => {
                let queue = self.completions.get_mut(index).and_then(Option::as_mut);
                queue.map(|queue| (queue.head(), &mut queue.shadow))
            }
        };
        if let Some((value, known)) = place {
            let begun = shadow.begin(work.device, id, side, value);
            *known = begun.map_err(|_| Status::DATA_TRANSFER)?;
        }
        Ok(())
    }

    /// Has writes to a doorbell arrive at the device again.
    pub(super) fn end_shadow(&self, work: &Work<'_>, id: u16, side: Side) {
        if self.shadow.is_some() {
            work.device.stop_ringing(register(id, side), None);
        }
    }

    /// Uses registers again, for all queues, and no memory of the guest's.
    pub(super) fn stop_shadow(&mut self, work: &Work<'_>) {
        for id in 1..self.submissions.len() as u16 {
            self.end_shadow(work, id, Side::Tail);
            self.end_shadow(work, id, Side::Head);
        }
        self.shadow = None;
        self.submissions.iter_mut().flatten().for_each(|queue| queue.shadow = Known::default());
        self.completions.iter_mut().flatten().for_each(|queue| queue.shadow = Known::default());
    }

    /// Reads the shadow doorbells. Returns whether one of them has changed.
    pub(super) fn take_shadow(&mut self, work: &Work<'_>) -> Result<bool, DmaError> {
        let Some(shadow) = self.shadow else { return Ok(false) };
        let last = self.submissions.len() as u16 - 1;
        let (mut any, mut bad) = (false, false);
        let mut begun: Vec<(u16, Side)> = Vec::new();
        let is_running = self.state == State::Running;
        let (submissions, completions) = (&mut self.submissions, &mut self.completions);
        shadow.read(work.device, last, |id, side, value| {
            let index = usize::from(id);
            let set = match side {
                Side::Tail => submissions.get_mut(index).and_then(Option::as_mut).and_then(|q| {
                    let was_used = q.shadow.is_used();
                    let is_new = q.shadow.take(value);
                    begun.extend((was_used != q.shadow.is_used()).then_some((id, side)));
                    // New commands are void during and after a shutdown.
                    (is_new && is_running).then(|| q.set_tail(value))
                }),
                Side::Head => completions.get_mut(index).and_then(Option::as_mut).and_then(|q| {
                    let was_used = q.shadow.is_used();
                    let is_new = q.shadow.take(value);
                    begun.extend((was_used != q.shadow.is_used()).then_some((id, side)));
                    is_new.then(|| q.set_head(value))
                }),
            };
            any |= set.is_some();
            bad |= set == Some(Err(BadValue));
        })?;
        // From now on the register is written for the sake of being written.
        for (id, side) in begun {
            work.device.ring_on_write(register(id, side), None);
        }
        if bad {
            self.events.raise(Event::BadDoorbellValue);
            self.record_failure_without_command(work, Status::INVALID_FIELD);
        }
        Ok(any)
    }

    /// Has the guest write registers from now on, and reads the shadow doorbells once more. Returns
    /// whether there is something to do after all.
    ///
    /// A completion queue's register is to be written only if the controller waits for it: the queue
    /// is full, or the pin says that there are completions in it.
    pub(super) fn arm_shadow(&mut self, work: &Work<'_>) -> Result<bool, DmaError> {
        let Some(shadow) = self.shadow else { return Ok(false) };
        let uses_pin = work.device.interrupts().assigned(IrqKind::Msix) == 0;
        for (id, queue) in (1..).zip(self.submissions.iter_mut().skip(1)) {
            if let Some(queue) = queue {
                set_event(work, shadow, (id, Side::Tail), queue.tail(), &mut queue.shadow)?;
            }
        }
        for (id, queue) in (1..).zip(self.completions.iter_mut().skip(1)) {
            if let Some(queue) = queue
                && (uses_pin || queue.is_full())
            {
                set_event(work, shadow, (id, Side::Head), queue.head(), &mut queue.shadow)?;
            }
        }
        fence(Ordering::SeqCst);
        self.take_shadow(work)
    }
}

fn set_event(
    work: &Work<'_>,
    shadow: DoorbellBuffers,
    (id, side): (u16, Side),
    value: u32,
    known: &mut Known,
) -> Result<(), DmaError> {
    if known.event != value {
        DoorbellBuffers::write(
            work.device,
            shadow.events,
            DoorbellBuffers::offset(id, side),
            value,
        )?;
        known.event = value;
    }
    Ok(())
}
