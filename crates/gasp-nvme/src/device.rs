//! The device: its PCI function and its life cycle.

use gasp_disk::{Backing, Disk, serial};
use gasp_vdev::{Bar, Device, DeviceContext, Model, Msix, Register};
use parking_lot::{Mutex, MutexGuard};

use super::controller::{Controller, Work};
use super::counters::Counters;
use super::error::NvmeError;
use super::identity::IDENTITY;
use super::options::Options;
use super::registers;
use super::subsystem::Subsystem;

/// The only BAR: registers, then doorbells, the MSI-X table, its pending bits.
const BAR_SIZE: u64 = 0x4000;
const TABLE: u32 = 0x2000;
const PENDING: u32 = 0x3000;

/// An NVMe controller, as a device.
#[derive(Debug)]
pub struct Nvme {
    subsystem: Subsystem,
    /// Locked by the device's thread while it works, and by the other calls while it does not.
    controller: Mutex<Controller>,
}

impl Nvme {
    /// Creates a controller whose namespace 1 is stored in `backing`.
    ///
    /// # Errors
    /// If an option is out of range, the backing is empty, too large or not a multiple of the block
    /// size, the file cannot be opened, is in use or not a disk, or the memory cannot be mapped.
    pub fn new(backing: &Backing, options: Options) -> Result<Self, NvmeError> {
        options.check()?;
        let disk = Disk::open(backing, options.block_size.trailing_zeros())?;
        let serial = options.serial.clone().map_or_else(|| serial::of(backing), Ok)?;
        let controller = Mutex::new(Controller::new(options.queues));
        Ok(Self { subsystem: Subsystem::new(options, serial, disk), controller })
    }

    /// A handle to the controller's counters, which remains usable after the controller has moved
    /// into its [`Shell`](gasp_vdev::Shell).
    pub fn counters(&self) -> Counters {
        self.subsystem.counters.clone()
    }

    /// The serial number, from the options or derived from the backing: two controllers of one
    /// guest must not have the same.
    pub fn serial(&self) -> &str {
        &self.subsystem.serial
    }

    /// The size of the namespace in bytes.
    pub fn size(&self) -> u64 {
        self.subsystem.disk.blocks() << self.subsystem.disk.block_shift()
    }

    fn controller(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock()
    }
}

impl Device for Nvme {
    fn model(&self) -> Model {
        let vectors = self.subsystem.options.queues + 1;
        Model::new(IDENTITY).bar(Bar::memory64(0, BAR_SIZE)).pin().msix(Msix {
            vectors,
            bar: 0,
            table: TABLE,
            pending: PENDING,
        })
    }

    fn read(&self, _: &DeviceContext, at: Register) -> u64 {
        match at.offset < registers::DOORBELLS {
            true => self.subsystem.mmio.registers().read(at, self.subsystem.options.entries),
            // Doorbells cannot be read.
            false => 0,
        }
    }

    fn write(&self, context: &DeviceContext, at: Register, value: u64) {
        self.subsystem.mmio.write(context, at, value);
    }

    fn work(&self, context: &DeviceContext) {
        self.controller().work(&Work { subsystem: &self.subsystem, device: context });
    }

    fn attached(&self, _: &DeviceContext) {
        self.subsystem.counters.switched_on();
        self.controller().power.switched_on();
    }

    fn reset(&self) {
        self.subsystem.mmio.reset();
        self.controller().reset(self.subsystem.options.queues);
    }

    fn detached(&self) {
        if self.controller().power.lost() {
            self.subsystem.counters.lost_power();
        }
    }
}
