//! The host bridge, as a VMM sees it.

use core::fmt;
use core::ops::Range;
use std::sync::Arc;

use gasp::Vdev;
use gasp_vdev::{BarKind, Shell};
use parking_lot::Mutex;

use super::address::Bdf;
use super::bus::PciBus;
use super::config::{ConfigPorts, Ecam, PORTS};
use super::decoder::Decoder;
use super::describe;
use super::error::PciError;
use super::function::Function;
use super::interrupts::Wiring;
use super::pins::{Pins, line_of};
use super::rings::Rings;
use super::windows::Windows;
use crate::acpi::Tables;
use crate::error::MachineError;
use crate::inner::Inner;
use crate::layout::{HIGH, PCI_CONFIG, PCI_HIGH_MEMORY, PCI_MEMORY, PCI_PORTS};
use crate::machine::Machine;

/// The window for 64-bit BARs begins at a multiple.
const HIGH_ALIGNMENT: u64 = 1 << 30;

/// A PCI host bridge with one bus. See the [module](super).
///
/// Dropping it detaches its devices, which can then be attached to another.
pub struct PciRoot {
    bus: Arc<PciBus>,
    machine: std::sync::Weak<Inner>,
    pins: Option<Arc<Pins>>,
    high: Range<u64>,
    /// Held while a device is attached, reset or detached.
    windows: Mutex<Windows>,
}

impl PciRoot {
    /// Puts a host bridge on the buses of `machine`. The guest's RAM is there already: base address
    /// registers that can be above 4 GiB are above it.
    ///
    /// # Errors
    /// [`MachineError::Bus`] if something is at its ports or its configuration space.
    pub fn new(machine: &Machine) -> Result<Self, MachineError> {
        let inner = &machine.0;
        let regions = inner.guest.space().regions();
        let end = regions.iter().map(|region| region.span().last().0.saturating_add(1)).max();
        let end = end.unwrap_or(0).max(HIGH.0).checked_next_multiple_of(HIGH_ALIGNMENT);
        let high = end.unwrap_or(u64::MAX);
        let end = high.saturating_add(PCI_HIGH_MEMORY).min(inner.cpuid.end_of_addresses());
        let high = high..end.max(high);
        let ports = u64::from(PCI_PORTS.0)..u64::from(PCI_PORTS.0) + u64::from(PCI_PORTS.1);
        let low = PCI_MEMORY.0.0..PCI_MEMORY.0.0 + PCI_MEMORY.1;
        let windows = Mutex::new(Windows::new(ports, low, high.clone()));
        let pins = inner.routes.as_ref().map(|_| Pins::new(&inner.vm));
        let bus = Arc::new(PciBus::new(Decoder::new(&inner.ports, &inner.mmio)));
        let ecam = Arc::new(Ecam(Arc::clone(&bus)));
        inner.mmio.add(PCI_CONFIG.0.0, PCI_CONFIG.1, ecam)?;
        let config = Arc::new(ConfigPorts::new(Arc::clone(&bus)));
        if let Err(error) = inner.ports.add(PORTS.0, PORTS.1, config) {
            inner.mmio.remove(PCI_CONFIG.0.0);
            return Err(error.into());
        }
        Ok(Self { bus, machine: Arc::downgrade(inner), pins, high, windows })
    }

    /// The window for base address registers past the end of RAM.
    pub fn high_window(&self) -> Range<u64> {
        self.high.clone()
    }

    /// The first device number that is free, as its function 0.
    pub fn free(&self) -> Option<Bdf> {
        let numbers = (0..32).filter_map(|device| Bdf::new(0, device, 0));
        numbers.into_iter().find(|&at| !self.bus.is_taken(at))
    }

    /// Attaches a device: in its state after a reset, with addresses in its base address registers.
    ///
    /// `vdev` is the engine's device, which checks its accesses; its domain is what the guest's
    /// IOMMU makes of `at`.
    ///
    /// # Errors
    /// A [`PciError`]. Nothing is attached then.
    pub fn attach(&self, at: Bdf, shell: Arc<Shell>, vdev: Vdev) -> Result<(), PciError> {
        let mut windows = self.windows.lock();
        if at.bus() != 0 {
            return Err(PciError::NoSuchBus(at));
        }
        if self.bus.is_taken(at) {
            return Err(PciError::Taken(at));
        }
        let first = Bdf::from_requester_id(at.requester_id() & !7);
        if at.function() != 0 && !self.bus.is_taken(first) {
            return Err(PciError::NoFirstFunction(at));
        }
        let gone = || MachineError::Kvm { what: "the VM", errno: gasp::Errno::NODEV };
        let machine = self.machine.upgrade().ok_or_else(gone)?;
        let addresses = place(&mut windows, &machine, at, &shell)?;
        let line = line_of(at, 0);
        let wiring =
            Wiring::new(&machine.vm, machine.routes.as_ref(), self.pins.as_ref(), line, &shell);
        let rings = Rings::new(&machine.vm);
        let function = Arc::new(Function::new(at, shell, rings, wiring, addresses));
        if let Err(error) = function.shell().attach(vdev, None, Some(function.events())) {
            give_back(&mut windows, function.addresses());
            return Err(error.into());
        }
        function.set_addresses();
        self.bus.add(&function);
        Ok(())
    }

    /// Resets a device to its state after power-on, with the addresses that it had then.
    ///
    /// # Errors
    /// [`PciError::Absent`].
    pub fn reset(&self, at: Bdf) -> Result<(), PciError> {
        let _windows = self.windows.lock();
        let function = self.bus.find(at).ok_or(PciError::Absent(at))?;
        function.shell().reset();
        function.set_addresses();
        self.bus.follow(&function);
        Ok(())
    }

    /// Detaches a device, and returns it. If it is function 0 of its device, the guest does not
    /// find the others any more.
    ///
    /// # Errors
    /// [`PciError::Absent`].
    pub fn detach(&self, at: Bdf) -> Result<Arc<Shell>, PciError> {
        let mut windows = self.windows.lock();
        let function = self.bus.remove(at).ok_or(PciError::Absent(at))?;
        function.shell().detach();
        function.disconnect();
        give_back(&mut windows, function.addresses());
        Ok(Arc::clone(function.shell()))
    }

    /// The device at a place, if there is one.
    pub fn device(&self, at: Bdf) -> Option<Arc<Shell>> {
        Some(Arc::clone(self.bus.find(at)?.shell()))
    }

    /// All devices, in order of their places.
    pub fn devices(&self) -> Vec<Bdf> {
        self.bus.all()
    }

    /// Adds the host bridge to ACPI tables: a device in the DSDT, and MCFG.
    pub fn describe(&self, tables: Tables) -> Tables {
        describe::describe(tables, &self.high)
    }
}

/// Addresses for the BARs of a device.
fn place(
    windows: &mut Windows,
    machine: &Inner,
    at: Bdf,
    shell: &Shell,
) -> Result<Vec<(u8, BarKind, u64)>, PciError> {
    let regions = machine.guest.space().regions();
    let in_memory = |range: Range<u64>| {
        let overlaps = |start: u64, last: u64| start < range.end && last >= range.start;
        let spans = regions.iter().map(|region| (region.span().start().0, region.span().last().0));
        let region = spans.filter(|&(start, last)| overlaps(start, last)).map(|(_, last)| last);
        let device = machine.mmio.last_in(range.start, range.end - 1);
        region.chain(device).max().map(|last| last.saturating_add(1))
    };
    let in_ports = |range: Range<u64>| {
        let last = machine.ports.last_in(range.start, range.end - 1);
        last.map(|last| last.saturating_add(1))
    };
    let mut addresses = Vec::new();
    for bar in &shell.model().bars {
        let (kind, len) = (bar.kind, bar.size);
        let start = match kind {
            BarKind::Io => windows.take(kind, len, in_ports),
            BarKind::Memory32 | BarKind::Memory64 => windows.take(kind, len, in_memory),
        };
        match start {
            Some(start) => addresses.push((bar.index, kind, start)),
            None => {
                give_back(windows, &addresses);
                return Err(PciError::NoRoom { at, bar: bar.index, len });
            }
        }
    }
    Ok(addresses)
}

fn give_back(windows: &mut Windows, addresses: &[(u8, BarKind, u64)]) {
    addresses.iter().for_each(|&(_, kind, start)| windows.give_back(kind, start));
}

impl Drop for PciRoot {
    fn drop(&mut self) {
        for at in self.bus.all() {
            // It was there a moment ago.
            drop(self.detach(at));
        }
        if let Some(machine) = self.machine.upgrade() {
            machine.mmio.remove(PCI_CONFIG.0.0);
            machine.ports.remove(PORTS.0);
        }
    }
}

impl fmt::Debug for PciRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciRoot").field("devices", &self.devices()).finish_non_exhaustive()
    }
}
