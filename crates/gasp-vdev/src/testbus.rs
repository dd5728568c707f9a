//! A guest without a VMM: for tests of devices.
//!
//! A [`TestBus`] is what a device meets when QEMU has attached it, in one process: guest
//! memory, registers behind BARs, interrupts that can be waited for, and, if asked for, an
//! IOMMU and memory that is reached by messages only. The device runs in its
//! [`Shell`], on its own thread, as it does for a VMM.
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
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gasp::{
    Backing, DeviceAddr, Domain, DomainKind, DomainOptions, Errno, Guest, GuestPhys, MemoryObject,
    Span, Unattached, Vdev,
};
use parking_lot::{Mutex, MutexGuard};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use thiserror::Error;

use crate::context::MessageMemory;
use crate::device::Device;
use crate::error::{AttachError, IrqError, ModelError, RegionError};
use crate::pci::{IrqKind, Msix};
use crate::shell::Shell;

/// How much RAM the guest has, from guest-physical 0 on, unless told otherwise.
pub const RAM: u64 = 16 << 20;
/// How long a test waits for what must come.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The PCI command register, and its bits for memory space and bus master.
const COMMAND: u64 = 4;
const MEMORY_AND_MASTER: [u8; 2] = [0b110, 0];

/// What is wrong with a test bus, or what a device is asked on it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TestBusError {
    /// The model of the device is not that of a PCI function.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine refuses.
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
    /// The system refuses an eventfd, or to wait for one.
    #[error("an interrupt's eventfd: {0}")]
    Event(#[from] Errno),
}

type Result<T> = core::result::Result<T, TestBusError>;

/// How a [`TestBus`] is to be.
#[derive(Clone, Debug)]
#[must_use = "call `attach`"]
pub struct Options {
    ram: u64,
    iommu: bool,
    messages: Option<Span<DeviceAddr>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { ram: RAM, iommu: false, messages: None }
    }
}

impl Options {
    /// RAM of `len` bytes from guest-physical 0 on, a multiple of 4 KiB; [`RAM`] otherwise.
    pub fn ram(self, len: u64) -> Self {
        Self { ram: len, ..self }
    }

    /// A guest with an IOMMU: the device sees what [`TestBus::domain`] maps, at first nothing.
    pub fn iommu(self) -> Self {
        Self { iommu: true, ..self }
    }

    /// Memory past the RAM that cannot be mapped, and is reached by messages, as a VMM has it
    /// that gives no descriptor for a part of its memory. It is kept in this process's own
    /// memory, so let it be small.
    pub fn messages(self, span: Span<DeviceAddr>) -> Self {
        Self { messages: Some(span), ..self }
    }

    /// A device on such a bus.
    ///
    /// # Errors
    /// If the device's model is none, its thread cannot be started, or the memory cannot be
    /// had.
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
        let mut bus = TestBus { shell, guest, vdev, ram, domain, messages, events: Vec::new() };
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
    /// One for each vector of the kind of interrupts that is used.
    events: Vec<OwnedFd>,
}

impl TestBus {
    /// A device on a bus as [`Options::default`] has it: [`RAM`], no IOMMU, all of the memory
    /// mapped.
    ///
    /// # Errors
    /// As [`Options::attach`].
    pub fn new(device: impl Device) -> Result<Self> {
        Options::default().attach(device)
    }

    /// Attaches the device again, after [`detach`](Self::detach): as bus master, with
    /// interrupts on. It is as after a reset.
    ///
    /// # Errors
    /// If it is attached, or its thread cannot be started.
    pub fn attach(&mut self) -> Result<()> {
        let messages = self.messages.clone().map(|messages| messages as Arc<dyn MessageMemory>);
        self.shell.attach(self.vdev.clone(), messages)?;
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
                // The last word of an entry masks it.
                self.shell.bar_write(bar.into(), u64::from(table) + 16 * vector + 12, &[0; 4])?;
            }
        }
        Ok(())
    }

    /// The VMM goes away.
    pub fn detach(&self) {
        self.shell.detach();
    }

    /// The function around the device: configuration space, reset.
    pub fn shell(&self) -> &Shell {
        &self.shell
    }

    /// The guest, whose regions and faults can be looked at.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// The guest's RAM.
    pub fn ram(&self) -> &MemoryObject {
        &self.ram
    }

    /// The domain of the device, of a guest with an [IOMMU](Options::iommu).
    pub fn domain(&self) -> Option<&Domain> {
        self.domain.as_ref()
    }

    /// Reads a register of 4 bytes.
    ///
    /// # Errors
    /// If there is none.
    pub fn read32(&self, bar: u32, offset: u64) -> Result<u32> {
        let mut bytes = [0; 4];
        self.shell.bar_read(bar, offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads a register of 8 bytes.
    ///
    /// # Errors
    /// If there is none.
    pub fn read64(&self, bar: u32, offset: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.shell.bar_read(bar, offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a register of 4 bytes.
    ///
    /// # Errors
    /// If there is none.
    pub fn write32(&self, bar: u32, offset: u64, value: u32) -> Result<()> {
        Ok(self.shell.bar_write(bar, offset, &value.to_le_bytes())?)
    }

    /// Writes a register of 8 bytes.
    ///
    /// # Errors
    /// If there is none.
    pub fn write64(&self, bar: u32, offset: u64, value: u64) -> Result<()> {
        Ok(self.shell.bar_write(bar, offset, &value.to_le_bytes())?)
    }

    /// Copies out of the guest's memory, as its CPU would: RAM, or what is reached by
    /// messages.
    ///
    /// # Errors
    /// `EINVAL` if the range is not in one of them.
    pub fn load(&self, at: u64, into: &mut [u8]) -> Result<()> {
        match self.messages.as_ref().filter(|messages| messages.contains(at)) {
            Some(messages) => Ok(messages.get(DeviceAddr(at), into)?),
            None => Ok(self.ram.read_at(at, into)?),
        }
    }

    /// Copies into the guest's memory, as its CPU would.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn store(&self, at: u64, from: &[u8]) -> Result<()> {
        match self.messages.as_ref().filter(|messages| messages.contains(at)) {
            Some(messages) => Ok(messages.put(DeviceAddr(at), from)?),
            None => Ok(self.ram.write_at(at, from)?),
        }
    }

    /// Waits for an interrupt, at most 20 s; returns whether it came. Several since the last
    /// wait are one. A device with MSI-X is used with that, else with MSI, else with its pin,
    /// which is vector 0, and comes again for as long as the device holds it up.
    ///
    /// # Errors
    /// `EINVAL` if there is no such vector.
    pub fn interrupt(&self, vector: u16) -> Result<bool> {
        if self.interrupt_kind() == IrqKind::Pin {
            self.shell.interrupts().unmask_pin();
        }
        let event = self.events.get(usize::from(vector)).ok_or(Errno::INVAL)?;
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
            // Another thread of the test has taken it.
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

/// Waits for something that must come, at most 20 s.
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

/// Memory that is reached by messages: of a VMM that always answers.
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

    /// Where an address is among the bytes.
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
