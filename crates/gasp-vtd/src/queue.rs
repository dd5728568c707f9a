//! The invalidation queue: processing the descriptors of the ring in guest memory.

use core::sync::atomic::Ordering;

use gasp::MapFlags;
use smallvec::SmallVec;

use crate::control::{Completion, Control};
use crate::descriptor::{Descriptor, Wait, decode};
use crate::faults::QueueError;
use crate::invalidation::Invalidation;
use crate::registers::WAIT_COMPLETE;

/// The most descriptors that one access of a vCPU processes. The unit's thread goes on with the rest.
const BUDGET: u32 = 256;
impl Control {
    /// Enables or disables the queue. A wait that is not complete then is none any more.
    pub(crate) fn enable_queue(&mut self, is_enabled: bool) {
        if is_enabled != self.queue.is_enabled {
            self.queue.enable(is_enabled);
            self.forget_queue();
        }
    }

    /// Processes descriptors until the queue is empty or waits, or this has taken long enough.
    pub(crate) fn run_queue(&mut self) {
        let mut budget = BUDGET;
        while budget > 0 && self.is_queue_ready() {
            self.run_batch(&mut budget);
        }
    }

    /// Whether there are descriptors that can be processed. While mappings are waited for there are
    /// none, so that a guest cannot have the unit do more and more meanwhile: neither by disabling the
    /// queue and enabling it again, nor by clearing its errors.
    pub(crate) fn is_queue_ready(&self) -> bool {
        self.queue.is_enabled
            && !self.queue.is_empty()
            && self.drain.is_none()
            && !self.faults().is_queue_stopped()
    }

    /// Processes the next invalidations up to a wait descriptor, and that.
    fn run_batch(&mut self, budget: &mut u32) {
        if self.queue.is_tail_outside() {
            return self.stop_queue(QueueError::Tail);
        }
        let mut invalidations = SmallVec::<[Invalidation; 8]>::new();
        let mut end = Ok(None);
        while *budget > 0 && !self.queue.is_empty() {
            *budget -= 1;
            match self.fetch() {
                Ok(Descriptor::Invalidate(invalidation)) => {
                    invalidations.push(invalidation);
                    self.queue.advance();
                }
                Ok(Descriptor::Wait(wait)) => {
                    end = Ok(Some(wait));
                    break;
                }
                Err(error) => {
                    end = Err(error);
                    break;
                }
            }
        }
        if !self.invalidate(&invalidations) {
            return self.stop_queue(QueueError::Unknown);
        }
        match end {
            Ok(wait) => self.wait_for(Completion::Queue(wait)),
            Err(error) => self.stop_queue(error),
        }
    }

    /// The descriptor at the head.
    fn fetch(&self) -> Result<Descriptor, QueueError> {
        let memory = self.guest.page_tables();
        let part = |offset| self.queue.at_head(offset).and_then(|at| memory.entry(at));
        let (Some(low), Some(high)) = (part(0), part(8)) else { return Err(QueueError::Fetch) };
        decode([low, high], &self.shared.capabilities)
    }

    /// Stops at the descriptor at the head, until software clears the error.
    fn stop_queue(&mut self, error: QueueError) {
        let message = self.faults().stop_queue(error);
        self.messages.extend(message);
    }

    /// Goes on, past the wait descriptor at the head if there is one.
    pub(crate) fn complete_queue(&mut self, wait: Option<Wait>) {
        let Some(Wait { status, interrupts }) = wait else { return };
        if let Some((addr, value)) = status
            // What is no system RAM is not written.
            && let Ok(mapping) = self.guest.map_firmware(addr, 4, MapFlags::WRITE)
            && let Err(error) = mapping.store(0, value.to_le(), Ordering::Release)
        {
            tracing::warn!(%error, %addr, "a wait descriptor's status was not written");
        }
        self.queue.advance();
        if interrupts && !core::mem::replace(&mut self.has_waited, true) {
            self.messages.extend(self.completion.raise());
        }
    }

    /// ICS.
    pub(crate) fn completion_status(&self) -> u32 {
        if self.has_waited { WAIT_COMPLETE } else { 0 }
    }

    /// Writes ICS: a one clears IWC.
    pub(crate) fn write_completion_status(&mut self, value: u32) {
        if value & WAIT_COMPLETE != 0 {
            self.has_waited = false;
            self.completion.serve();
        }
    }
}
