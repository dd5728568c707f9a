//! Interrupts as the VMM controls them: eventfds, masks, triggers.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::super::eventfd::{Event, empty, notify, prepare_event};
use super::super::irq_kind::IrqKind;
use super::Interrupts;
use super::state::{PinLine, Vector};
use crate::error::IrqError;

impl Interrupts {
    /// Assigns eventfds to the vectors from `start` on, or removes them (`None`).
    ///
    /// The descriptors become non-blocking, so that a full counter cannot block the device.
    ///
    /// # Errors
    /// `EINVAL` if the device has fewer vectors, or a descriptor is not an eventfd. Then no vector
    /// changes, and the descriptors are closed without waiting for whoever serves their files.
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
                let removed = event.is_none();
                vector.event = event.map(|fd| Arc::new(Event { fd, shared: true }));
                if removed {
                    vector.masked = false;
                }
            }
            due.extend(state.deliver_pending(kind, index));
        }
        drop(state);
        notify(due);
        Ok(())
    }

    /// Assigns an eventfd that is not blocking and that no peer shares, such as an irqfd of KVM: an
    /// interrupt is one write to it.
    ///
    /// # Errors
    /// `EINVAL` if the device has fewer vectors.
    pub fn connect(&self, kind: IrqKind, vector: u32, event: OwnedFd) -> Result<(), IrqError> {
        let mut state = self.state();
        let range = state.range(kind, vector, 1)?;
        let index = range.start;
        if let Some(vector) = state.vectors_mut(kind).get_mut(index) {
            vector.event = Some(Arc::new(Event { fd: event, shared: false }));
        }
        let due = state.deliver_pending(kind, index);
        drop(state);
        notify(due);
        Ok(())
    }

    /// Has `line` follow the interrupt pin, until [`disable`](Self::disable) of it lowers the line:
    /// raised while the device holds the pin up and the command register does not disable it.
    ///
    /// # Errors
    /// `EINVAL` if the device has no pin.
    pub fn connect_pin(&self, line: Arc<dyn PinLine>) -> Result<(), IrqError> {
        let mut state = self.state();
        state.range(IrqKind::Pin, 0, 1)?;
        state.set_line(Some(line));
        Ok(())
    }

    /// Removes all eventfds of this kind, and the line of the pin.
    pub fn disable(&self, kind: IrqKind) {
        let mut state = self.state();
        state.vectors_mut(kind).iter_mut().for_each(Vector::detach_event);
        if kind == IrqKind::Pin {
            state.unmask = None;
            state.set_line(None);
        }
    }

    /// Masks or unmasks the vectors from `start` on for which `which` is `true`.
    ///
    /// # Errors
    /// `EINVAL` if the device has fewer vectors.
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
            due.extend(state.deliver_pending(kind, index));
        }
        drop(state);
        notify(due);
        Ok(())
    }

    /// Signals the vectors from `start` on for which `which` is `true`, as the device would.
    ///
    /// # Errors
    /// `EINVAL` if the device has fewer vectors.
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

    /// Sets the eventfd by which the VMM unmasks the pin without a message; `None` removes it. The
    /// front end polls it, and calls [`take_unmask_event`](Self::take_unmask_event).
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

    /// The eventfd set by [`set_unmask_event`](Self::set_unmask_event), if any.
    pub fn unmask_event(&self) -> Option<Arc<OwnedFd>> {
        self.state().unmask.clone()
    }

    /// Unmasks the pin if the VMM has signalled [that eventfd](Self::unmask_event).
    pub fn take_unmask_event(&self) {
        if self.unmask_event().is_some_and(|event| empty(&event)) {
            self.unmask_pin();
        }
    }

    /// Unmasks the pin, which the guest has acknowledged; it is delivered again if it is still up.
    pub fn unmask_pin(&self) {
        // A device without a pin has nothing to unmask.
        let _ = self.set_masked(IrqKind::Pin, 0, &[true], false);
    }
}
