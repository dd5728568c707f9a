//! A guest without a VMM, for tests of devices.
//!
//! A [`TestBus`] is what a device finds when QEMU has attached it, in one process: guest memory,
//! registers behind BARs, interrupts that can be waited for, and, on request, an IOMMU and memory
//! that is reached by messages only. The device runs in its [`Shell`], on its own thread, as it
//! does for a VMM.
//!
//! ```
//! use gasp_vdev::dma::{self, DmaEngine};
//! use gasp_vdev::testbus::TestBus;
//!
//! let bus = TestBus::new(DmaEngine::new())?;
//! bus.store(0x1000, b"from here")?;
//! for (register, value) in [(0x08, 0x1000), (0x10, 0x2000), (0x18, 9)] {
//!     bus.write64(0, register, value)?;
//! }
//! bus.write32(0, 0x20, dma::START | dma::INTERRUPT)?;
//! assert!(bus.interrupt(0)?, "it is done");
//! assert_eq!(bus.read32(0, 0x24)?, dma::DONE);
//! let mut copied = [0; 9];
//! bus.load(0x2000, &mut copied)?;
//! assert_eq!(&copied, b"from here");
//! # Ok::<(), gasp_vdev::testbus::TestBusError>(())
//! ```

use core::time::Duration;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gasp::{
    Backing, Bytes, DeviceAddr, Domain, DomainKind, DomainOptions, Errno, Guest, GuestPhys,
    MemoryObject, Span, Unattached, Vdev, system_words,
};
use parking_lot::{Mutex, MutexGuard};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use thiserror::Error;

use crate::context::{MessageMemory, WriteEvents};
use crate::device::Device;
use crate::error::{AttachError, IrqError, ModelError, RegionError};
use crate::pci::{IrqKind, Msix, Register, Width};
use crate::shell::Shell;

/// The default size of the guest's RAM, which begins at guest-physical 0.
pub const RAM: u64 = 16 << 20;
/// How long a test waits for an interrupt or a condition.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The PCI command register, and its bits for memory space and bus master.
const COMMAND: u64 = 4;
const MEMORY_AND_MASTER: [u8; 2] = [0b110, 0];

/// Why a call of a [`TestBus`] failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TestBusError {
    /// The device's model is not a valid PCI function.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] gasp::Error),
    /// The device cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// There is no such register.
    #[error(transparent)]
    Register(#[from] RegionError),
    /// There is no such interrupt.
    #[error(transparent)]
    Interrupt(#[from] IrqError),
    /// An eventfd cannot be created or waited for.
    #[error("an interrupt's eventfd: {}", system_words(*.0))]
    Event(#[from] Errno),
    /// The range begins in the memory that is reached by messages, and extends past it.
    #[error("{:#} at {addr} extend past the memory that is reached by messages", Bytes(*.len))]
    PastMessages {
        /// Where the range begins.
        addr: DeviceAddr,
        /// How many bytes.
        len: u64,
    },
}

type Result<T> = core::result::Result<T, TestBusError>;

/// Options of a [`TestBus`].
#[derive(Clone, Debug)]
#[must_use = "call `attach`"]
pub struct Options {
    ram: u64,
    iommu: bool,
    messages: Option<Span<DeviceAddr>>,
    write_events: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { ram: RAM, iommu: false, messages: None, write_events: false }
    }
}

impl Options {
    /// Sets the size of the RAM: a multiple of 4 KiB, [`RAM`] by default.
    pub fn ram(self, len: u64) -> Self {
        Self { ram: len, ..self }
    }

    /// Adds an IOMMU: the device reaches what [`TestBus::domain`] grants, at first nothing.
    pub fn iommu(self) -> Self {
        Self { iommu: true, ..self }
    }

    /// Adds memory past the RAM that cannot be mapped and is reached by messages, as if the VMM
    /// passed no descriptor for it. All of it is allocated, so keep it small.
    pub fn messages(self, span: Span<DeviceAddr>) -> Self {
        Self { messages: Some(span), ..self }
    }

    /// Turns register writes into rings, as the device requests
    /// ([`DeviceContext::ring_on_write`](crate::DeviceContext::ring_on_write)).
    pub fn write_events(self) -> Self {
        Self { write_events: true, ..self }
    }

    /// Creates a bus with these options, and attaches `device` to it.
    ///
    /// # Errors
    /// If the device's model is not valid, its thread cannot be started, or the memory cannot be
    /// allocated.
    pub fn attach(self, device: impl Device) -> Result<TestBus> {
        let builder = Guest::builder();
        let builder = if self.iommu { builder.iommu(Unattached::Deny) } else { builder };
        let guest = builder.build()?;
        let ram = MemoryObject::ram(self.ram).prefer(&[Backing::Base]).create()?;
        guest.space().add_ram(Some(GuestPhys(0)), &ram)?;
        let domain = match self.iommu {
            true => Some(guest.domain("test", DomainOptions::new(DomainKind::Translate))?),
            false => None,
        };
        let vdev = guest.vdev("test")?;
        if let Some(domain) = &domain {
            vdev.attach(domain)?.wait();
        }
        let messages = self.messages.map(|span| Arc::new(Messages::new(span)));
        let shell = Shell::new("test", device)?;
        let connected = self.write_events.then(Arc::default);
        let events = Vec::new();
        let mut bus = TestBus { shell, guest, vdev, ram, domain, messages, connected, events };
        bus.attach()?;
        Ok(bus)
    }
}

/// A device and its guest. See the [module](self).
#[derive(Debug)]
pub struct TestBus {
    shell: Shell,
    guest: Guest,
    vdev: Vdev,
    ram: MemoryObject,
    domain: Option<Domain>,
    messages: Option<Arc<Messages>>,
    connected: Option<Arc<Connected>>,
    /// One for each vector of the kind of interrupt in use.
    events: Vec<OwnedFd>,
}

impl TestBus {
    /// Creates a bus with the default options ([`RAM`], no IOMMU, no memory that is reached by
    /// messages), and attaches `device` to it.
    ///
    /// # Errors
    /// As [`Options::attach`].
    pub fn new(device: impl Device) -> Result<Self> {
        Options::default().attach(device)
    }

    /// Attaches the device again, after [`detach`](Self::detach): as bus master, with interrupts
    /// unmasked, in its state after a reset.
    ///
    /// # Errors
    /// If it is already attached, or its thread cannot be started.
    pub fn attach(&mut self) -> Result<()> {
        let messages = self.messages.clone().map(|messages| messages as Arc<dyn MessageMemory>);
        let events = self.connected.clone().map(|connected| connected as Arc<dyn WriteEvents>);
        self.shell.attach(self.vdev.clone(), messages, events)?;
        self.shell.config_write(COMMAND, &MEMORY_AND_MASTER)?;
        self.events.clear();
        let kind = self.interrupt_kind();
        let mut given = Vec::new();
        for _ in 0..self.shell.interrupts().count(kind) {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            given.push(Some(event.try_clone().map_err(|_| Errno::MFILE)?));
            self.events.push(event);
        }
        self.shell.interrupts().assign(kind, 0, given)?;
        if let Some(Msix { vectors, bar, table, .. }) = self.shell.model().msix {
            for vector in 0..u64::from(vectors) {
                // The last word of an entry has its mask bit.
                self.shell.bar_write(bar.into(), u64::from(table) + 16 * vector + 12, &[0; 4])?;
            }
        }
        Ok(())
    }

    /// Detaches the device, as when its VMM goes away.
    pub fn detach(&self) {
        self.shell.detach();
    }

    /// The shell around the device: configuration space, reset.
    pub fn shell(&self) -> &Shell {
        &self.shell
    }

    /// The guest: its regions, its faults.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// The guest's RAM.
    pub fn ram(&self) -> &MemoryObject {
        &self.ram
    }

    /// The device's domain, if the guest has an [IOMMU](Options::iommu).
    pub fn domain(&self) -> Option<&Domain> {
        self.domain.as_ref()
    }

    /// Reads a register of 4 bytes.
    ///
    /// # Errors
    /// If there is no such register.
    pub fn read32(&self, bar: u32, offset: u64) -> Result<u32> {
        let mut bytes = [0; 4];
        self.shell.bar_read(bar, offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads a register of 8 bytes.
    ///
    /// # Errors
    /// If there is no such register.
    pub fn read64(&self, bar: u32, offset: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.shell.bar_read(bar, offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a register of 4 bytes.
    ///
    /// # Errors
    /// If there is no such register.
    pub fn write32(&self, bar: u32, offset: u64, value: u32) -> Result<()> {
        self.write(bar, offset, Width::Four, value.into())
    }

    /// Writes a register of 8 bytes.
    ///
    /// # Errors
    /// If there is no such register.
    pub fn write64(&self, bar: u32, offset: u64, value: u64) -> Result<()> {
        self.write(bar, offset, Width::Eight, value)
    }

    /// Writes a register, or rings if the device has requested that.
    fn write(&self, bar: u32, offset: u64, width: Width, value: u64) -> Result<()> {
        let at = u8::try_from(bar).map(|bar| Register { bar, offset, width });
        if let (Ok(at), Some(connected)) = (at, &self.connected)
            && connected.ring(at, value)
        {
            return Ok(());
        }
        let bytes = value.to_le_bytes();
        let bytes = bytes.get(..width as usize).unwrap_or_default();
        Ok(self.shell.bar_write(bar, offset, bytes)?)
    }

    /// Copies out of the guest's memory, as its CPU would: out of the RAM, or the memory that is
    /// reached by messages.
    ///
    /// # Errors
    /// If the range does not lie inside one of them.
    pub fn load(&self, at: u64, into: &mut [u8]) -> Result<()> {
        let (addr, len) = (DeviceAddr(at), into.len() as u64);
        match self.messages.as_ref().filter(|messages| messages.contains(at)) {
            Some(messages) => {
                messages.get(addr, into).map_err(|_| TestBusError::PastMessages { addr, len })
            }
            None => Ok(self.ram.read_at(at, into)?),
        }
    }

    /// Copies into the guest's memory, as its CPU would.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn store(&self, at: u64, from: &[u8]) -> Result<()> {
        let (addr, len) = (DeviceAddr(at), from.len() as u64);
        match self.messages.as_ref().filter(|messages| messages.contains(at)) {
            Some(messages) => {
                messages.put(addr, from).map_err(|_| TestBusError::PastMessages { addr, len })
            }
            None => Ok(self.ram.write_at(at, from)?),
        }
    }

    /// Waits for an interrupt, at most 20 s; returns whether it came. Several since the last wait
    /// count as one. The bus uses MSI-X if the device has it, else MSI, else the pin, which is
    /// vector 0 and is delivered again for as long as the device holds it up.
    ///
    /// # Errors
    /// If there is no such vector, or its eventfd cannot be waited for.
    pub fn interrupt(&self, vector: u16) -> Result<bool> {
        let kind = self.interrupt_kind();
        if kind == IrqKind::Pin {
            self.shell.interrupts().unmask_pin();
        }
        let event = self.events.get(usize::from(vector)).ok_or(IrqError::OutOfRange {
            kind,
            start: vector.into(),
            count: 1,
            have: self.shell.interrupts().count(kind),
        })?;
        let until = Instant::now() + TIMEOUT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        match rustix::io::read(event, &mut [0; 8]) {
            Ok(_) => Ok(true),
            // Another thread of the test has read it.
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn interrupt_kind(&self) -> IrqKind {
        let interrupts = self.shell.interrupts();
        let mut kinds = [IrqKind::Msix, IrqKind::Msi].into_iter();
        kinds.find(|&kind| interrupts.count(kind) > 0).unwrap_or(IrqKind::Pin)
    }
}

/// Waits until `there` returns a value, at most 20 s.
pub fn until<T>(mut there: impl FnMut() -> Option<T>) -> Option<T> {
    let since = Instant::now();
    while since.elapsed() < TIMEOUT {
        if let Some(it) = there() {
            return Some(it);
        }
        std::thread::yield_now();
    }
    None
}

/// Registers whose writes ring: with which value, if not with any.
#[derive(Debug, Default)]
struct Connected(Mutex<Vec<(Register, Option<u64>, OwnedFd)>>);

impl Connected {
    /// Signals the event of a write, if there is one.
    fn ring(&self, at: Register, value: u64) -> bool {
        let events = self.0.lock();
        let rings = |(place, with, _): &&(Register, Option<u64>, OwnedFd)| {
            *place == at && with.is_none_or(|with| with == value)
        };
        let event = events.iter().find(rings);
        event.is_some_and(|(_, _, event)| rustix::io::write(event, &1_u64.to_ne_bytes()).is_ok())
    }
}

impl WriteEvents for Connected {
    fn connect(&self, at: Register, value: Option<u64>, event: BorrowedFd<'_>) -> bool {
        let Ok(event) = event.try_clone_to_owned() else { return false };
        self.disconnect(at, value);
        self.0.lock().push((at, value, event));
        true
    }

    fn disconnect(&self, at: Register, value: Option<u64>) {
        self.0.lock().retain(|(place, with, _)| (*place, *with) != (at, value));
    }

    fn disconnect_all(&self) {
        self.0.lock().clear();
    }
}

/// Memory that is reached by messages, of a VMM that always answers.
#[derive(Debug)]
struct Messages {
    span: Span<DeviceAddr>,
    bytes: Mutex<Vec<u8>>,
    paused: AtomicBool,
}

impl Messages {
    fn new(span: Span<DeviceAddr>) -> Self {
        let bytes = Mutex::new(vec![0; usize::try_from(span.len()).unwrap_or(0)]);
        Self { span, bytes, paused: AtomicBool::new(false) }
    }

    fn contains(&self, at: u64) -> bool {
        self.span.contains(DeviceAddr(at))
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock()
    }

    /// The index of an address among the bytes.
    fn index(&self, at: DeviceAddr) -> usize {
        usize::try_from(at.0.wrapping_sub(self.span.start().0)).unwrap_or(usize::MAX)
    }

    fn get(&self, at: DeviceAddr, into: &mut [u8]) -> core::result::Result<(), Errno> {
        let (bytes, start) = (self.bytes(), self.index(at));
        let end = start.checked_add(into.len()).ok_or(Errno::INVAL)?;
        into.copy_from_slice(bytes.get(start..end).ok_or(Errno::INVAL)?);
        Ok(())
    }

    fn put(&self, at: DeviceAddr, from: &[u8]) -> core::result::Result<(), Errno> {
        let (mut bytes, start) = (self.bytes(), self.index(at));
        let end = start.checked_add(from.len()).ok_or(Errno::INVAL)?;
        bytes.get_mut(start..end).ok_or(Errno::INVAL)?.copy_from_slice(from);
        Ok(())
    }

    fn check(&self) -> core::result::Result<(), Errno> {
        if self.paused.load(Ordering::Acquire) { Err(Errno::CANCELED) } else { Ok(()) }
    }
}

impl MessageMemory for Messages {
    fn extent(&self, addr: DeviceAddr) -> Option<u64> {
        self.span.contains(addr).then(|| self.span.last().0 - addr.0 + 1)
    }

    fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> core::result::Result<(), Errno> {
        self.check()?;
        self.get(addr, into)
    }

    fn write(&self, addr: DeviceAddr, from: &[u8]) -> core::result::Result<(), Errno> {
        self.check()?;
        self.put(addr, from)
    }

    fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }
}
