//! The first serial port of a PC: a 16550 at port 0x3f8, line 4.

mod input;
mod output;

use core::convert::Infallible;
use core::fmt;
use core::time::Duration;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial};

use crate::bus::BusDevice;
use crate::ending::Ending;
use crate::error::MachineError;
use crate::event::Line;
use crate::machine::Machine;
use output::Output;

/// The first of its ports, and how many there are.
pub(crate) const PORT: u16 = 0x3f8;
pub(crate) const PORTS: u8 = 8;
pub(crate) const LINE: u32 = 4;

/// A serial port.
///
/// What the guest sends goes to a writer, by a thread of its own: a vCPU waits for it only if a
/// mebibyte is queued, and no longer than until the VM ends.
pub struct SerialPort {
    serial: Mutex<Serial<Edge, NoEvents, output::Sink>>,
    /// The guest has read, so there may be room for more.
    room: Condvar,
    output: Output,
    ending: Ending,
}

impl SerialPort {
    /// Connects a serial port to the VM, whose output goes to `out`.
    ///
    /// # Errors
    /// [`MachineError::Bus`] if something is at its ports; [`MachineError::Kvm`] if the VM has no
    /// interrupt controllers; [`MachineError::Host`] if the thread cannot be started.
    pub fn connect(
        machine: &Machine,
        out: impl Write + Send + 'static,
    ) -> Result<Arc<Self>, MachineError> {
        let line = machine.line(LINE)?;
        let ending = machine.ending().clone();
        let (output, sink) = Output::start(out, ending.clone())?;
        let serial = Mutex::new(Serial::new(Edge(line), sink));
        let port = Arc::new(Self { serial, room: Condvar::new(), output, ending });
        machine.ports().add(u64::from(PORT), u64::from(PORTS), port.clone())?;
        Ok(port)
    }

    /// Sends bytes to the guest, and waits until it has room for them. Returns `false` if the VM
    /// has ended before.
    pub fn send(&self, mut bytes: &[u8]) -> bool {
        let mut serial = self.serial.lock();
        while !bytes.is_empty() {
            if self.ending.is_requested() {
                return false;
            }
            // It fails only if there is no room, and takes nothing in loopback mode.
            let taken = serial.enqueue_raw_bytes(bytes).unwrap_or(0);
            bytes = bytes.get(taken..).unwrap_or_default();
            if taken == 0 {
                self.room.wait_for(&mut serial, output::LOOK);
            }
        }
        true
    }

    /// Sends what is read from `source` to the guest, by a thread, until the VM ends or the source
    /// does. On a terminal Ctrl-A x ends the VM, and Ctrl-A Ctrl-A sends one Ctrl-A.
    ///
    /// If the guest does not read, a pipe or a file is not read either. A terminal is, so that its
    /// keys work: about a thousand wait for the guest, and further ones are lost.
    ///
    /// # Errors
    /// [`MachineError::Host`] if the thread cannot be started.
    pub fn read_from(
        self: &Arc<Self>,
        source: impl AsFd + Send + 'static,
    ) -> Result<JoinHandle<()>, MachineError> {
        input::start(Arc::clone(self), self.ending.clone(), source)
    }

    /// Waits until everything that the guest has sent is written, at most this long. Returns
    /// whether it is.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.output.flush(timeout)
    }
}

impl BusDevice for SerialPort {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut serial = self.serial.lock();
        for (at, byte) in (offset..).zip(data) {
            *byte = u8::try_from(at).map_or(0xff, |at| serial.read(at));
        }
        self.room.notify_all();
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut serial = self.serial.lock();
        for (at, &byte) in (offset..).zip(data) {
            if let Ok(at) = u8::try_from(at) {
                // Neither the line nor the queue of the output fails.
                let _ = serial.write(at, byte);
            }
        }
    }
}

/// A line as vm-superio raises it.
struct Edge(Line);

impl Trigger for Edge {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.pulse();
        Ok(())
    }
}

impl fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SerialPort").field("line", &LINE).finish_non_exhaustive()
    }
}
