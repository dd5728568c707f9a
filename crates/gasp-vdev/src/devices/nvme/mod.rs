//! An NVMe controller with one namespace, after NVM Express 1.4.
//!
//! The guest's driver describes two queues in registers, and makes more with commands in
//! these. It puts commands into submission queues and rings a doorbell; the device's
//! thread fetches them, moves their data straight between the guest's memory and what the
//! blocks are kept in, and puts completions into completion queues. Every one of these
//! accesses is a map of the engine, held for that access only, so that the guest can take
//! any memory back at any time.
//!
//! ```
//! use gasp_vdev::Shell;
//! use gasp_vdev::devices::nvme::{Backing, Nvme, Options};
//!
//! let nvme = Nvme::new(&Backing::memory(64 << 20), Options::default())?;
//! let counters = nvme.counters();
//! let shell = Shell::new("disk", nvme)?;
//! assert_eq!(counters.snapshot().reads, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What goes wrong, and who hears of it:
//!
//! | | |
//! |---|---|
//! | a command cannot be done | its completion says why |
//! | data or a PRP list is not the device's to use | "Data Transfer Error" |
//! | a doorbell is given nonsense | an asynchronous event |
//! | a queue is not the device's to use, or the configuration is not one offered | controller fatal status, until the guest resets it |
//!
//! | file | |
//! |---|---|
//! | `front` | registers and doorbells, as the front end's thread sees them (`registers`) |
//! | `controller` | the device's thread: queues (`queue`) in turn, interrupts |
//! | `life` | on and off, reset, shutdown |
//! | `admin` | admin commands (`identify`, `features`, `log` and `power`, `events`) |
//! | `io` | read, write, flush, write zeroes, deallocate |
//! | `prp`, `data` | where a command's data is; its maps |
//! | `disk` | what blocks are kept in: `image`, its `serial` (`vectored`, `anonymous`: the unsafe code) |
//!
//! Left out: scatter-gather lists, metadata, protection information, fused commands,
//! reservations, firmware, several namespaces, memory of the controller's own, resets of
//! the NVM subsystem; PCI Express and power management capabilities, and with them a reset
//! of the function by the guest (the front end has [`Shell::reset`](crate::Shell::reset)).

mod admin;
mod anonymous;
mod command;
mod controller;
mod counters;
mod data;
mod disk;
mod error;
mod events;
mod features;
mod front;
mod identify;
mod image;
mod io;
mod life;
mod log;
mod page;
mod power;
mod prp;
mod queue;
mod registers;
mod seldom;
mod serial;
mod status;
mod vectored;

use parking_lot::{Mutex, MutexGuard};

pub use counters::{Counters, Snapshot};
pub use disk::Backing;
pub use error::NvmeError;

use controller::{Context, Controller};
use disk::Disk;
use front::Front;
use seldom::Seldom;

use crate::bus::Bus;
use crate::device::Device;
use crate::pci::{Bar, Class, Identity, Model, Msix, Register};

/// The most that one command moves, as a power of two of 4 KiB pages: 512 KiB. Whoever
/// takes the memory back waits no longer than for this much.
const TRANSFER_SHIFT: u32 = 7;
const TRANSFER_MAX: u64 = gasp::GRANULE << TRANSFER_SHIFT;

/// The BAR of everything: registers, doorbells after them, the MSI-X table, its pending
/// bits.
const BAR_SIZE: u64 = 0x4000;
const TABLE: u32 = 0x2000;
const PENDING: u32 = 0x3000;

const IDENTITY: Identity = Identity {
    // QEMU's vendor number for devices that exist nowhere else.
    vendor: 0x1234,
    device: 0x6e76,
    subsystem_vendor: 0x1234,
    subsystem: 2,
    revision: 1,
    // Mass storage: non-volatile memory, NVM Express.
    class: Class { base: 0x01, sub: 0x08, interface: 0x02 },
};

/// What can be chosen about a controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The size of a block: 512 or 4096 bytes.
    pub block_size: u32,
    /// The serial number: 1 to 20 printable ASCII characters. Controllers of one guest must
    /// differ in it (or in their model), or the guest takes them for one: all other names
    /// of the controller are made of these two. With `None` it is made of the file's path,
    /// the same each time; a controller without a file gets a new one. [`Nvme::serial`]
    /// says which.
    pub serial: Option<String>,
    /// The model: up to 40 printable ASCII characters.
    pub model: String,
    /// How many pairs of I/O queues the guest can make, from 1 to 128. Each, and the admin
    /// queue, has an interrupt vector.
    pub queues: u16,
    /// How many entries an I/O queue can have, from 2 to 65,536.
    pub entries: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { block_size: 512, serial: None, model: "gasp".into(), queues: 8, entries: 1024 }
    }
}

impl Options {
    fn check(&self) -> Result<(), NvmeError> {
        let printable = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let fits = |text: &str, len| !text.is_empty() && text.len() <= len && printable(text);
        let fail = |what| Err(NvmeError::Option(what));
        if ![512, 4096].contains(&self.block_size) {
            return fail("the size of a block must be 512 or 4096");
        }
        let serial = self.serial.as_ref();
        if serial.is_some_and(|text| !fits(text, serial::LEN_MAX)) || !fits(&self.model, 40) {
            return fail("a serial has 1 to 20, a model 1 to 40 printable ASCII characters");
        }
        if !(1..=128).contains(&self.queues) || !(2..=65_536).contains(&self.entries) {
            return fail("there can be 1 to 128 I/O queues, of 2 to 65536 entries");
        }
        Ok(())
    }
}

/// The device.
#[derive(Debug)]
pub struct Nvme {
    options: Options,
    serial: String,
    disk: Disk,
    counters: Counters,
    /// Of resets that the guest has to make, and shutdowns that fail.
    warnings: Seldom,
    front: Front,
    /// Locked by the device's thread while it works, and by a reset, while it does not.
    controller: Mutex<Controller>,
}

impl Nvme {
    /// A controller whose namespace 1 is kept in `backing`.
    ///
    /// # Errors
    /// If an option is out of its range, the backing is empty or no multiple of the block
    /// size, the file cannot be opened or is in use, or the memory cannot be mapped.
    pub fn new(backing: &Backing, options: Options) -> Result<Self, NvmeError> {
        options.check()?;
        let disk = Disk::open(backing, options.block_size.trailing_zeros())?;
        Ok(Self {
            serial: options.serial.clone().map_or_else(|| backing.serial(), Ok)?,
            disk,
            counters: Counters::default(),
            warnings: Seldom::default(),
            front: Front::new(options.queues + 1),
            controller: Mutex::new(Controller::new(options.queues)),
            options,
        })
    }

    /// A handle to what the controller counts, to keep when the controller itself has gone
    /// into its [`Shell`](crate::Shell).
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// The serial number, as it was given or made: two controllers of one guest must not
    /// have the same.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// How many bytes the namespace has.
    pub fn size(&self) -> u64 {
        self.disk.blocks() << self.disk.block_shift()
    }

    fn uuid(&self) -> [u8; 16] {
        identify::uuid_of(&self.serial, &self.options.model)
    }

    fn controller(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock()
    }
}

impl Device for Nvme {
    fn model(&self) -> Model {
        let vectors = self.options.queues + 1;
        Model::new(IDENTITY).bar(Bar::memory64(0, BAR_SIZE)).pin().msix(Msix {
            vectors,
            bar: 0,
            table: TABLE,
            pending: PENDING,
        })
    }

    fn read(&self, _: &Bus, at: Register) -> u64 {
        match at.offset < registers::DOORBELLS {
            true => self.front.registers().read(at, self.options.entries),
            // Doorbells cannot be read.
            false => 0,
        }
    }

    fn write(&self, bus: &Bus, at: Register, value: u64) {
        self.front.write(bus, at, value);
    }

    fn work(&self, bus: &Bus) {
        self.controller().work(&Context { nvme: self, bus });
    }

    fn attached(&self, _: &Bus) {
        self.counters.switched_on();
        self.controller().power.switched_on();
    }

    fn reset(&self) {
        self.front.reset();
        self.controller().reset(self.options.queues);
    }

    fn detached(&self) {
        if self.controller().power.lost() {
            self.counters.lost_power();
        }
    }
}
