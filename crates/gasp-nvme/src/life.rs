//! Enable, disable, reset and shutdown (NVMe 1.4, 3.1.5, 3.1.6, 7.3.2 and 7.6), on the device's
//! thread.
//!
//! | the guest writes to CC | the controller | CSTS |
//! |---|---|---|
//! | EN 0 to 1 | starts with the admin queues, or fails | RDY, or CFS |
//! | EN 1 to 0 | stops after the command in progress, forgets all queues and settings | RDY, CFS and SHST are 0 |
//! | SHN to 01b, normal | completes all commands submitted before, as far as their completion queues have free entries; flushes | SHST is 01b at once, 10b at the end |
//! | SHN to 10b, abrupt | drops them, also during a normal shutdown; flushes | the same |
//!
//! CSTS reports only what has happened: when RDY is 0, no transfer follows; when SHST is 10b, all
//! data is on stable storage. If the flush fails, SHST stays 01b and CFS is set. After a shutdown
//! the controller continues only with EN 1 to 0, or 0 to 1 if it was disabled.

use super::command::{COMPLETION, ENTRY};
use super::controller::{Controller, State, Work};
use super::queue::{CompletionQueue, Ring, SubmissionQueue};
use super::registers::{AdminQueues, Shutdown};

impl Controller {
    /// Carries out what the guest has written to the registers.
    pub(super) fn handle_registers(&mut self, work: &Work<'_>) {
        let mut registers = work.subsystem.mmio.registers();
        if registers.was_disabled || !registers.is_enabled() && self.state != State::Off {
            self.stop(work);
            registers.set_stopped();
        }
        if registers.is_enabled() && self.state == State::Off {
            // Doorbells rung before RDY is set are void.
            work.subsystem.mmio.clear_doorbells();
            match registers.admin_queues().and_then(|queues| self.start(queues)) {
                Some(()) => {
                    work.subsystem.counters.started();
                    registers.set_ready();
                }
                None => {
                    work.subsystem.counters.stopped();
                    self.state = State::Failed;
                    registers.set_fatal();
                }
            }
        }
        let shutdown = registers.shutdown();
        drop(registers);
        match (shutdown, self.state) {
            (None, _) => {}
            (Some(Shutdown::Normal), State::Running) => {
                // Commands submitted before are part of the shutdown; later ones are not.
                self.take_doorbells(work);
                // If the guest's memory has gone, the next round fails.
                let _ = self.take_shadow(work);
                self.state = State::ShuttingDown;
            }
            (Some(Shutdown::Normal), State::ShuttingDown) => {}
            (Some(_), _) => self.finish_shutdown(work),
        }
        self.update_pin(work);
    }

    /// Flushes, and reports that the shutdown is complete, or has failed.
    pub(super) fn finish_shutdown(&mut self, work: &Work<'_>) {
        if [State::Running, State::ShuttingDown].contains(&self.state) {
            self.state = State::ShutDown;
        }
        // The guest may use its memory for something else once it sees the end.
        self.stop_shadow(work);
        match work.subsystem.disk.flush() {
            Ok(()) => {
                self.power.shut_down();
                work.subsystem.mmio.registers().set_shut_down();
            }
            Err(failure) => {
                if let Some(times) = work.subsystem.warnings.next_logged() {
                    tracing::warn!(
                        times,
                        "a shutdown failed: written data may not be on stable storage"
                    );
                }
                self.record_failure_without_command(work, failure.into());
                work.subsystem.mmio.registers().set_shutdown_failed();
            }
        }
    }

    /// Starts with only the admin queues; `None` if they are not valid.
    fn start(&mut self, queues: AdminQueues) -> Option<()> {
        let AdminQueues { page, submission, submission_size, completion, completion_size } = queues;
        let submission = Ring::new(submission, submission_size, ENTRY)?;
        let completion = Ring::new(completion, completion_size, COMPLETION)?;
        *self.submissions.first_mut()? = Some(SubmissionQueue::new(submission, 0));
        *self.completions.first_mut()? = Some(CompletionQueue::new(completion, Some(0)));
        self.page = page;
        self.state = State::Running;
        self.power.started();
        Some(())
    }

    /// Forgets all queues and settings.
    fn stop(&mut self, work: &Work<'_>) {
        work.subsystem.mmio.clear_doorbells();
        self.lower_pin(work);
        self.stop_shadow(work);
        self.reset(work.subsystem.options.queues);
    }

    /// The controller fails, and reports it. A shutdown in progress is completed: it does not need
    /// the queues.
    pub(super) fn fail(&mut self, work: &Work<'_>) {
        work.subsystem.counters.stopped();
        self.state = State::Failed;
        let mut registers = work.subsystem.mmio.registers();
        registers.set_fatal();
        let shutdown = registers.shutdown();
        drop(registers);
        if shutdown.is_some() {
            self.finish_shutdown(work);
        }
    }
}
