//! Interrupts: MSI-X if the guest uses it, otherwise the pin and the ISR status register (virtio
//! 1.2, 4.1.4.5 and 4.1.5.3).

use gasp_vdev::{DeviceContext, IrqKind};
use parking_lot::Mutex;

use super::queue_config::NO_VECTOR;

/// What the driver is interrupted for: bits of the ISR status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    Queue = 1,
    Config = 2,
}

/// The ISR status register. Its lock is held while the pin is raised or lowered, so that the pin is
/// up when, and only when, a bit is set.
#[derive(Debug, Default)]
pub(super) struct Isr(Mutex<u8>);

impl Isr {
    /// Interrupts the driver.
    pub(super) fn raise(&self, context: &DeviceContext, cause: Cause, vector: u16) {
        let mut isr = self.0.lock();
        *isr |= cause as u8;
        match context.interrupts().assigned(IrqKind::Msix) {
            0 => context.signal(0),
            _ if vector == NO_VECTOR => {}
            _ => context.signal(vector),
        }
    }

    /// Reads the register, which clears it and lowers the pin.
    pub(super) fn take(&self, context: &DeviceContext) -> u8 {
        let mut isr = self.0.lock();
        context.lower();
        core::mem::take(&mut *isr)
    }

    /// Clears the register: the device is reset.
    pub(super) fn clear(&self) {
        *self.0.lock() = 0;
    }
}
