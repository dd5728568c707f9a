//! A virtio device as a PCI function.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use gasp_vdev::{Device, DeviceContext, Model, Register, Throttle};
use parking_lot::Mutex;

use super::common::{CommonConfig, Order};
use super::engine::{Engine, Left};
use super::interrupt::{Cause, Isr};
use super::layout::{self, Area};
use crate::device::VirtioDevice;
use crate::queue::Broken;

/// A virtio device as a PCI function of `gasp-vdev`: the transport "virtio over PCI bus" (virtio
/// 1.2, 4.1), without a legacy interface.
///
/// It has one BAR with all registers, MSI-X with a vector for each queue and one for the
/// configuration, the interrupt pin, and the window of configuration space on the BAR. Its rings
/// have to be in memory that can be mapped; buffers may be in any memory.
pub struct VirtioPci<D> {
    device: D,
    registers: Mutex<CommonConfig>,
    isr: Isr,
    /// The driver waits for a reset.
    resetting: AtomicBool,
    /// Locked by the device's thread while it works, and by the other calls while it does not.
    engine: Mutex<Engine>,
    warnings: Throttle,
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// A function around `device`. It offers `VIRTIO_F_ACCESS_PLATFORM`, so that a driver whose
    /// guest has an IOMMU uses it, and works with drivers that do not accept that.
    pub fn new(device: D) -> Self {
        Self::with(device, false)
    }

    /// A function around `device`, which its VMM has put behind an IOMMU: a driver that does not
    /// accept `VIRTIO_F_ACCESS_PLATFORM` would pass addresses that mean nothing, and cannot use it
    /// (virtio 1.2, 6.1).
    pub fn behind_iommu(device: D) -> Self {
        Self::with(device, true)
    }

    fn with(device: D, needs_platform: bool) -> Self {
        let mut sizes = device.queues();
        sizes.truncate(layout::QUEUES_MAX);
        Self {
            registers: Mutex::new(CommonConfig::new(device.features(), needs_platform, &sizes)),
            isr: Isr::default(),
            resetting: AtomicBool::new(false),
            engine: Mutex::default(),
            warnings: Throttle::default(),
            device,
        }
    }

    /// The device inside.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Interrupts the driver for a queue.
    fn interrupt_queue(&self, context: &DeviceContext, index: u16) {
        let registers = self.registers.lock();
        let vector = registers.queues().get(usize::from(index)).map(|queue| queue.vector);
        drop(registers);
        if let Some(vector) = vector {
            self.isr.raise(context, Cause::Queue, vector);
        }
    }

    fn interrupt_config(&self, context: &DeviceContext) {
        let vector = self.registers.lock().config_vector();
        self.isr.raise(context, Cause::Config, vector);
    }

    /// Ends a reset by the driver, which then reads a status of 0.
    fn finish_reset(&self, context: &DeviceContext, engine: &mut Engine) {
        self.stop(engine);
        self.isr.take(context);
        let mut registers = self.registers.lock();
        registers.reset();
        self.resetting.store(false, Ordering::Release);
    }

    fn stop(&self, engine: &mut Engine) {
        engine.stop();
        self.device.reset();
        // The driver reads the configuration after this, and hears of later changes once it has
        // started the device.
        engine.generation = self.device.config_generation();
    }

    fn start(&self, context: &DeviceContext, engine: &mut Engine) -> Result<(), Broken> {
        let registers = self.registers.lock();
        let (queues, features) = (registers.queues().to_vec(), registers.accepted());
        drop(registers);
        self.device.start(features);
        engine.start(context, &queues, features)
    }

    /// The device stops until it is reset.
    #[cold]
    fn fail(&self, context: &DeviceContext, engine: &mut Engine, broken: &Broken) {
        engine.stop();
        if let Some(times) = self.warnings.next_logged() {
            let name = context.vdev().name();
            tracing::warn!(device = name, %broken, times, "a driver has broken its device");
        }
        let listens = self.registers.lock().set_needs_reset();
        if listens {
            self.interrupt_config(context);
        }
    }

    /// Handles what the driver has written to the status.
    fn obey(&self, context: &DeviceContext, engine: &mut Engine) -> Result<(), Broken> {
        let order = self.registers.lock().take_order();
        match order {
            Some(Order::Reset) => {
                self.finish_reset(context, engine);
                Ok(())
            }
            Some(Order::Start) => self.start(context, engine),
            None => Ok(()),
        }
    }

    /// One round: whether there is more to do.
    fn round(&self, context: &DeviceContext, engine: &mut Engine) -> Result<Left, Broken> {
        self.obey(context, engine)?;
        if !engine.is_running() {
            return Ok(Left::Nothing);
        }
        let generation = self.device.config_generation();
        if core::mem::replace(&mut engine.generation, generation) != generation {
            self.interrupt_config(context);
        }
        let interrupt = |index| self.interrupt_queue(context, index);
        engine.round(&self.device, context, &self.resetting, interrupt)
    }
}

impl<D: VirtioDevice> Device for VirtioPci<D> {
    fn model(&self) -> Model {
        let queues = self.registers.lock().queues().len();
        layout::model(self.device.kind(), layout::VENDOR, queues, self.device.config().len())
    }

    fn attached(&self, context: &DeviceContext) {
        let bell = context.bell().map_err(|error| {
            tracing::error!(device = context.vdev().name(), %error, "there is no bell");
        });
        self.device.attached(bell.ok());
    }

    fn read(&self, context: &DeviceContext, at: Register) -> u64 {
        let mut bytes = [0; 8];
        let into = bytes.get_mut(..at.width as usize).unwrap_or_default();
        match layout::area(at.offset) {
            Some(Area::Common(offset)) => {
                let generation = self.device.config_generation();
                self.registers.lock().read(offset, generation, into);
            }
            Some(Area::Device(offset)) => {
                let config = self.device.config();
                let from = config.iter().skip(offset as usize);
                into.iter_mut().zip(from).for_each(|(place, byte)| *place = *byte);
            }
            // The one byte of the register (4.1.4.5).
            Some(Area::Isr(0)) => return self.isr.take(context).into(),
            Some(Area::Isr(_) | Area::Notify(_)) | None => {}
        }
        u64::from_le_bytes(bytes)
    }

    fn write(&self, context: &DeviceContext, at: Register, value: u64) {
        let bytes = value.to_le_bytes();
        let bytes = bytes.get(..at.width as usize).unwrap_or_default();
        match layout::area(at.offset) {
            Some(Area::Common(offset)) => {
                let mut registers = self.registers.lock();
                let is_order = registers.write(offset, bytes);
                self.resetting.store(registers.is_resetting(), Ordering::Release);
                drop(registers);
                if is_order {
                    context.ring();
                }
            }
            Some(Area::Device(offset)) => self.device.write_config(offset as usize, bytes),
            // Whatever queue it is for: the device's thread looks at all of them.
            Some(Area::Notify(_)) => context.ring(),
            Some(Area::Isr(_)) | None => {}
        }
    }

    fn work(&self, context: &DeviceContext) {
        let mut engine = self.engine.lock();
        while !context.should_stop() {
            match self.round(context, &mut engine) {
                Ok(Left::More) => {}
                // A reset that has come in between rings as well.
                Ok(Left::Nothing) => return,
                // What fails because the device is to stop is no fault of the driver's.
                Err(_) if context.should_stop() => return,
                // The driver may have taken its rings back while it waits for the reset.
                Err(_) if self.resetting.load(Ordering::Acquire) => engine.stop(),
                Err(broken) => self.fail(context, &mut engine, &broken),
            }
        }
    }

    fn reset(&self) {
        self.stop(&mut self.engine.lock());
        self.isr.clear();
        let mut registers = self.registers.lock();
        registers.reset();
        self.resetting.store(false, Ordering::Release);
    }

    fn detached(&self) {
        self.device.detached();
    }
}

impl<D> fmt::Debug for VirtioPci<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioPci")
            .field("registers", &*self.registers.lock())
            .finish_non_exhaustive()
    }
}
