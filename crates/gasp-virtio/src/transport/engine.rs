//! The device's thread: it starts and stops the queues, and gives each its turn.

use core::sync::atomic::AtomicBool;

use gasp_vdev::{DeviceContext, Register, Width};
use gasp_vm_memory::DeviceMemory;
use virtio_queue::Queue;

use super::layout::{BAR, NOTIFY, NOTIFY_STEP};
use super::queue_config::QueueConfig;
use crate::device::{VirtioDevice, Waits};
use crate::queue::{ActiveQueue, Broken};

/// The queues in use, by index.
#[derive(Debug, Default)]
pub(super) struct Engine {
    queues: Vec<Option<Queue>>,
    /// The generation of the configuration that the driver was last interrupted for.
    pub(super) generation: u8,
}

/// What a round of all queues leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// There is more to do.
    More,
    /// The doorbell will ring.
    Nothing,
}

impl Engine {
    /// Whether the driver has started the device.
    pub(super) fn is_running(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Forgets the queues.
    pub(super) fn stop(&mut self) {
        self.queues.clear();
    }

    /// Takes the queues as their registers describe them.
    pub(super) fn start(
        &mut self,
        context: &DeviceContext,
        registers: &[QueueConfig],
        features: u64,
    ) -> Result<(), Broken> {
        let memory = DeviceMemory::new(context);
        let made = registers.iter().map(|registers| match registers.enabled {
            true => registers.set_up(&memory.burst(), features).map(Some),
            false => Ok(None),
        });
        self.queues = made.collect::<Result<_, _>>()?;
        for (index, _) in (0_u64..).zip(&self.queues).filter(|(_, queue)| queue.is_some()) {
            let offset = NOTIFY + index * u64::from(NOTIFY_STEP);
            // If the front end cannot, the writes arrive in `VirtioPci::write`.
            context.ring_on_write(Register { bar: BAR, offset, width: Width::Two }, None);
        }
        Ok(())
    }

    /// Gives each queue a turn. `interrupt` is called for each that has used chains.
    pub(super) fn round(
        &mut self,
        device: &dyn VirtioDevice,
        context: &DeviceContext,
        reset: &AtomicBool,
        mut interrupt: impl FnMut(u16),
    ) -> Result<Left, Broken> {
        let mut left = Left::Nothing;
        for (index, queue) in (0..).zip(&mut self.queues) {
            let Some(queue) = queue else { continue };
            let mut active = ActiveQueue::new(queue, context, reset);
            active.mute()?;
            let served = device.serve(index, &mut active);
            // Those that were used before an error were used.
            if active.needs_interrupt()? {
                interrupt(index);
            }
            let waits = served?;
            if active.should_stop() {
                return Ok(Left::Nothing);
            }
            let has_more = match waits {
                _ if active.is_over() => true,
                Waits::NotAtAll => true,
                Waits::ForDriver => active.listen()?,
                Waits::ForOutside => false,
            };
            if has_more {
                left = Left::More;
            }
        }
        Ok(left)
    }
}
