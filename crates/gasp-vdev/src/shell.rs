//! The PCI function around a device, as a front end drives it.
//!
//! | call | by | while |
//! |---|---|---|
//! | [`attach`](Shell::attach) | the front end, once a VMM is there | detached |
//! | register and interrupt calls | the front end's thread | attached |
//! | [`Device::work`] | the device's thread | attached, and no reset goes on |
//! | [`reset`](Shell::reset) | the front end | always |
//! | [`detach`](Shell::detach) | the front end, when the VMM is gone | always; ends the thread |
//!
//! Attaching and detaching may go on for ever; what the device stores is kept.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use gasp::{DeviceAddr, Span, Vdev};
use parking_lot::{Mutex, RwLock};

use crate::context::{DeviceContext, MessageMemory};
use crate::device::Device;
use crate::doorbell::Doorbell;
use crate::error::{AttachError, ModelError, RegionError};
use crate::pci::{
    Bar, CONFIG_SIZE, ConfigSpace, Interrupts, Model, Part, Register, Table, accesses,
};

/// When a device's thread that is to stop is looked at: often at first, and then seldom.
const POLL_OFTEN_FOR: Duration = Duration::from_millis(100);
const SHORT_PAUSE: Duration = Duration::from_micros(50);
const LONG_PAUSE: Duration = Duration::from_millis(5);

/// A device in its shell.
pub struct Shell {
    name: String,
    device: Arc<dyn Device>,
    model: Model,
    config: Mutex<ConfigSpace>,
    table: Option<Mutex<Table>>,
    interrupts: Arc<Interrupts>,
    /// The bus master bit, where the device's thread can see it.
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
    /// A device, attached to nothing.
    ///
    /// # Errors
    /// Where its model is not that of a PCI function.
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

    /// The name it was given: of its thread, and in reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the device is.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Its interrupts, for the front end to give eventfds to.
    pub fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    /// Attaches the device to a VMM: resets it, and starts its thread.
    ///
    /// `vdev` is how the engine knows it; `messages` is memory of this VMM that is reached
    /// without mapping, if its protocol has such.
    ///
    /// # Errors
    /// Where it is attached already, or the thread cannot be started.
    pub fn attach(
        &self,
        vdev: Vdev,
        messages: Option<Arc<dyn MessageMemory>>,
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

    /// Takes the device away from its VMM: ends its thread, takes the VMM's eventfds away,
    /// and drops every mapping. A device that is detached stays as it is.
    pub fn detach(&self) {
        let Some(Attached { context, thread }) = self.attached.write().take() else { return };
        context.closing.store(true, Ordering::Release);
        context.pause_messages(true);
        context.ring();
        self.wait_until(|| thread.is_finished().then_some(()));
        if thread.join().is_err() {
            tracing::error!(device = %self.name, "the device's thread panicked");
        }
        self.interrupts.detach_events();
        self.device.detached();
    }

    /// Waits for the device's thread, which was asked to stop. It may be stuck in the counter
    /// of an interrupt that its VMM has filled: see [`Interrupts`].
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

    /// Back to the state after power-on. Waits for work in progress, but not for what it
    /// has asked the VMM for by message; the VMM's eventfds stay.
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

    /// The guest has taken a range back whose mappings are held still.
    pub fn revoked(&self, span: Span<DeviceAddr>) {
        if let Some(Attached { context, .. }) = &*self.attached.read() {
            self.device.revoked(context, span);
        }
    }

    /// Reads configuration space.
    ///
    /// # Errors
    /// Where the range passes its end.
    pub fn config_read(&self, offset: u64, into: &mut [u8]) -> Result<(), RegionError> {
        let offset = inside(offset, into.len(), CONFIG_SIZE)?;
        let raised = self.interrupts.is_raised();
        self.config.lock().read(offset, into, raised);
        Ok(())
    }

    /// Writes configuration space; bits that cannot be written stay.
    ///
    /// # Errors
    /// Where the range passes its end.
    pub fn config_write(&self, offset: u64, from: &[u8]) -> Result<(), RegionError> {
        let offset = inside(offset, from.len(), CONFIG_SIZE)?;
        let mut config = self.config.lock();
        config.write(offset, from);
        self.config_changed(&config);
        Ok(())
    }

    fn config_changed(&self, config: &ConfigSpace) {
        self.master.store(config.is_master(), Ordering::Release);
        self.interrupts.set_pin_disabled(config.is_pin_disabled());
        self.interrupts.set_function_mask(config.is_function_masked());
    }

    /// Reads from a BAR, as one register access where length and alignment allow.
    ///
    /// # Errors
    /// Where there is no such BAR, the range passes its end, or no VMM is attached.
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
                    // The range was checked against the BAR, which is as long.
                    let _ = memory.read_at(at, bytes_of);
                    u64::from_le_bytes(bytes)
                }
            };
            let place = into.iter_mut().skip(done).take(width as usize);
            place.zip(value.to_le_bytes()).for_each(|(place, byte)| *place = byte);
        }
        Ok(())
    }

    /// Writes to a BAR, as one register access where length and alignment allow.
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
                    // The range was checked against the BAR, which is as long.
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

    /// What is behind a register.
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
    // A write past the file-size limit is an error of one transfer, and not the end of all.
    gasp::signal::block_in_thread();
    while let Ok(()) = context.doorbell.wait() {
        if context.closing.load(Ordering::Acquire) {
            return;
        }
        let _working = working.lock();
        // Rung before a reset: what was to be done is void.
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
