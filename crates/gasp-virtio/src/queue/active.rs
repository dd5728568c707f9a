//! A queue in use by its device.

use std::num::Wrapping;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use gasp_vdev::DeviceContext;
use gasp_vm_memory::DeviceMemory;
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::broken::Broken;
use super::chain::Chain;

/// How many chains one turn of a queue takes. Then the driver is interrupted, and the next queue
/// has its turn.
const TURN: u32 = 32;
/// How many bytes of buffers one turn takes: the chain that reaches it is the last.
const TURN_BYTES: u64 = 512 << 10;

/// One turn of a queue: the device takes chains, and returns them as used. It takes at most 32, and
/// none after 512 KiB of buffers.
///
/// Each access to the rings is a burst of its own, so nothing of the guest's memory is held while a
/// request is carried out but what the device maps for it.
#[derive(Debug)]
pub struct ActiveQueue<'a> {
    queue: &'a mut Queue,
    memory: DeviceMemory<&'a DeviceContext>,
    /// The driver has reset the device.
    reset: &'a AtomicBool,
    left: u32,
    bytes_left: u64,
    used: bool,
}

impl<'a> ActiveQueue<'a> {
    pub(crate) fn new(
        queue: &'a mut Queue,
        context: &'a DeviceContext,
        reset: &'a AtomicBool,
    ) -> Self {
        let memory = DeviceMemory::new(context);
        Self { queue, memory, reset, left: TURN, bytes_left: TURN_BYTES, used: false }
    }

    /// What the device reaches its guest by.
    pub fn context(&self) -> &'a DeviceContext {
        self.memory.dma()
    }

    /// Whether work in progress should end: the driver resets the device, or the VMM does, or has
    /// gone. Requests that are not complete then never are.
    pub fn should_stop(&self) -> bool {
        self.context().should_stop() || self.reset.load(Ordering::Acquire)
    }

    /// Takes the next chain, if there is one and the turn is not over.
    ///
    /// # Errors
    /// If the driver has broken the queue; return that.
    #[expect(clippy::should_implement_trait, reason = "it fails, and is called in between")]
    pub fn next(&mut self) -> Result<Option<Chain>, Broken> {
        if self.is_over() || self.should_stop() {
            return Ok(None);
        }
        let burst = self.memory.burst();
        let available = self.queue.avail_idx(&burst, Ordering::Acquire).map_err(rings)?;
        if available == Wrapping(self.queue.next_avail()) {
            return Ok(None);
        }
        let size = self.queue.size();
        let next = self.queue.iter(&burst).map_err(rings)?.next();
        let lost = || Broken::Rings("the available ring has an entry that cannot be read".into());
        let chain = Chain::walk(next.ok_or_else(lost)?, size)?;
        self.left -= 1;
        let bytes = chain.readable.len().saturating_add(chain.writable.len());
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        Ok(Some(chain))
    }

    /// Returns a chain to the driver, with the first `written` bytes of what it may write written.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn complete(&mut self, chain: &Chain, written: u32) -> Result<(), Broken> {
        let burst = self.memory.burst();
        self.queue.add_used(&burst, chain.head(), written).map_err(rings)?;
        self.used = true;
        Ok(())
    }

    /// Whether the turn is over although there may be more chains.
    pub(crate) fn is_over(&self) -> bool {
        self.left == 0 || self.bytes_left == 0
    }

    /// Ends the turn after the chain in progress, whose work takes long whatever its length: a flush,
    /// say. So the driver is interrupted for it before the next one is carried out.
    pub fn end_turn(&mut self) {
        self.left = 0;
    }

    /// Has the driver not notify of further chains, as far as it can be told.
    pub(crate) fn mute(&mut self) -> Result<(), Broken> {
        self.queue.disable_notification(&self.memory.burst()).map_err(rings)
    }

    /// Has the driver notify of the next chain. Returns whether there are chains already, of which
    /// it may not notify.
    pub(crate) fn listen(&mut self) -> Result<bool, Broken> {
        self.queue.enable_notification(&self.memory.burst()).map_err(rings)
    }

    /// Whether the driver is to be interrupted for what was used in this turn.
    pub(crate) fn needs_interrupt(&mut self) -> Result<bool, Broken> {
        if !self.used {
            return Ok(false);
        }
        let burst = self.memory.burst();
        if !self.queue.event_idx_enabled() {
            // The used index is written before the flags are read (2.7.7.2).
            fence(Ordering::SeqCst);
            let flags = GuestAddress(self.queue.avail_ring());
            let flags: u16 = burst.load(flags, Ordering::Relaxed).map_err(rings)?;
            return Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0);
        }
        self.queue.needs_notification(&burst).map_err(rings)
    }
}

/// An error of the rings, with its cause.
#[cold]
fn rings(error: impl std::error::Error) -> Broken {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    Broken::Rings(format!("{error}{cause}"))
}
