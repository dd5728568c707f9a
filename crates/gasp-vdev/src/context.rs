//! What a device can do while a VMM is attached: DMA, interrupts, its doorbell.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use gasp::{DeviceAddr, Dma, Errno, HostMapping, MapFlags, Mapping, Reason, Scatter, Vdev};

use crate::doorbell::{Bell, Doorbell};
use crate::error::DmaError;
use crate::pci::{Interrupts, Register};

/// Memory that a VMM shares without a descriptor: each copy is a message to the VMM.
///
/// Implemented by a front end whose protocol has such memory. It cannot be mapped, because there is
/// nothing to map; its permissions are in the device's domain, like those of all other memory.
pub trait MessageMemory: Send + Sync {
    /// The number of bytes of such memory from `addr` on; `None` if `addr` is not in any.
    fn extent(&self, addr: DeviceAddr) -> Option<u64>;

    /// Copies out of this memory.
    ///
    /// # Errors
    /// The VMM's error; `ETIMEDOUT` if it does not answer.
    fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> Result<(), Errno>;

    /// Copies into this memory.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn write(&self, addr: DeviceAddr, from: &[u8]) -> Result<(), Errno>;

    /// Why the memory at `addr` cannot be mapped, for error messages: completes "it cannot be
    /// mapped, because …".
    fn why(&self, addr: DeviceAddr) -> &'static str {
        let _ = addr;
        "the VMM passes no descriptor for it, maps it privately, or can truncate its file (shared \
         memory in a sealed memfd can be mapped)"
    }

    /// Called with `true` when the device is to stop: until it is called with `false`, copies fail
    /// with `ECANCELED`, including those that wait for the VMM.
    fn pause(&self, paused: bool) {
        let _ = paused;
    }
}

/// Register writes that ring a doorbell without a call of the device.
///
/// Implemented by a front end that can have the kernel do so (an ioeventfd of KVM).
pub trait WriteEvents: Send + Sync {
    /// From now on, has writes to `at` signal `event`, an eventfd, which is duplicated if it is
    /// kept: writes of this value, or all of them. Returns whether that is possible. The same
    /// register and value a second time change nothing.
    fn connect(&self, at: Register, value: Option<u64>, event: BorrowedFd<'_>) -> bool;

    /// Undoes [`connect`](Self::connect) of the same register and value, if there was one.
    fn disconnect(&self, at: Register, value: Option<u64>);

    /// Undoes every [`connect`](Self::connect): the device is being reset or detached.
    fn disconnect_all(&self);
}

/// A device's access to its guest, for as long as one VMM is attached.
///
/// | call | for |
/// |---|---|
/// | [`transfer`](Self::transfer) | a range of any memory, mapped if it can be: the first choice |
/// | [`read`](Self::read), [`write`](Self::write) | one copy of a few bytes, of any memory |
/// | [`map`](Self::map), [`map_scatter`](Self::map_scatter) | a pointer; refused (`ENXIO`) if the memory is reached by messages only |
/// | [`map_host_contig`](Self::map_host_contig) | an address for hardware; refused likewise |
///
/// All maps go through the engine: checked against the guest's IOMMU, revocable, without a copy.
/// Keep a mapping no longer than its transfer needs it: a guest that unmaps the memory waits for
/// it.
pub struct DeviceContext {
    pub(crate) vdev: Vdev,
    pub(crate) messages: Option<Arc<dyn MessageMemory>>,
    pub(crate) events: Option<Arc<dyn WriteEvents>>,
    pub(crate) interrupts: Arc<Interrupts>,
    pub(crate) master: Arc<AtomicBool>,
    pub(crate) doorbell: Doorbell,
    /// The device is being detached.
    pub(crate) closing: AtomicBool,
    /// A reset is waiting for the work to end.
    pub(crate) pausing: AtomicBool,
}

impl DeviceContext {
    /// Maps all of `[addr, addr + len)`, or nothing.
    ///
    /// # Errors
    /// As [`Vdev::map`]; `EPERM` if the device is not bus master; `ENXIO`
    /// ([`DmaError::NoDescriptor`]) if the memory is reached by messages only:
    /// [`transfer`](Self::transfer) reaches that, too.
    #[inline]
    pub fn map(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping, DmaError> {
        self.check_master(addr, len)?;
        self.vdev.map(addr, len, flags).map_err(|error| self.explain(error, addr, len))
    }

    /// Maps all of `[addr, addr + len)` in as many pieces as it takes.
    ///
    /// # Errors
    /// As [`map`](Self::map), except that the memory need not be consecutive.
    pub fn map_scatter(
        &self,
        addr: DeviceAddr,
        len: u64,
        flags: MapFlags,
    ) -> Result<Scatter, DmaError> {
        self.check_master(addr, len)?;
        self.vdev.map_scatter(addr, len, flags).map_err(|error| self.explain(error, addr, len))
    }

    /// Maps from `addr` on as many bytes, up to `max`, as are one run of host-physical memory: what
    /// a device passes to hardware.
    ///
    /// # Errors
    /// As [`Vdev::map_host_contig`]; `EPERM` and `ENXIO` as for [`map`](Self::map).
    pub fn map_host_contig(
        &self,
        addr: DeviceAddr,
        max: u64,
        flags: MapFlags,
    ) -> Result<HostMapping, DmaError> {
        self.check_master(addr, max)?;
        self.vdev.map_host_contig(addr, max, flags).map_err(|error| self.explain(error, addr, max))
    }

    /// Copies out of guest memory, by messages if the VMM shares no descriptor for it. Permissions
    /// are checked for the whole range first; if a copy by messages fails halfway, part of `into`
    /// may be filled.
    ///
    /// # Errors
    /// As [`Vdev::read`]; `EPERM` if the device is not bus master; for copies by message the VMM's
    /// own error, `ETIMEDOUT` if it does not answer, and `ECANCELED` if the device is to
    /// [stop](Self::should_stop) meanwhile.
    pub fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> Result<(), DmaError> {
        self.check_master(addr, into.len() as u64)?;
        match self.vdev.read(addr, into) {
            Err(error) if self.has_messages(&error) => {
                let mut rest = into;
                self.in_pieces(addr, rest.len(), |messages, at, len| {
                    let (piece, after) = core::mem::take(&mut rest).split_at_mut(len);
                    rest = after;
                    match messages {
                        Some(messages) => messages.read(at, piece).map_err(Failed::Message),
                        None => self.vdev.read(at, piece).map_err(Failed::Engine),
                    }
                })
            }
            done => Ok(done?),
        }
    }

    /// Copies into guest memory, by messages if the VMM shares no descriptor for it, as
    /// [`read`](Self::read) does.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&self, addr: DeviceAddr, from: &[u8]) -> Result<(), DmaError> {
        self.check_master(addr, from.len() as u64)?;
        match self.vdev.write(addr, from) {
            Err(error) if self.has_messages(&error) => {
                let mut rest = from;
                self.in_pieces(addr, from.len(), |messages, at, len| {
                    let (piece, after) = rest.split_at(len);
                    rest = after;
                    match messages {
                        Some(messages) => messages.write(at, piece).map_err(Failed::Message),
                        None => self.vdev.write(at, piece).map_err(Failed::Engine),
                    }
                })
            }
            done => Ok(done?),
        }
    }

    /// The interrupts that the device can raise: also by a thread of its own, which keeps a clone.
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    /// Signals `vector` by MSI-X or MSI if the guest uses them, otherwise by the pin, which stays
    /// raised until [`lower`](Self::lower). A message stays pending while the device is not bus master.
    pub fn signal(&self, vector: u16) {
        self.interrupts.signal(vector);
    }

    /// Lowers the interrupt pin: the guest's driver has handled the cause.
    pub fn lower(&self) {
        self.interrupts.lower();
    }

    /// Wakes the device's thread, which calls [`Device::work`](crate::Device::work) soon and at
    /// least once from now.
    pub fn ring(&self) {
        self.doorbell.ring();
    }

    /// A handle that rings the doorbell from another thread of the device, for this VMM.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn bell(&self) -> std::io::Result<Bell> {
        self.doorbell.bell()
    }

    /// From now on, has writes to `at` [ring](Self::ring) without a call of
    /// [`Device::write`](crate::Device::write), and without leaving the kernel: those of `value`,
    /// or all of them. For a register whose writes say nothing but that there is work. Returns
    /// whether the front end can do that; if not, writes go on to arrive as before.
    ///
    /// A write may still arrive, such as one that had begun, or while the guest moves the BAR: the
    /// device rings then, as it would without this call. All writes that begin at the register may
    /// ring if no `value` is given, even those of another width.
    ///
    /// A second call for the same register and value changes nothing. A reset and a detachment undo
    /// it, and so does [`stop_ringing`](Self::stop_ringing).
    pub fn ring_on_write(&self, at: Register, value: Option<u64>) -> bool {
        let events = self.events.as_ref();
        events.is_some_and(|events| events.connect(at, value, self.doorbell.event()))
    }

    /// Has writes to `at` arrive again: undoes [`ring_on_write`](Self::ring_on_write) of the same
    /// register and value, if there was one.
    pub fn stop_ringing(&self, at: Register, value: Option<u64>) {
        if let Some(events) = &self.events {
            events.disconnect(at, value);
        }
    }

    /// Whether work in progress should end: the device is being detached, or a reset is waiting.
    #[inline]
    pub fn should_stop(&self) -> bool {
        self.closing.load(Ordering::Acquire) || self.pausing.load(Ordering::Acquire)
    }

    /// The engine's device: its name, guest and domain. Maps through it directly do not check the
    /// bus master bit.
    pub fn vdev(&self) -> &Vdev {
        &self.vdev
    }

    /// Has all writes arrive again.
    pub(crate) fn stop_all_ringing(&self) {
        if let Some(events) = &self.events {
            events.disconnect_all();
        }
    }

    /// Cancels in-flight copies by message, or re-enables them.
    pub(crate) fn pause_messages(&self, paused: bool) {
        if let Some(messages) = &self.messages {
            messages.pause(paused);
        }
    }

    #[inline]
    fn check_master(&self, addr: DeviceAddr, len: u64) -> Result<(), DmaError> {
        match self.master.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(DmaError::NotBusMaster { addr, len }),
        }
    }

    /// Whether the engine found permission but no memory, so that messages may reach it.
    fn has_messages(&self, error: &gasp::Error) -> bool {
        self.messages.is_some() && matches!(error.reason(), Reason::NoMemory { .. })
    }

    #[cold]
    fn explain(&self, error: gasp::Error, addr: DeviceAddr, len: u64) -> DmaError {
        match self.has_messages(&error) {
            true => {
                let why = self.messages.as_ref().map_or("", |messages| messages.why(addr));
                let refused = DmaError::NoDescriptor { addr, len, why };
                tracing::debug!(%refused, device = self.vdev.name(), "a map is refused");
                refused
            }
            false => DmaError::Engine(error),
        }
    }

    /// Calls `copy` for a range piece by piece: memory that is reached by messages as far as it
    /// extends, other memory page by page.
    fn in_pieces(
        &self,
        addr: DeviceAddr,
        len: usize,
        mut copy: impl FnMut(Option<&dyn MessageMemory>, DeviceAddr, usize) -> Result<(), Failed>,
    ) -> Result<(), DmaError> {
        let Some(messages) = self.messages.as_deref() else { return Ok(()) };
        let mut done = 0;
        while done < len {
            // The engine has checked that the range does not wrap.
            let at = DeviceAddr(addr.0.wrapping_add(done as u64));
            if self.should_stop() {
                let (len, errno) = ((len - done) as u64, Errno::CANCELED);
                return Err(DmaError::Message { addr: at, len, errno });
            }
            let extent = messages.extent(at);
            let most = extent.unwrap_or(gasp::GRANULE - at.0 % gasp::GRANULE);
            let piece = (len - done).min(usize::try_from(most).unwrap_or(usize::MAX)).max(1);
            copy(extent.map(|_| messages), at, piece).map_err(|failed| match failed {
                Failed::Engine(error) => DmaError::Engine(error),
                Failed::Message(errno) => DmaError::Message { addr: at, len: piece as u64, errno },
            })?;
            done += piece;
        }
        Ok(())
    }
}

enum Failed {
    Engine(gasp::Error),
    Message(Errno),
}

impl Dma for DeviceContext {
    type Error = DmaError;

    fn map(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping, DmaError> {
        Self::map(self, addr, len, flags)
    }

    fn map_scatter(
        &self,
        addr: DeviceAddr,
        len: u64,
        flags: MapFlags,
    ) -> Result<Scatter, DmaError> {
        Self::map_scatter(self, addr, len, flags)
    }

    fn map_page(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping, DmaError> {
        self.check_master(addr, len)?;
        Dma::map_page(&self.vdev, addr, len, flags).map_err(|error| self.explain(error, addr, len))
    }

    fn allows(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> bool {
        self.check_master(addr, len).is_ok() && self.vdev.allows(addr, len, flags)
    }

    fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> Result<(), DmaError> {
        Self::read(self, addr, into)
    }

    fn write(&self, addr: DeviceAddr, from: &[u8]) -> Result<(), DmaError> {
        Self::write(self, addr, from)
    }
}

impl fmt::Debug for DeviceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceContext").field("vdev", &self.vdev).finish_non_exhaustive()
    }
}
