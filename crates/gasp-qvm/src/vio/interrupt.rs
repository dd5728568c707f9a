//! Interrupts: a line with the interrupt status register (virtio 1.2, 4.2.2: InterruptStatus;
//! 4.1.4.5: ISR status), or MSI-X.

use gasp_virtio::transport::NO_VECTOR;
use parking_lot::Mutex;

use super::outside::Outside;
use super::registers::Transport;

/// What the driver is interrupted for: bits of the register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    Queue = 1,
    Config = 2,
}

/// The register. Its lock is held while the line is raised or lowered, so that the line is up when,
/// and only when, a bit is set.
#[derive(Debug, Default)]
pub(super) struct Isr(Mutex<u8>);

impl Isr {
    /// Interrupts the driver.
    pub(super) fn raise(
        &self,
        outside: &dyn Outside,
        transport: Transport,
        cause: Cause,
        vector: u16,
    ) {
        let mut isr = self.0.lock();
        *isr |= cause as u8;
        match transport {
            Transport::Pci if outside.uses_msix() => {
                if vector != NO_VECTOR {
                    outside.vector(vector);
                }
            }
            Transport::Pci | Transport::Mmio => outside.line(true),
        }
    }

    /// Reads it.
    pub(super) fn pending(&self) -> u8 {
        *self.0.lock()
    }

    /// Clears bits; the line goes down with the last one. Returns what it was.
    pub(super) fn clear(&self, outside: &dyn Outside, bits: u8) -> u8 {
        let mut isr = self.0.lock();
        let before = *isr;
        *isr &= !bits;
        if *isr == 0 {
            outside.line(false);
        }
        before
    }
}
