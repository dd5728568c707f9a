//! QEMU's `edu`: a PCI device with a DMA engine that is independent of this project.
//!
//! It takes bus addresses, which are physical addresses without an IOMMU, and copies between
//! memory and its own buffer. A copy takes some 100 ms, by a timer in the model, so several
//! devices copy at once.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::mapped::Mapped;
use crate::{Failure, doing};

const DEVICES: &str = "/sys/bus/pci/devices";
const VENDOR: &str = "0x1234";
const DEVICE: &str = "0x11e8";
const REGISTERS: usize = 1 << 20;

/// Reads as the low bits of [`SIGNATURE`]; the upper half is a version.
const IDENTITY: usize = 0x00;
const SIGNATURE: u32 = 0xed;
const SOURCE: usize = 0x80;
const DESTINATION: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;
const START: u32 = 1;
const TO_MEMORY: u32 = 2;
/// The address of the device's own buffer.
const BUFFER: u64 = 0x4_0000;

/// The time limit of a copy, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One such device.
#[derive(Debug)]
pub struct Edu {
    registers: Mapped,
}

impl Edu {
    /// All such devices of this machine, enabled and with bus mastering.
    ///
    /// # Errors
    /// The files of one cannot be read or written, or its identity register is another's.
    pub fn all() -> Result<Vec<Self>, Failure> {
        let mut found = Vec::new();
        for entry in fs::read_dir(DEVICES).map_err(doing(DEVICES))? {
            let folder = entry?.path();
            let says = |file: &str, what: &str| {
                fs::read_to_string(folder.join(file)).is_ok_and(|text| text.trim() == what)
            };
            if says("vendor", VENDOR) && says("device", DEVICE) {
                found.push(Self::open(&folder).map_err(doing(folder.display()))?);
            }
        }
        Ok(found)
    }

    fn open(folder: &Path) -> Result<Self, Failure> {
        fs::write(folder.join("enable"), "1").map_err(doing("enable"))?;
        master(&open(&folder.join("config"))?).map_err(doing("config"))?;
        let resource = open(&folder.join("resource0"))?;
        let registers = Mapped::file(&resource, REGISTERS).map_err(doing("resource0"))?;
        let identity = registers.load(IDENTITY)?;
        if identity & 0xff != SIGNATURE {
            return Err(format!("not an edu device: the identity register is {identity:#x}").into());
        }
        Ok(Self { registers })
    }

    /// Starts to read `len` bytes from this physical address.
    ///
    /// # Errors
    /// A register is out of range, which does not happen in practice.
    pub fn start_reading(&self, from: u64, len: u64) -> Result<(), Failure> {
        self.start(from, BUFFER, len, START)
    }

    /// Starts to write the `len` bytes that were read last to this physical address.
    ///
    /// # Errors
    /// A register is out of range, which does not happen in practice.
    pub fn start_writing(&self, to: u64, len: u64) -> Result<(), Failure> {
        self.start(BUFFER, to, len, START | TO_MEMORY)
    }

    fn start(&self, from: u64, to: u64, len: u64, command: u32) -> Result<(), Failure> {
        self.registers.store_wide(SOURCE, from)?;
        self.registers.store_wide(DESTINATION, to)?;
        self.registers.store_wide(COUNT, len)?;
        self.registers.store(COMMAND, command)?;
        Ok(())
    }

    /// Waits until the copy that was started has completed.
    ///
    /// # Errors
    /// It has not completed after 20 s.
    pub fn wait(&self) -> Result<(), Failure> {
        let started = Instant::now();
        while self.registers.load(COMMAND)? & START != 0 {
            if started.elapsed() > PATIENCE {
                return Err("the device does not complete its copy".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Enables memory space and bus mastering: bits 1 and 2 of the command register.
fn master(config: &File) -> std::io::Result<()> {
    const COMMAND: u64 = 4;
    const MEMORY_AND_MASTER: u8 = 0b110;
    let mut low = [0];
    config.read_exact_at(&mut low, COMMAND)?;
    config.write_all_at(&low.map(|low| low | MEMORY_AND_MASTER), COMMAND)
}

fn open(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().read(true).write(true).open(path).map_err(doing(path.display()))
}
