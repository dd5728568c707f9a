//! A device's interrupts: eventfds that the front end assigns.
//!
//! A VMM assigns an eventfd to each vector that it listens to, and removes it again; that alone
//! determines which kind of interrupt is in use. A vector is masked by the VMM, by the MSI-X table,
//! or by the function's mask bit; an interrupt that comes meanwhile is *pending*, and is delivered
//! once when the last mask is cleared. While the device is not bus master, all messages are pending:
//! they are writes to memory.
//!
//! The pin is level-triggered. Each delivery masks it, until the VMM unmasks it because the guest
//! has acknowledged it; if the device still holds it up then, it is delivered again. A front end
//! that has a line to set (`PinLine`) needs none of that.

use parking_lot::{Mutex, MutexGuard};

pub use self::state::PinLine;
use self::state::State;
use super::eventfd::{empty, is_full, notify};
use super::irq_kind::IrqKind;
use super::model::Model;

mod registers;
mod state;
#[cfg(test)]
mod tests;
mod vmm;

/// The interrupts of one device.
#[derive(Debug)]
pub struct Interrupts(Mutex<State>);

impl Interrupts {
    pub(crate) fn new(model: &Model) -> Self {
        Self(Mutex::new(State::new(model)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// How many vectors of this kind there are.
    pub fn count(&self, kind: IrqKind) -> u32 {
        u32::try_from(self.state().vectors(kind).len()).unwrap_or(u32::MAX)
    }

    /// How many vectors of this kind have an eventfd.
    pub fn assigned(&self, kind: IrqKind) -> usize {
        self.state().vectors(kind).iter().filter(|vector| vector.event.is_some()).count()
    }

    /// Whether this vector has an eventfd.
    pub fn is_assigned(&self, kind: IrqKind, vector: u32) -> bool {
        let state = self.state();
        let vector = state.vectors(kind).get(vector as usize);
        vector.is_some_and(|vector| vector.event.is_some())
    }

    /// Signals an interrupt of the device: `vector` by MSI-X or MSI if the VMM uses them, otherwise
    /// the pin, which stays up.
    pub fn signal(&self, vector: u16) {
        let mut state = self.state();
        for kind in [IrqKind::Msix, IrqKind::Msi] {
            let vectors = state.vectors(kind);
            // The guest may grant fewer MSI vectors than the device has: then they are shared.
            let granted = match kind {
                IrqKind::Msi => vectors.iter().take_while(|one| one.event.is_some()).count(),
                _ => vectors.len(),
            };
            if vectors.iter().any(|vector| vector.event.is_some()) {
                let index = match kind {
                    IrqKind::Msi => usize::from(vector) % granted.max(1),
                    _ => usize::from(vector),
                };
                let event = state.deliver(kind, index);
                drop(state);
                return notify(event);
            }
        }
        state.raised = true;
        state.follow_pin();
        let event = state.deliver(IrqKind::Pin, 0);
        drop(state);
        notify(event);
    }

    /// Lowers the pin.
    pub fn lower(&self) {
        let mut state = self.state();
        state.raised = false;
        state.follow_pin();
        if let Some(pin) = state.vectors_mut(IrqKind::Pin).first_mut() {
            pin.pending = false;
        }
    }

    /// Whether the device holds its pin up.
    pub fn is_raised(&self) -> bool {
        self.state().raised
    }

    /// Reports an error to the VMM, if it listens.
    pub fn signal_error(&self) {
        let event = self.state().deliver(IrqKind::Error, 0);
        notify(event);
    }

    /// Asks the VMM to release the device, if it listens.
    pub fn request_release(&self) {
        let event = self.state().deliver(IrqKind::Request, 0);
        notify(event);
    }

    /// Empties full counters, which unblocks whoever waits to write to them.
    pub(crate) fn empty_full_events(&self) {
        let events: Vec<_> = self.state().events().cloned().collect();
        for event in events.iter().filter(|event| event.shared && is_full(&event.fd)) {
            empty(&event.fd);
        }
    }

    /// Resets to the state after power-on; the VMM's eventfds and masks stay.
    pub(crate) fn reset(&self) {
        self.state().reset();
    }

    /// Drops all eventfds: the VMM has gone.
    pub(crate) fn detach_events(&self) {
        self.state().detach_events();
    }
}
