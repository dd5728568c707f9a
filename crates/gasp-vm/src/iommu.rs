//! The guest's IOMMU: a VT-d remapping unit on the bus of a machine.

use std::sync::{Arc, Weak};

use gasp::{Drain, Guest, Result, Vdev};
use gasp_vtd::{RequesterId, Unit};
use parking_lot::Mutex;

use crate::acpi::Tables;
use crate::bus::BusDevice;
use crate::error::MachineError;
use crate::inner::Inner;
use crate::layout;
use crate::machine::Machine;
use crate::pci::Bdf;
use crate::routes::{Message, MessageSender};

/// A VT-d remapping unit that the PCI devices of a guest are behind.
///
/// It belongs to the guest, as its devices do, and is connected to each new [`Machine`] of it. Linux
/// uses it with `intel_iommu=on` on its command line; until a driver enables it, devices reach all
/// memory.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use gasp::{Guest, MemoryObject, Unattached};
/// use gasp_vdev::{Shell, dma::DmaEngine};
/// use gasp_vm::pci::{Bdf, PciRoot};
/// use gasp_vm::{Iommu, Machine, acpi, layout};
///
/// let guest = Guest::builder().iommu(Unattached::Bypass).build()?;
/// layout::add_ram(&guest, &MemoryObject::ram(512 << 20).create()?)?;
/// let engine = Arc::new(Shell::new("dma", DmaEngine::new())?);
/// let vdev = guest.vdev("dma")?;
/// let at = Bdf::new(0, 1, 0).ok_or("no such place")?;
/// let iommu = Iommu::new(&guest)?;
/// iommu.attach(at, &vdev)?.wait();
/// // From power-on to the end, each time the guest resets itself:
/// let machine = Machine::builder().build(&guest)?;
/// iommu.connect(&machine)?;
/// let pci = PciRoot::new(&machine)?;
/// pci.attach(at, Arc::clone(&engine), vdev.clone())?;
/// let tables = iommu.describe(pci.describe(acpi::Tables::new(1)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Iommu {
    unit: Unit,
    /// The machine that its interrupts go to.
    machine: Arc<Mutex<Weak<Inner>>>,
}

impl Iommu {
    /// Creates the unit of `guest`, which has to have an IOMMU
    /// ([`GuestBuilder::iommu`](gasp::GuestBuilder::iommu)).
    ///
    /// # Errors
    /// [`MachineError::Host`] if the unit's thread cannot be created.
    pub fn new(guest: &Guest) -> core::result::Result<Self, MachineError> {
        let machine = Arc::new(Mutex::new(Weak::<Inner>::new()));
        let to = Arc::clone(&machine);
        let unit = Unit::new(guest, move |message| {
            let machine = to.lock().upgrade();
            let Some(machine) = machine else { return };
            let message = Message { addr: message.address, data: message.data };
            if let Err(error) = MessageSender::new(&machine.vm).send(message) {
                tracing::debug!(%error, ?message, "an interrupt of the IOMMU is lost");
            }
        });
        let unit = unit.map_err(MachineError::host("the thread of the IOMMU"))?;
        Ok(Self { unit, machine })
    }

    /// Puts a device behind the unit, as the PCI function `at`. The drain waits for the mappings
    /// that the device had before.
    ///
    /// # Errors
    /// As [`Unit::connect`].
    pub fn attach(&self, at: Bdf, vdev: &Vdev) -> Result<Drain> {
        self.unit.connect(RequesterId(at.requester_id()), vdev)
    }

    /// Resets the unit, and puts its registers on the bus of a machine of its guest, at
    /// [`layout::IOMMU`]. Its interrupts go there from now on.
    ///
    /// # Errors
    /// [`MachineError::Bus`] if something is at its registers.
    pub fn connect(&self, machine: &Machine) -> core::result::Result<(), MachineError> {
        self.unit.reset();
        *self.machine.lock() = Arc::downgrade(&machine.0);
        let registers = Arc::new(Registers(self.unit.clone()));
        Ok(machine.mmio().add(layout::IOMMU.0, Unit::PAGE, registers)?)
    }

    /// Adds the unit to ACPI tables: DMAR.
    pub fn describe(&self, tables: Tables) -> Tables {
        tables.table(&self.unit.dmar(layout::IOMMU))
    }

    /// The unit itself.
    pub fn unit(&self) -> &Unit {
        &self.unit
    }
}

struct Registers(Unit);

impl BusDevice for Registers {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.0.write(offset, data);
    }
}
