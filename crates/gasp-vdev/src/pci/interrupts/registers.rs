//! Interrupts as the guest's registers control them: the command register, the MSI-X capability,
//! its table and its pending bits.

use super::super::eventfd::notify;
use super::super::irq_kind::IrqKind;
use super::Interrupts;

impl Interrupts {
    pub(crate) fn set_table_mask(&self, vector: usize, masked: bool) {
        let mut state = self.state();
        if let Some(vector) = state.vectors_mut(IrqKind::Msix).get_mut(vector) {
            vector.table_masked = masked;
        }
        let event = state.deliver_pending(IrqKind::Msix, vector);
        drop(state);
        notify(event);
    }

    pub(crate) fn set_function_mask(&self, masked: bool) {
        let mut state = self.state();
        if core::mem::replace(&mut state.function_masked, masked) == masked {
            return;
        }
        let due = state.deliver_messages();
        drop(state);
        notify(due);
    }

    pub(crate) fn set_master(&self, is_master: bool) {
        let mut state = self.state();
        if core::mem::replace(&mut state.is_master, is_master) == is_master {
            return;
        }
        let due = state.deliver_messages();
        drop(state);
        notify(due);
    }

    pub(crate) fn set_pin_disabled(&self, disabled: bool) {
        let mut state = self.state();
        state.pin_disabled = disabled;
        state.follow_pin();
        let event = state.deliver_pending(IrqKind::Pin, 0);
        drop(state);
        notify(event);
    }

    /// The pending bits of the 64 vectors from `64 * word` on.
    pub(crate) fn pending(&self, word: usize) -> u64 {
        let state = self.state();
        let vectors = state.vectors(IrqKind::Msix).iter().skip(64 * word).take(64);
        vectors.enumerate().fold(0, |bits, (index, one)| bits | u64::from(one.pending) << index)
    }
}
