//! A virtio device: the state behind a `struct vio_state`.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;

use gasp::Errno;
use gasp_vdev::{Class, Model, Throttle};
use gasp_virtio::transport::{
    BAR_SIZE, CommonConfig, DEVICE_MAX, DRIVER_OK, FEATURES_OK, Field, NEEDS_RESET, Order,
    QUEUES_MAX, model,
};
use gasp_virtio::{Broken, Kind};
use gasp_vm_memory::DeviceMemory;
use parking_lot::Mutex;
use thiserror::Error;
use virtio_queue::QueueT;

use super::abi::{DEVCFG, Description, ENABLED, NOP, NOTIFY, RESET, STATUS};
use super::bars::Bars;
use super::interrupt::{Cause, Isr};
use super::memory::RingMemory;
use super::outside::Outside;
use super::queue::ActiveQueue;
use super::queues::{self, Owner, QueueInfos};
use super::registers::{Fixed, MMIO_CONFIG, Read, Transport, Wrote};

/// The subsystem vendor of a device that names none.
const VENDOR: u16 = 0x1c05;
/// The feature bits that are a device's own (virtio 1.2, 2.2): 0 to 23, 50 and above.
const OWN_FEATURES: u64 = 0xff_ffff | !0 << 50;
/// The least length of a block of MMIO registers.
const MMIO_LEN: u64 = 0x200;

/// Why a device cannot be as it is described.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum Unfit {
    #[error("num_queues is {0}; the most are {QUEUES_MAX}")]
    Queues(u32),
    #[error("device_config_size is {0}; the most are {DEVICE_MAX} bytes")]
    Config(u32),
    #[error("device_type is {0}; of PCI the types are 1 to 63")]
    Type(u16),
}

/// A virtio device.
pub(crate) struct Virtio {
    outside: Arc<dyn Outside>,
    fixed: Fixed,
    class: u32,
    shared: Mutex<Shared>,
    isr: Isr,
    generation: AtomicU8,
    infos: QueueInfos,
    bars: Bars,
    warnings: Throttle,
}

struct Shared {
    common: CommonConfig,
    /// The queues in use, by index; empty before the driver has started the device.
    queues: Vec<Option<(usize, Arc<ActiveQueue>)>>,
    /// Counts starts: what belongs to an earlier one changes nothing.
    start: u64,
}

impl Virtio {
    /// A device without queues: each gets its size later.
    pub(crate) fn new(
        outside: Arc<dyn Outside>,
        transport: Transport,
        description: &Description,
    ) -> Result<Self, Unfit> {
        let queues = description.num_queues;
        let config = description.device_config_size;
        if queues as usize > QUEUES_MAX {
            return Err(Unfit::Queues(queues));
        }
        if u64::from(config) > DEVICE_MAX {
            return Err(Unfit::Config(config));
        }
        if transport == Transport::Pci && !(1..64).contains(&description.device_type) {
            return Err(Unfit::Type(description.device_type));
        }
        let [low, high, above @ ..] = description.device_features;
        let features = u64::from(low) | u64::from(high) << 32;
        if above.iter().any(|word| *word != 0) {
            tracing::warn!(vdev = outside.name(), "features from 64 on are not offered");
        }
        let vendor = if description.vendor_id == 0 { VENDOR } else { description.vendor_id };
        let sizes = vec![0; queues as usize];
        // At most `DEVICE_MAX`.
        let config_len = config as u16;
        let fixed = Fixed { transport, device_type: description.device_type, vendor, config_len };
        let shared = Shared {
            common: CommonConfig::new(features & OWN_FEATURES, false, &sizes),
            queues: Vec::new(),
            start: 0,
        };
        Ok(Self {
            outside,
            fixed,
            class: description.pci_class,
            shared: Mutex::new(shared),
            isr: Isr::default(),
            generation: AtomicU8::new(0),
            infos: QueueInfos::new(queues as usize),
            bars: Bars::new(),
            warnings: Throttle::default(),
        })
    }

    pub(crate) fn outside(&self) -> &Arc<dyn Outside> {
        &self.outside
    }

    pub(crate) fn transport(&self) -> Transport {
        self.fixed.transport
    }

    pub(super) fn infos(&self) -> &QueueInfos {
        &self.infos
    }

    pub(super) fn bars(&self) -> &Bars {
        &self.bars
    }

    /// The bytes that its registers take.
    pub(crate) fn register_bytes(&self) -> u64 {
        match self.fixed.transport {
            Transport::Mmio => {
                (MMIO_CONFIG + u64::from(self.fixed.config_len)).next_power_of_two().max(MMIO_LEN)
            }
            Transport::Pci => BAR_SIZE,
        }
    }

    /// The PCI function that it is; `None` on MMIO. Its queues have to have their sizes.
    pub(crate) fn function(&self) -> Option<Model> {
        let [interface, sub, base, _] = self.class.to_le_bytes();
        let kind = Kind { id: self.fixed.device_type, class: Class { base, sub, interface } };
        let queues = self.infos.len();
        (self.fixed.transport == Transport::Pci)
            .then(|| model(kind, self.fixed.vendor, queues, self.fixed.config_len.into()))
    }

    /// Sets how many descriptors a queue can have.
    pub(crate) fn init_queue(&self, index: u32, max: u32) -> Result<(), Errno> {
        let index = index as usize;
        if index >= self.infos.len() || !(1..=1 << 15).contains(&max) {
            return Err(Errno::INVAL);
        }
        // The power of two that is not larger.
        let size = 1_u16 << max.ilog2();
        match self.shared.lock().common.set_queue_max(index, size) {
            true => {
                self.infos.set_max(index, max);
                Ok(())
            }
            false => Err(Errno::BUSY),
        }
    }

    /// A read of 1 to 8 bytes: the value, or the offset of the configuration that the vdev reads.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<u64, u32> {
        let generation = self.generation.load(Ordering::Acquire);
        let read = self.fixed.read(&self.shared.lock().common, generation, offset, len);
        match read {
            Read::Value(value) => Ok(value),
            Read::Pending => Ok(self.isr.pending().into()),
            Read::TakePending => Ok(self.isr.clear(&*self.outside, !0).into()),
            Read::Config(offset) => Err(DEVCFG | u32::from(offset)),
        }
    }

    /// A write of 1 to 8 bytes. Returns what it was: `VIOREF_CLASS_*`.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> u32 {
        let mut shared = self.shared.lock();
        match self.fixed.write(&mut shared.common, offset, bytes) {
            Wrote::Nothing => NOP,
            Wrote::Notify(index) => NOTIFY | u32::from(index),
            Wrote::Enabled(index) => ENABLED | u32::from(index),
            Wrote::Disabled(index) => {
                self.end_queue(&mut shared, index.into());
                NOP
            }
            Wrote::Reset => RESET,
            Wrote::Status(bits) => STATUS | u32::from(bits),
            Wrote::Acknowledge(bits) => {
                self.isr.clear(&*self.outside, bits);
                NOP
            }
            Wrote::Config(offset) => DEVCFG | u32::from(offset),
        }
    }

    /// The features that the driver has accepted; 0 until both have agreed upon them.
    pub(crate) fn accepted(&self) -> u64 {
        let shared = self.shared.lock();
        let agreed = shared.common.get(Field::DEVICE_STATUS) & u64::from(FEATURES_OK) != 0;
        if agreed { shared.common.accepted() } else { 0 }
    }

    /// Sets up the queues that the driver has enabled.
    pub(crate) fn set_up_queues(self: &Arc<Self>) -> Result<(), Errno> {
        let mut shared = self.shared.lock();
        if shared.common.get(Field::DEVICE_STATUS) & u64::from(DRIVER_OK) == 0
            || shared.common.is_resetting()
        {
            return Err(Errno::PERM);
        }
        if shared.common.take_order() != Some(Order::Start) {
            return Ok(());
        }
        let memory = DeviceMemory::new(RingMemory(Arc::clone(&self.outside)));
        let features = shared.common.accepted();
        let burst = memory.burst();
        let made: Result<Vec<_>, Broken> = shared
            .common
            .queues()
            .iter()
            .map(|config| match config.is_enabled() {
                true => config.set_up(&burst, features).map(|queue| Some((config.places(), queue))),
                false => Ok(None),
            })
            .collect();
        drop(burst);
        let made = match made {
            Ok(made) => made,
            Err(broken) => {
                let start = shared.start;
                drop(shared);
                self.fail(start, &broken);
                return Err(Errno::IO);
            }
        };
        let start = shared.start;
        for (index, made) in made.into_iter().enumerate() {
            let installed = made.map(|(places, queue)| {
                let size = queue.size();
                let active = Arc::new(ActiveQueue::new(memory.clone(), queue));
                let handle = queues::insert(Arc::<Self>::clone(self), index, start, &active);
                self.infos.set(index, handle, places, size);
                (handle, active)
            });
            shared.queues.push(installed);
        }
        Ok(())
    }

    /// Resets the device.
    pub(crate) fn reset(&self) {
        let mut shared = self.shared.lock();
        shared.start += 1;
        for index in 0..shared.queues.len() {
            self.end_queue(&mut shared, index);
        }
        shared.queues.clear();
        self.isr.clear(&*self.outside, !0);
        shared.common.reset();
    }

    /// Ends a queue, if it is in use. Waits for calls that are in the middle of it: those hold no
    /// other lock.
    fn end_queue(&self, shared: &mut Shared, index: usize) {
        if let Some((handle, queue)) = shared.queues.get_mut(index).and_then(Option::take) {
            self.infos.clear(index);
            queues::remove(handle);
            queue.stop();
        }
    }

    fn interrupt_config(&self, shared: &Shared) {
        let vector = shared.common.config_vector();
        self.isr.raise(&*self.outside, self.fixed.transport, Cause::Config, vector);
    }

    /// The device sets and clears bits of its status; the new value.
    pub(crate) fn status(&self, on: u32, off: u32) -> u8 {
        let mut shared = self.shared.lock();
        if off & u32::from(FEATURES_OK) != 0 {
            shared.common.refuse_features();
        }
        if on & u32::from(NEEDS_RESET) != 0 && shared.common.set_needs_reset() {
            self.interrupt_config(&shared);
        }
        shared.common.get(Field::DEVICE_STATUS) as u8
    }

    /// The configuration has changed.
    pub(crate) fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        let shared = self.shared.lock();
        if shared.common.get(Field::DEVICE_STATUS) & u64::from(DRIVER_OK) != 0 {
            self.interrupt_config(&shared);
        }
    }
}

impl Owner for Virtio {
    fn outside(&self) -> &Arc<dyn Outside> {
        Self::outside(self)
    }

    fn interrupt_queue(&self, start: u64, index: usize) {
        let shared = self.shared.lock();
        if shared.start == start
            && let Some(queue) = shared.common.queues().get(index)
        {
            let vector = queue.vector();
            self.isr.raise(&*self.outside, self.fixed.transport, Cause::Queue, vector);
        }
    }

    #[cold]
    fn fail(&self, start: u64, broken: &Broken) {
        let mut shared = self.shared.lock();
        if shared.start != start {
            return;
        }
        if let Some(times) = self.warnings.next_logged() {
            let vdev = self.outside.name();
            tracing::warn!(vdev, %broken, times, "a driver has broken its device");
        }
        if shared.common.set_needs_reset() {
            self.interrupt_config(&shared);
        }
    }

    #[cold]
    fn warn(&self, what: &str) {
        if let Some(times) = self.warnings.next_logged() {
            tracing::warn!(vdev = self.outside.name(), times, "{what}");
        }
    }
}

impl fmt::Debug for Virtio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Virtio").field("outside", &self.outside).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
