//! Power-off, reset and the power button, as the [ACPI tables](crate::acpi) describe them.
//!
//! There is no PM1 block, no SCI and no keyboard controller: ACPI is *hardware-reduced*. The guest
//! switches itself off by the sleep control register, resets itself by the reset register, and
//! learns of the power button from an edge on a line of a generic event device.

use std::sync::Arc;

use crate::bus::BusDevice;
use crate::ending::{End, Ending};
use crate::error::MachineError;
use crate::event::Line;
use crate::machine::Machine;

/// The sleep control register, the sleep status register and the reset register, a byte each.
pub(crate) const SLEEP_CONTROL: u16 = 0x600;
pub(crate) const SLEEP_STATUS: u16 = 0x601;
pub(crate) const RESET: u16 = 0x602;
const PORTS: u64 = 3;
/// What the guest writes to the reset register.
pub(crate) const RESET_VALUE: u8 = 1;
/// The line of the generic event device.
pub(crate) const EVENT_LINE: u32 = 9;

/// The type of sleep that is power-off, `\_S5`, and its place in the sleep control register.
pub(crate) const SOFT_OFF: u8 = 5;
const TYPE_SHIFT: u8 = 2;
const TYPE_MASK: u8 = 7 << TYPE_SHIFT;
const ENABLE: u8 = 1 << 5;
/// What the guest writes to the sleep control register.
const POWER_OFF: u8 = SOFT_OFF << TYPE_SHIFT | ENABLE;

/// The power button of a VM.
#[derive(Debug)]
pub struct PowerButton(Line);

impl PowerButton {
    /// Connects the registers for power-off and reset, and the power button.
    ///
    /// # Errors
    /// [`MachineError::Bus`] if something is at ports 0x600 to 0x602; [`MachineError::Kvm`] if the
    /// VM has no interrupt controllers.
    pub fn connect(machine: &Machine) -> Result<Self, MachineError> {
        let line = machine.line(EVENT_LINE)?;
        let registers = Registers(machine.ending().clone());
        machine.ports().add(u64::from(SLEEP_CONTROL), PORTS, Arc::new(registers))?;
        Ok(Self(line))
    }

    /// Presses the button: a guest that listens powers itself off.
    pub fn press(&self) {
        self.0.pulse();
    }
}

struct Registers(Ending);

impl BusDevice for Registers {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        for (at, &value) in (offset..).zip(data) {
            match u16::try_from(at).map(|at| SLEEP_CONTROL.saturating_add(at)) {
                Ok(SLEEP_CONTROL) if value & (ENABLE | TYPE_MASK) == POWER_OFF => {
                    self.0.request(End::PowerOff);
                }
                Ok(RESET) if value == RESET_VALUE => {
                    self.0.request(End::Reset);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::gate::Gate;

    #[test]
    fn only_what_the_tables_say_ends_the_vm() {
        let end_of = |offset, data: &[u8]| {
            let ending = Ending::new(Arc::new(Gate::default()));
            Registers(ending.clone()).write(offset, data);
            ending.wait_for(Duration::ZERO)
        };
        assert_eq!(end_of(0, &[0x34]), Some(End::PowerOff));
        assert_eq!(end_of(0, &[0x14]), None, "not enabled");
        assert_eq!(end_of(0, &[0x20]), None, "another state");
        assert_eq!(end_of(1, &[0x34]), None);
        assert_eq!(end_of(2, &[1]), Some(End::Reset));
        assert_eq!(end_of(2, &[2]), None);
        assert_eq!(end_of(1, &[0, 1]), Some(End::Reset), "two registers at once");
    }
}
