//! The PCI function around a device.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use gasp::{DeviceAddr, Span, Vdev};
use parking_lot::{Mutex, RwLock};

use crate::context::{DeviceContext, MessageMemory, WriteEvents};
use crate::device::Device;
use crate::doorbell::Doorbell;
use crate::error::{AttachError, ModelError, RegionError};
use crate::pci::{
    Bar, CONFIG_SIZE, ConfigSpace, Interrupts, Model, Part, Register, Table, WindowAccess, accesses,
};

/// How a device's thread that is to stop is polled: at short intervals for a while, then at long
/// ones.
const POLL_OFTEN_FOR: Duration = Duration::from_millis(100);
const SHORT_PAUSE: Duration = Duration::from_micros(50);
const LONG_PAUSE: Duration = Duration::from_millis(5);

/// A device and the rest of its PCI function, as a front end drives it.
///
/// | call | by | while |
/// |---|---|---|
/// | [`attach`](Self::attach) | the front end, once a VMM has connected | detached |
/// | register and interrupt calls | the front end's thread | attached |
/// | [`Device::work`] | the device's thread | attached, unless a reset is in progress |
/// | [`reset`](Self::reset) | the front end | any time |
/// | [`detach`](Self::detach) | the front end, when the VMM has gone | any time; ends the thread |
///
/// A device can be attached and detached any number of times; what it stores is kept.
pub struct Shell {
    name: String,
    device: Arc<dyn Device>,
    model: Model,
    config: Mutex<ConfigSpace>,
    table: Option<Mutex<Table>>,
    interrupts: Arc<Interrupts>,
    /// A copy of the bus master bit, for the device's thread.
    master: Arc<AtomicBool>,
    attached: RwLock<Option<Attached>>,
    /// Held while the device works, and while it is reset.
    working: Arc<Mutex<()>>,
}

struct Attached {
    context: Arc<DeviceContext>,
    thread: JoinHandle<()>,
}

impl Shell {
    /// Creates a shell around `device`, attached to no VMM.
    ///
    /// # Errors
    /// If its model is not a valid PCI function.
    pub fn new(name: &str, device: impl Device) -> Result<Self, ModelError> {
        let model = device.model();
        model.check()?;
        Ok(Self {
            name: name.to_owned(),
            config: Mutex::new(ConfigSpace::new(&model)),
            table: model.msix.map(|msix| Mutex::new(Table::new(msix))),
            interrupts: Arc::new(Interrupts::new(&model)),
            master: Arc::default(),
            attached: RwLock::new(None),
            working: Arc::default(),
            device: Arc::new(device),
            model,
        })
    }

    /// The name passed to [`new`](Self::new), which its thread and log messages bear.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device's model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The device's interrupts, to which the front end assigns eventfds.
    pub fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    /// Attaches the device to a VMM: resets it, and starts its thread.
    ///
    /// `vdev` is the engine's device, which checks its accesses; `messages` is this VMM's memory
    /// that cannot be mapped and is copied by messages, if its protocol has any; `events` is what
    /// turns register writes into rings, if the front end can.
    ///
    /// # Errors
    /// If it is already attached, or its thread or doorbell cannot be created.
    pub fn attach(
        &self,
        vdev: Vdev,
        messages: Option<Arc<dyn MessageMemory>>,
        events: Option<Arc<dyn WriteEvents>>,
    ) -> Result<(), AttachError> {
        let mut attached = self.attached.write();
        if attached.is_some() {
            return Err(AttachError::Attached);
        }
        self.reset_registers();
        self.device.reset();
        let context = Arc::new(DeviceContext {
            vdev,
            messages,
            events,
            interrupts: Arc::clone(&self.interrupts),
            master: Arc::clone(&self.master),
            doorbell: Doorbell::new().map_err(AttachError::Thread)?,
            closing: AtomicBool::new(false),
            pausing: AtomicBool::new(false),
        });
        self.device.attached(&context);
        let (device, on, working) =
            (Arc::clone(&self.device), Arc::clone(&context), Arc::clone(&self.working));
        let thread = std::thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || work(&*device, &on, &working))
            .map_err(AttachError::Thread)?;
        *attached = Some(Attached { context, thread });
        Ok(())
    }

    /// Detaches the device from its VMM: ends its thread, drops the VMM's eventfds, and has the
    /// device drop its mappings ([`Device::detached`]). Does nothing if the device is not attached.
    pub fn detach(&self) {
        let Some(Attached { context, thread }) = self.attached.write().take() else { return };
        context.closing.store(true, Ordering::Release);
        context.pause_messages(true);
        context.ring();
        self.wait_until(|| thread.is_finished().then_some(()));
        // The device's thread cannot connect more.
        context.stop_all_ringing();
        if thread.join().is_err() {
            tracing::error!(device = %self.name, "the device's thread panicked");
        }
        self.interrupts.detach_events();
        self.device.detached();
    }

    /// Waits until `stopped` returns a value. The device's thread, which was asked to stop, may be
    /// blocked on an eventfd whose counter its VMM has filled; such counters are emptied (see
    /// `pci::eventfd`).
    fn wait_until<T>(&self, stopped: impl Fn() -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            if let Some(stopped) = stopped() {
                return stopped;
            }
            if since.elapsed() < POLL_OFTEN_FOR {
                std::thread::sleep(SHORT_PAUSE);
            } else {
                self.interrupts.empty_full_events();
                std::thread::sleep(LONG_PAUSE);
            }
        }
    }

    /// Whether a VMM is attached.
    pub fn is_attached(&self) -> bool {
        self.attached.read().is_some()
    }

    /// Resets the device to its state after power-on. Waits for work in progress, whose copies by
    /// message are cancelled; the VMM's eventfds stay.
    pub fn reset(&self) {
        let attached = self.attached.read();
        let context = attached.as_ref().map(|attached| &attached.context);
        if let Some(context) = context {
            context.pausing.store(true, Ordering::Release);
            context.pause_messages(true);
        }
        let working = self.wait_until(|| self.working.try_lock());
        self.reset_registers();
        self.device.reset();
        if let Some(context) = context {
            // Last: a register access before the device's reset can have connected more.
            context.stop_all_ringing();
            context.pause_messages(false);
            context.pausing.store(false, Ordering::Release);
        }
        drop(working);
    }

    fn reset_registers(&self) {
        let mut config = self.config.lock();
        config.reset();
        self.interrupts.reset();
        self.config_changed(&config);
        drop(config);
        if let Some(table) = &self.table {
            table.lock().reset();
        }
    }

    /// Reports to the device that the guest has revoked a range while mappings of it are still
    /// held.
    pub fn revoked(&self, span: Span<DeviceAddr>) {
        if let Some(Attached { context, .. }) = &*self.attached.read() {
            self.device.revoked(context, span);
        }
    }

    /// Reads configuration space.
    ///
    /// # Errors
    /// If the range extends past its end.
    pub fn config_read(&self, offset: u64, into: &mut [u8]) -> Result<(), RegionError> {
        let offset = inside(offset, into.len(), CONFIG_SIZE)?;
        let window = self.config.lock().window_access(offset, into.len());
        if let Some(WindowAccess { bar, offset, len }) = window {
            let mut bytes = [0; 4];
            let data = bytes.get_mut(..len).unwrap_or_default();
            // What selects no register of an attached device reads as before.
            if self.bar_read(bar, offset, data).is_ok() {
                self.config.lock().set_window_data(data);
            }
        }
        let raised = self.interrupts.is_raised();
        self.config.lock().read(offset, into, raised);
        Ok(())
    }

    /// Writes configuration space; read-only bits keep their values.
    ///
    /// # Errors
    /// If the range extends past its end.
    pub fn config_write(&self, offset: u64, from: &[u8]) -> Result<(), RegionError> {
        let offset = inside(offset, from.len(), CONFIG_SIZE)?;
        let mut config = self.config.lock();
        config.write(offset, from);
        self.config_changed(&config);
        let window = config.window_access(offset, from.len()).map(|it| (it, config.window_data()));
        drop(config);
        if let Some((WindowAccess { bar, offset, len }, data)) = window {
            // One that selects no register of an attached device has no effect.
            let _ = self.bar_write(bar, offset, data.get(..len).unwrap_or_default());
        }
        Ok(())
    }

    fn config_changed(&self, config: &ConfigSpace) {
        let is_master = config.is_master();
        if self.master.swap(is_master, Ordering::AcqRel) != is_master {
            self.device.bus_master(is_master);
        }
        self.interrupts.set_master(is_master);
        self.interrupts.set_pin_disabled(config.is_pin_disabled());
        self.interrupts.set_function_mask(config.is_function_masked());
    }

    /// Reads from a BAR, as one register access if length and alignment allow.
    ///
    /// # Errors
    /// If there is no such BAR, the range extends past its end, or no VMM is attached.
    pub fn bar_read(&self, index: u32, offset: u64, into: &mut [u8]) -> Result<(), RegionError> {
        let bar = self.bar(index, offset, into.len())?;
        let attached = self.attached.read();
        let Attached { context, .. } = attached.as_ref().ok_or(RegionError::Detached)?;
        for (done, at, width) in accesses(offset, into.len()) {
            let value = match self.target(bar, Register { bar: bar.index, offset: at, width }) {
                Target::Device(register) => self.device.read(context, register),
                Target::Table(table, Part::Table(at)) => table.lock().read(at, width),
                Target::Table(_, Part::Pending(at)) => {
                    self.interrupts.pending((at / 8) as usize) >> (8 * (at % 8))
                }
                Target::Shared(memory) => {
                    let mut bytes = [0; 8];
                    let bytes_of = bytes.get_mut(..width as usize).unwrap_or_default();
                    // The range was checked against the BAR, and the memory is as long.
                    let _ = memory.read_at(at, bytes_of);
                    u64::from_le_bytes(bytes)
                }
            };
            let place = into.iter_mut().skip(done).take(width as usize);
            place.zip(value.to_le_bytes()).for_each(|(place, byte)| *place = byte);
        }
        Ok(())
    }

    /// Writes to a BAR, as one register access if length and alignment allow.
    ///
    /// # Errors
    /// As [`bar_read`](Self::bar_read).
    pub fn bar_write(&self, index: u32, offset: u64, from: &[u8]) -> Result<(), RegionError> {
        let bar = self.bar(index, offset, from.len())?;
        let attached = self.attached.read();
        let Attached { context, .. } = attached.as_ref().ok_or(RegionError::Detached)?;
        for (done, at, width) in accesses(offset, from.len()) {
            let mut bytes = [0; 8];
            let part = from.iter().skip(done).take(width as usize);
            bytes.iter_mut().zip(part).for_each(|(byte, from)| *byte = *from);
            let value = u64::from_le_bytes(bytes);
            match self.target(bar, Register { bar: bar.index, offset: at, width }) {
                Target::Device(register) => self.device.write(context, register, value),
                Target::Table(table, Part::Table(at)) => {
                    table.lock().write(at, width, value, &self.interrupts);
                }
                // The pending bits cannot be written.
                Target::Table(_, Part::Pending(_)) => {}
                Target::Shared(memory) => {
                    // The range was checked against the BAR, and the memory is as long.
                    let _ = memory.write_at(at, bytes.get(..width as usize).unwrap_or_default());
                }
            }
        }
        Ok(())
    }

    fn bar(&self, index: u32, offset: u64, len: usize) -> Result<&Bar, RegionError> {
        let bar = self.model.find_bar(index).ok_or(RegionError::NoSuchBar(index))?;
        inside(offset, len, bar.size)?;
        Ok(bar)
    }

    /// What an access reaches.
    fn target<'a>(&'a self, bar: &'a Bar, at: Register) -> Target<'a> {
        if let Some(shared) = &bar.shared
            && shared.areas.iter().any(|&(start, len)| (start..start + len).contains(&at.offset))
        {
            return Target::Shared(&shared.memory);
        }
        if let Some(table) = &self.table {
            let part = table.lock().part(at);
            if let Some(part) = part {
                return Target::Table(table, part);
            }
        }
        Target::Device(at)
    }
}

enum Target<'a> {
    Device(Register),
    Table(&'a Mutex<Table>, Part),
    Shared(&'a gasp::MemoryObject),
}

/// The device's thread.
fn work(device: &dyn Device, context: &DeviceContext, working: &Mutex<()>) {
    // So that a write past the file-size limit fails one transfer and does not end the process.
    gasp::signal::block_in_thread();
    while let Ok(()) = context.doorbell.wait() {
        if context.closing.load(Ordering::Acquire) {
            return;
        }
        let _working = working.lock();
        // A reset or a detachment is waiting: what the doorbell was rung for is void.
        if !context.should_stop() {
            device.work(context);
        }
    }
}

/// The offset, if `[offset, offset + len)` lies inside `size`.
fn inside(offset: u64, len: usize, size: u64) -> Result<usize, RegionError> {
    let len = len as u64;
    let end = offset.checked_add(len).filter(|&end| end <= size);
    let start = end.and_then(|_| usize::try_from(offset).ok());
    start.ok_or(RegionError::OutOfRange { offset, len, size })
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.detach();
    }
}

impl fmt::Debug for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shell")
            .field("name", &self.name)
            .field("attached", &self.is_attached())
            .finish_non_exhaustive()
    }
}
