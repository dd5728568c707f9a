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

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::eventfd::{empty, is_full, notify, prepare_event};
use super::irq_kind::IrqKind;
use super::model::Model;
use crate::error::IrqError;

/// The interrupts of one device.
#[derive(Debug)]
pub struct Interrupts(Mutex<State>);

#[derive(Debug)]
struct State {
    kinds: [Vec<Vector>; 5],
    /// The function's mask bit in the MSI-X capability.
    function_masked: bool,
    /// Whether the command register switches the pin off.
    pin_disabled: bool,
    /// Whether the device holds the pin up.
    raised: bool,
    /// What the VMM signals to unmask the pin, if it does so without a message.
    unmask: Option<Arc<OwnedFd>>,
}

#[derive(Debug, Default)]
struct Vector {
    event: Option<Arc<OwnedFd>>,
    masked: bool,
    table_masked: bool,
    pending: bool,
}

impl Interrupts {
    pub(crate) fn new(model: &Model) -> Self {
        let vectors = |count: u16| (0..count).map(|_| Vector::default()).collect();
        let msix = model.msix.map_or(0, |msix| msix.vectors);
        let kinds = [
            vectors(u16::from(model.pin)),
            vectors(u16::from(model.msi)),
            vectors(msix),
            vectors(1),
            vectors(1),
        ];
        Self(Mutex::new(State {
            kinds,
            function_masked: false,
            pin_disabled: false,
            raised: false,
            unmask: None,
        }))
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

    /// Gives vectors from `start` on their eventfds, or takes them away (`None`).
    ///
    /// The descriptors are made non-blocking, so that a full counter cannot hold up the
    /// device.
    ///
    /// # Errors
    /// `EINVAL` if there are not so many vectors, or a descriptor is not an eventfd;
    /// nothing changes then, and the descriptors are closed without
    /// waiting for whoever serves their files.
    pub fn assign(
        &self,
        kind: IrqKind,
        start: u32,
        events: Vec<Option<OwnedFd>>,
    ) -> Result<(), IrqError> {
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        let mut state = self.state();
        let checked = state.range(kind, start, count).and_then(|range| {
            events.iter().flatten().try_for_each(|event| prepare_event(kind, event.as_fd()))?;
            Ok(range)
        });
        let range = match checked {
            Ok(range) => range,
            Err(error) => {
                drop(state);
                events.into_iter().flatten().for_each(gasp::ffi::close);
                return Err(error);
            }
        };
        let mut due = Vec::new();
        for (index, event) in range.zip(events) {
            if let Some(vector) = state.vectors_mut(kind).get_mut(index) {
                let taken = event.is_none();
                vector.event = event.map(Arc::new);
                if taken {
                    vector.masked = false;
                }
            }
            due.extend(state.settle(kind, index));
        }
        drop(state);
        notify(due);
        Ok(())
    }

    /// Takes all eventfds of this kind away.
    pub fn disable(&self, kind: IrqKind) {
        let mut state = self.state();
        state.vectors_mut(kind).iter_mut().for_each(Vector::forget);
        if kind == IrqKind::Pin {
            state.unmask = None;
        }
    }

    /// Masks or unmasks vectors for which `which` has `true`.
    ///
    /// # Errors
    /// `EINVAL` if there are not so many vectors.
    pub fn set_masked(
        &self,
        kind: IrqKind,
        start: u32,
        which: &[bool],
        masked: bool,
    ) -> Result<(), IrqError> {
        let mut state = self.state();
        let range = state.range(kind, start, u32::try_from(which.len()).unwrap_or(u32::MAX))?;
        let mut due = Vec::new();
        for (index, _) in range.zip(which).filter(|(_, chosen)| **chosen) {
            if let Some(vector) = state.vectors_mut(kind).get_mut(index) {
                vector.masked = masked;
            }
            due.extend(state.settle(kind, index));
        }
        drop(state);
        notify(due);
        Ok(())
    }

    /// Signals vectors for which `which` has `true`, as the device would.
    ///
    /// # Errors
    /// `EINVAL` if there are not so many vectors.
    pub fn trigger(&self, kind: IrqKind, start: u32, which: &[bool]) -> Result<(), IrqError> {
        let mut state = self.state();
        let range = state.range(kind, start, u32::try_from(which.len()).unwrap_or(u32::MAX))?;
        let mut due = Vec::new();
        for (index, _) in range.zip(which).filter(|(_, chosen)| **chosen) {
            due.extend(state.deliver(kind, index));
        }
        drop(state);
        notify(due);
        Ok(())
    }

    /// An eventfd by which the VMM unmasks the pin without a message; `None` takes it
    /// away. The front end listens to it, and calls
    /// [`take_unmask_event`](Self::take_unmask_event).
    ///
    /// # Errors
    /// `EINVAL` if the device has no pin, or the descriptor is not an eventfd; it is closed as
    /// by [`assign`](Self::assign).
    pub fn set_unmask_event(&self, event: Option<OwnedFd>) -> Result<(), IrqError> {
        let mut state = self.state();
        let checked = state.range(IrqKind::Pin, 0, 1).and_then(|_| {
            event.iter().try_for_each(|event| prepare_event(IrqKind::Pin, event.as_fd()))
        });
        if let Err(error) = checked {
            drop(state);
            event.into_iter().for_each(gasp::ffi::close);
            return Err(error);
        }
        state.unmask = event.map(Arc::new);
        Ok(())
    }

    /// The eventfd that [`set_unmask_event`](Self::set_unmask_event) was given.
    pub fn unmask_event(&self) -> Option<Arc<OwnedFd>> {
        self.state().unmask.clone()
    }

    /// Looks whether the VMM has signalled [that eventfd](Self::unmask_event), and unmasks
    /// the pin then.
    pub fn take_unmask_event(&self) {
        if self.unmask_event().is_some_and(|event| empty(&event)) {
            self.unmask_pin();
        }
    }

    /// Frees whoever waits to write to a counter that is full.
    pub(crate) fn empty_full(&self) {
        let state = self.state();
        let events = state.kinds.iter().flatten().filter_map(|vector| vector.event.clone());
        let events: Vec<_> = events.collect();
        drop(state);
        for event in events.iter().filter(|event| is_full(event)) {
            empty(event);
        }
    }

    /// The guest has acknowledged the pin; it is delivered again if it is still up.
    pub fn unmask_pin(&self) {
        // A device without a pin has nothing to unmask.
        let _ = self.set_masked(IrqKind::Pin, 0, &[true], false);
    }

    pub(crate) fn set_table_mask(&self, vector: usize, masked: bool) {
        let mut state = self.state();
        if let Some(vector) = state.vectors_mut(IrqKind::Msix).get_mut(vector) {
            vector.table_masked = masked;
        }
        let event = state.settle(IrqKind::Msix, vector);
        drop(state);
        notify(event);
    }

    pub(crate) fn set_function_mask(&self, masked: bool) {
        let mut state = self.state();
        state.function_masked = masked;
        let mut due = Vec::new();
        for index in 0..state.vectors(IrqKind::Msix).len() {
            due.extend(state.settle(IrqKind::Msix, index));
        }
        drop(state);
        notify(due);
    }

    pub(crate) fn set_pin_disabled(&self, disabled: bool) {
        let mut state = self.state();
        state.pin_disabled = disabled;
        let event = state.settle(IrqKind::Pin, 0);
        drop(state);
        notify(event);
    }

    /// The pending bits of the 64 vectors from `64 * word` on.
    pub(crate) fn pending(&self, word: usize) -> u64 {
        let state = self.state();
        let vectors = state.vectors(IrqKind::Msix).iter().skip(64 * word).take(64);
        vectors.enumerate().fold(0, |bits, (index, one)| bits | u64::from(one.pending) << index)
    }

    /// As after power-on, except that the VMM's eventfds and masks stay.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        state.function_masked = false;
        state.pin_disabled = false;
        state.raised = false;
        for vector in state.kinds.iter_mut().flatten() {
            vector.pending = false;
            vector.table_masked = false;
        }
    }

    /// The VMM is gone, and its eventfds with it.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.kinds.iter_mut().flatten().for_each(Vector::forget);
        state.unmask = None;
    }
}

impl State {
    fn vectors(&self, kind: IrqKind) -> &Vec<Vector> {
        let [pin, msi, msix, error, request] = &self.kinds;
        match kind {
            IrqKind::Pin => pin,
            IrqKind::Msi => msi,
            IrqKind::Msix => msix,
            IrqKind::Error => error,
            IrqKind::Request => request,
        }
    }

    fn vectors_mut(&mut self, kind: IrqKind) -> &mut Vec<Vector> {
        let [pin, msi, msix, error, request] = &mut self.kinds;
        match kind {
            IrqKind::Pin => pin,
            IrqKind::Msi => msi,
            IrqKind::Msix => msix,
            IrqKind::Error => error,
            IrqKind::Request => request,
        }
    }

    fn range(
        &self,
        kind: IrqKind,
        start: u32,
        count: u32,
    ) -> Result<core::ops::Range<usize>, IrqError> {
        let have = u32::try_from(self.vectors(kind).len()).unwrap_or(u32::MAX);
        match start.checked_add(count) {
            Some(end) if end <= have => Ok(start as usize..end as usize),
            _ => Err(IrqError::OutOfRange { kind, start, count, have }),
        }
    }

    /// Delivers an interrupt, or notes that it is pending. Gives back what to
    /// [signal](notify).
    #[must_use]
    fn deliver(&mut self, kind: IrqKind, index: usize) -> Option<Arc<OwnedFd>> {
        let used = self.vectors(kind).iter().any(|vector| vector.event.is_some());
        if let Some(vector) = self.vectors_mut(kind).get_mut(index) {
            // What nobody has ever asked for is not kept for later.
            vector.pending = used;
        }
        self.settle(kind, index)
    }

    /// Delivers what is pending and no longer masked. Gives back what to [signal](notify).
    #[must_use]
    fn settle(&mut self, kind: IrqKind, index: usize) -> Option<Arc<OwnedFd>> {
        let held_back = match kind {
            IrqKind::Pin => self.pin_disabled,
            IrqKind::Msix => self.function_masked,
            _ => false,
        };
        let raised = kind == IrqKind::Pin && self.raised;
        let vector = self.vectors_mut(kind).get_mut(index)?;
        if held_back || vector.masked || vector.table_masked || !(vector.pending || raised) {
            return None;
        }
        let event = vector.event.clone()?;
        vector.pending = false;
        vector.masked |= kind == IrqKind::Pin;
        Some(event)
    }
}

impl Vector {
    fn forget(&mut self) {
        self.event = None;
        self.masked = false;
        self.pending = false;
    }
}

#[cfg(test)]
mod tests;
