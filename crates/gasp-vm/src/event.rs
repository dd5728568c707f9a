//! Events between the kernel and devices: interrupt lines that a device raises, doorbells that the
//! guest rings.

use core::fmt;
use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::error::MachineError;
use crate::machine::Machine;

/// An interrupt line of the I/O APIC, for edges: an irqfd. Dropping it disconnects it.
pub struct Line {
    event: EventFd,
    gsi: u32,
    /// Not the machine: its buses have devices that have lines.
    vm: Arc<VmFd>,
}

/// An interrupt line of the I/O APIC, for levels. Dropping it lowers it.
///
/// While it is up, the I/O APIC delivers the interrupt again each time that the guest ends it, as
/// far as the guest has programmed the line as level-triggered. Active high and active low are the
/// same to KVM: raised is asserted.
///
/// Several of one number are one line to the guest, and the last change of any of them counts: a
/// line that devices share needs a count of who holds it up.
pub struct LevelLine {
    gsi: u32,
    vm: Arc<VmFd>,
}

/// Where a [`Doorbell`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DoorbellAddr {
    /// A port.
    Port(u16),
    /// A memory address.
    Mmio(u64),
}

/// Which writes ring a [`Doorbell`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rings {
    /// All that begin at its address, of any length and value.
    Any,
    /// Those of two bytes with this value.
    U16(u16),
    /// Those of four bytes with this value.
    U32(u32),
}

/// A register whose writes are counted by the kernel, without an exit to a device: an ioeventfd.
/// Dropping it makes the writes exit again.
pub struct Doorbell {
    event: EventFd,
    addr: DoorbellAddr,
    rings: Rings,
    vm: Arc<VmFd>,
}

impl Machine {
    /// The interrupt line `gsi`, 0 to 23.
    ///
    /// # Errors
    /// [`MachineError::Kvm`] if there is no such line, or the VM has no interrupt controllers.
    pub fn line(&self, gsi: u32) -> Result<Line, MachineError> {
        let event = EventFd::new(EFD_NONBLOCK).map_err(MachineError::host("an eventfd"))?;
        // KVM takes any number, and then the line leads nowhere.
        if gsi >= crate::LINES {
            let errno = gasp::Errno::INVAL;
            return Err(MachineError::Kvm { what: "KVM_IRQFD of a line past 23", errno });
        }
        self.0.vm.register_irqfd(&event, gsi).map_err(MachineError::call("KVM_IRQFD"))?;
        Ok(Line { event, gsi, vm: Arc::clone(&self.0.vm) })
    }

    /// The interrupt line `gsi`, 0 to 23, for a device that holds it up until it is served.
    ///
    /// # Errors
    /// [`MachineError::Kvm`] if there is no such line, or the VM has no interrupt controllers.
    pub fn level_line(&self, gsi: u32) -> Result<LevelLine, MachineError> {
        if gsi >= crate::LINES {
            let errno = gasp::Errno::INVAL;
            return Err(MachineError::Kvm { what: "KVM_IRQ_LINE of a line past 23", errno });
        }
        let line = LevelLine { gsi, vm: Arc::clone(&self.0.vm) };
        line.set(false)?;
        Ok(line)
    }

    /// A doorbell at `addr`.
    ///
    /// # Errors
    /// [`MachineError::Kvm`], with `EEXIST` if there is one.
    pub fn doorbell(&self, addr: DoorbellAddr, rings: Rings) -> Result<Doorbell, MachineError> {
        let event = EventFd::new(EFD_NONBLOCK).map_err(MachineError::host("an eventfd"))?;
        let (vm, at) = (&self.0.vm, addr.into());
        match rings {
            Rings::Any => vm.register_ioevent(&event, &at, NoDatamatch),
            Rings::U16(value) => vm.register_ioevent(&event, &at, value),
            Rings::U32(value) => vm.register_ioevent(&event, &at, value),
        }
        .map_err(MachineError::call("KVM_IOEVENTFD"))?;
        Ok(Doorbell { event, addr, rings, vm: Arc::clone(&self.0.vm) })
    }
}

impl From<DoorbellAddr> for IoEventAddress {
    fn from(addr: DoorbellAddr) -> Self {
        match addr {
            DoorbellAddr::Port(port) => Self::Pio(port.into()),
            DoorbellAddr::Mmio(addr) => Self::Mmio(addr),
        }
    }
}

impl Line {
    /// Raises and lowers the line.
    pub fn pulse(&self) {
        // It fails only if the kernel has not seen 2^64 - 2 edges yet.
        let _ = self.event.write(1);
    }
}

impl LevelLine {
    /// Raises or lowers the line. To set the level that it has is allowed.
    ///
    /// # Errors
    /// [`MachineError::Kvm`]; the line stays as it is.
    pub fn set(&self, raised: bool) -> Result<(), MachineError> {
        self.vm.set_irq_line(self.gsi, raised).map_err(MachineError::call("KVM_IRQ_LINE"))
    }

    /// The number of the line.
    pub fn gsi(&self) -> u32 {
        self.gsi
    }
}

impl Doorbell {
    /// Where the rings are counted; its descriptor is not blocking.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// How often it was rung since the last call.
    pub fn take(&self) -> u64 {
        self.event.read().unwrap_or(0)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Err(error) = self.vm.unregister_irqfd(&self.event, self.gsi) {
            tracing::error!(%error, gsi = self.gsi, "an interrupt line stays connected");
        }
    }
}

impl Drop for LevelLine {
    fn drop(&mut self) {
        if let Err(error) = self.set(false) {
            tracing::error!(%error, gsi = self.gsi, "an interrupt line stays as it is");
        }
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        let (vm, at) = (&self.vm, self.addr.into());
        let done = match self.rings {
            Rings::Any => vm.unregister_ioevent(&self.event, &at, NoDatamatch),
            Rings::U16(value) => vm.unregister_ioevent(&self.event, &at, value),
            Rings::U32(value) => vm.unregister_ioevent(&self.event, &at, value),
        };
        if let Err(error) = done {
            tracing::error!(%error, addr = ?self.addr, "a doorbell stays");
        }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("gsi", &self.gsi).finish_non_exhaustive()
    }
}

impl fmt::Debug for LevelLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelLine").field("gsi", &self.gsi).finish_non_exhaustive()
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { addr, rings, .. } = self;
        f.debug_struct("Doorbell").field("addr", addr).field("rings", rings).finish_non_exhaustive()
    }
}
