//! Interrupts, as eventfds that the front end hands in.
//!
//! A VMM gives the device an eventfd for each vector that it wants to hear of, and takes
//! it away again; that alone says which kind of interrupt is in use. A vector is masked
//! by the VMM, by the MSI-X table, or by the function's mask bit; what comes meanwhile is
//! *pending*, and is delivered once when the last mask goes.
//!
//! The pin is a level. Each time it is delivered it masks itself, until the VMM unmasks it
//! because the guest has acknowledged it; if the device still holds it up then, it is
//! delivered again.

use parking_lot::{Mutex, MutexGuard};

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

    /// Whether the VMM hears of this vector.
    pub fn is_assigned(&self, kind: IrqKind, vector: u32) -> bool {
        let state = self.state();
        let vector = state.vectors(kind).get(vector as usize);
        vector.is_some_and(|vector| vector.event.is_some())
    }

    /// A device's own interrupt: `vector` by MSI-X or MSI where the VMM uses them,
    /// otherwise the pin, which stays up.
    pub fn signal(&self, vector: u16) {
        let mut state = self.state();
        for kind in [IrqKind::Msix, IrqKind::Msi] {
            let vectors = state.vectors(kind);
            // MSI may be granted fewer vectors than the device has: then they are shared.
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
        let event = state.deliver(IrqKind::Pin, 0);
        drop(state);
        notify(event);
    }

    /// Lowers the pin.
    pub fn lower(&self) {
        let mut state = self.state();
        state.raised = false;
        if let Some(pin) = state.vectors_mut(IrqKind::Pin).first_mut() {
            pin.pending = false;
        }
    }

    /// Whether the device holds its pin up.
    pub fn is_raised(&self) -> bool {
        self.state().raised
    }

    /// Tells the VMM of an error, if it listens.
    pub fn signal_error(&self) {
        let event = self.state().deliver(IrqKind::Error, 0);
        notify(event);
    }

    /// Asks the VMM to let go of the device, if it listens.
    pub fn request_release(&self) {
        let event = self.state().deliver(IrqKind::Request, 0);
        notify(event);
    }

    /// Frees whoever waits to write to a counter that is full.
    pub(crate) fn empty_full_events(&self) {
        let events: Vec<_> = self.state().events().cloned().collect();
        for event in events.iter().filter(|event| is_full(event)) {
            empty(event);
        }
    }

    /// As after power-on, except that the VMM's eventfds and masks stay.
    pub(crate) fn reset(&self) {
        self.state().reset();
    }

    /// The VMM is gone, and its eventfds with it.
    pub(crate) fn detach_events(&self) {
        self.state().detach_events();
    }
}
