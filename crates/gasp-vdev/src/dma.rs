//! A DMA engine: the smallest device that uses all that a device has.
//!
//! The guest writes two addresses and a length, starts the engine, and gets an interrupt
//! when the bytes have been copied. Start reading here to write a device of your own: the
//! registers come first, then [`Device`], then the work.
//!
//! It can also report, run by run, the host-physical addresses that it would pass to real hardware:
//! *runs* instead of a copy.
//!
//! | offset | bytes | register | |
//! |---|---|---|---|
//! | `0x00` | 4 | magic | `0x414d4447`, "GDMA"; read only |
//! | `0x08` | 8 | source | device address |
//! | `0x10` | 8 | destination | device address; not used for runs |
//! | `0x18` | 8 | length | bytes |
//! | `0x20` | 4 | control | bit 0: start, bit 1: runs instead of a copy, bit 2: interrupt at the end |
//! | `0x24` | 4 | status | 0 idle, 1 busy, 2 done, 3 failed; read only |
//! | `0x28` | 4 | error | the errno of what failed; read only |
//! | `0x2c` | 4 | runs | how many runs were found, at most 4096; read only |
//! | `0x30` | 8 | progress | bytes copied, or covered by runs; read only |
//! | `0x38` | 4 | run | which run the next two registers show |
//! | `0x40` | 8 | run address | host-physical; read only |
//! | `0x48` | 8 | run length | bytes; read only |
//! | `0x50` | 4 | acknowledge | any write lowers the interrupt pin |
//!
//! Registers of 8 bytes can be written in halves. Writes while the engine is busy are ignored.

use parking_lot::{Mutex, MutexGuard};

use gasp::{DeviceAddr, Errno, MapFlags};

use crate::context::DeviceContext;
use crate::device::Device;
use crate::error::DmaError;
use crate::pci::{Bar, Class, Identity, Model, Msix, Register};

/// The value of the first register.
pub const MAGIC: u32 = u32::from_le_bytes(*b"GDMA");
/// Starts the engine.
pub const START: u32 = 1;
/// Reports runs instead of copying.
pub const RUNS: u32 = 2;
/// Interrupts at the end.
pub const INTERRUPT: u32 = 4;
/// Values of the status register: not started since the reset.
pub const IDLE: u32 = 0;
/// In progress.
pub const BUSY: u32 = 1;
/// Finished without an error.
pub const DONE: u32 = 2;
/// Stopped at an error.
pub const FAILED: u32 = 3;

/// The maximum number of runs reported.
const RUNS_MAX: usize = 4096;
/// How much is mapped at a time. A revoke of the memory waits for the copy of this much at most.
const CHUNK: u64 = 1 << 20;
/// The size of the buffer.
const BUFFER: usize = 16 << 10;

/// A DMA engine.
#[derive(Debug, Default)]
pub struct DmaEngine {
    registers: Mutex<Registers>,
}

#[derive(Debug, Default)]
struct Registers {
    source: u64,
    destination: u64,
    length: u64,
    control: u32,
    status: u32,
    error: u32,
    progress: u64,
    run: u32,
    /// Host-physical address and length of each run.
    runs: Vec<(u64, u64)>,
}

impl DmaEngine {
    /// Creates an idle engine.
    pub fn new() -> Self {
        Self::default()
    }

    /// Locks the registers: for a moment at a time, never during a transfer.
    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock()
    }
}

impl Device for DmaEngine {
    fn model(&self) -> Model {
        let identity = Identity {
            // QEMU's vendor number for devices that exist nowhere else.
            vendor: 0x1234,
            device: 0x6d61,
            subsystem_vendor: 0x1234,
            subsystem: 1,
            revision: 1,
            // A system peripheral: a DMA controller.
            class: Class { base: 0x08, sub: 0x01, interface: 0 },
        };
        Model::new(identity).bar(Bar::memory(0, 4096)).bar(Bar::memory(1, 4096)).pin().msix(Msix {
            vectors: 1,
            bar: 1,
            table: 0,
            pending: 0x800,
        })
    }

    fn read(&self, _: &DeviceContext, at: Register) -> u64 {
        let registers = self.registers();
        let run = registers.runs.get(registers.run as usize).copied().unwrap_or_default();
        // Each aligned group of 8 bytes is one register, or two neighbours.
        let group = match at.offset & !7 {
            0x00 => u64::from(MAGIC),
            0x08 => registers.source,
            0x10 => registers.destination,
            0x18 => registers.length,
            0x20 => u64::from(registers.control) | u64::from(registers.status) << 32,
            0x28 => u64::from(registers.error) | (registers.runs.len() as u64) << 32,
            0x30 => registers.progress,
            0x38 => u64::from(registers.run),
            0x40 => run.0,
            0x48 => run.1,
            _ => 0,
        };
        at.part_of(at.offset & !7, group)
    }

    fn write(&self, context: &DeviceContext, at: Register, value: u64) {
        if at.offset & !7 == 0x50 {
            return context.lower();
        }
        let mut registers = self.registers();
        if at.offset & !7 == 0x38 {
            registers.run = value as u32;
            return;
        }
        if registers.status == BUSY {
            return;
        }
        match at.offset & !7 {
            0x08 => registers.source = at.merged(0x08, registers.source, value),
            0x10 => registers.destination = at.merged(0x10, registers.destination, value),
            0x18 => registers.length = at.merged(0x18, registers.length, value),
            0x20 if at.offset == 0x20 => {
                registers.control = value as u32 & (START | RUNS | INTERRUPT);
                if registers.control & START != 0 {
                    registers.status = BUSY;
                    registers.error = 0;
                    registers.progress = 0;
                    registers.runs.clear();
                    // The device's own thread does the rest.
                    context.ring();
                }
            }
            _ => {}
        }
    }

    fn work(&self, context: &DeviceContext) {
        let registers = self.registers();
        if registers.status != BUSY {
            return;
        }
        let (source, destination) =
            (DeviceAddr(registers.source), DeviceAddr(registers.destination));
        let (length, control) = (registers.length, registers.control);
        drop(registers);

        let result = match control & RUNS {
            0 => self.copy(context, source, destination, length),
            _ => self.find_runs(context, source, length),
        };

        let mut registers = self.registers();
        registers.control &= !START;
        (registers.status, registers.error) = match result {
            Ok(()) => (DONE, 0),
            Err(errno) => (FAILED, errno.raw_os_error().unsigned_abs()),
        };
        drop(registers);
        if control & INTERRUPT != 0 {
            context.signal(0);
        }
    }

    fn reset(&self) {
        *self.registers() = Registers::default();
    }
}

impl DmaEngine {
    /// Copies chunk by chunk: maps both sides, copies, unmaps both.
    fn copy(
        &self,
        context: &DeviceContext,
        source: DeviceAddr,
        destination: DeviceAddr,
        length: u64,
    ) -> Result<(), Errno> {
        let mut buffer = vec![0; BUFFER];
        let mut done = 0;
        while done < length {
            if context.should_stop() {
                return Err(Errno::CANCELED);
            }
            let len = CHUNK.min(length - done);
            let from = source.checked_add(done).ok_or(Errno::NXIO)?;
            let to = destination.checked_add(done).ok_or(Errno::NXIO)?;
            copy_chunk(context, from, to, len, &mut buffer).map_err(|error| {
                tracing::debug!(%error, "a copy fails");
                error.errno()
            })?;
            done += len;
            self.registers().progress = done;
        }
        Ok(())
    }

    /// Finds the runs: each map returns one, as long as possible, and the next begins after it.
    fn find_runs(
        &self,
        context: &DeviceContext,
        source: DeviceAddr,
        length: u64,
    ) -> Result<(), Errno> {
        let mut done = 0;
        while done < length {
            if context.should_stop() {
                return Err(Errno::CANCELED);
            }
            let at = source.checked_add(done).ok_or(Errno::NXIO)?;
            let mapping = context
                .map_host_contig(at, length - done, MapFlags::READ)
                .map_err(|error| error.errno())?;
            // A real device would pass this address to hardware now, and hold the mapping until the
            // hardware has finished.
            let run = mapping.run();
            let mut registers = self.registers();
            if registers.runs.len() == RUNS_MAX {
                return Err(Errno::NOSPC);
            }
            registers.runs.push((run.addr.0, run.len));
            done += run.len;
            registers.progress = done;
        }
        Ok(())
    }
}

/// Copies one chunk, wherever the memory of either side is.
fn copy_chunk(
    context: &DeviceContext,
    from: DeviceAddr,
    to: DeviceAddr,
    len: u64,
    buffer: &mut [u8],
) -> Result<(), DmaError> {
    let source = context.transfer(from, len, MapFlags::READ)?;
    let destination = context.transfer(to, len, MapFlags::WRITE)?;
    let step = buffer.len().max(1);
    for done in (0..len).step_by(step) {
        let part = step.min(usize::try_from(len - done).unwrap_or(step));
        let bytes = buffer.get_mut(..part).unwrap_or_default();
        source.read_at(done, bytes)?;
        destination.write_at(done, bytes)?;
    }
    Ok(())
}
