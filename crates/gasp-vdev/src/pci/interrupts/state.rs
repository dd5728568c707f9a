//! The state of each vector, and when an interrupt is delivered or stays pending. Nothing here
//! signals: what is due is returned, for `notify` once the lock is released.

use core::fmt;
use core::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::eventfd::Event;
use super::super::irq_kind::IrqKind;
use super::super::model::Model;
use crate::error::IrqError;

/// The line that an interrupt pin leads to.
pub trait PinLine: fmt::Debug + Send + Sync {
    /// Sets the pin's level. Called for each change, in order, under the lock of the device's
    /// interrupts: it must not call them.
    fn set(&self, raised: bool);
}

#[derive(Debug)]
pub(super) struct State {
    kinds: [Vec<Vector>; 5],
    /// The function's mask bit in the MSI-X capability.
    pub(super) function_masked: bool,
    /// Whether the device is bus master: a message is a write to memory.
    pub(super) is_master: bool,
    /// Whether the command register disables the pin.
    pub(super) pin_disabled: bool,
    /// Whether the device holds the pin up.
    pub(super) raised: bool,
    /// What the VMM signals to unmask the pin, if it does so without a message.
    pub(super) unmask: Option<Arc<OwnedFd>>,
    /// The line that follows the pin.
    line: Option<Arc<dyn PinLine>>,
    /// Its level.
    level: bool,
}

#[derive(Debug, Default)]
pub(super) struct Vector {
    pub(super) event: Option<Arc<Event>>,
    pub(super) masked: bool,
    pub(super) table_masked: bool,
    pub(super) pending: bool,
}

impl State {
    pub(super) fn new(model: &Model) -> Self {
        let vectors = |count: u16| (0..count).map(|_| Vector::default()).collect();
        let msix = model.msix.map_or(0, |msix| msix.vectors);
        let kinds = [
            vectors(u16::from(model.pin)),
            vectors(u16::from(model.msi)),
            vectors(msix),
            vectors(1),
            vectors(1),
        ];
        Self {
            kinds,
            function_masked: false,
            is_master: false,
            pin_disabled: false,
            raised: false,
            unmask: None,
            line: None,
            level: false,
        }
    }

    pub(super) fn vectors(&self, kind: IrqKind) -> &Vec<Vector> {
        let [pin, msi, msix, error, request] = &self.kinds;
        match kind {
            IrqKind::Pin => pin,
            IrqKind::Msi => msi,
            IrqKind::Msix => msix,
            IrqKind::Error => error,
            IrqKind::Request => request,
        }
    }

    pub(super) fn vectors_mut(&mut self, kind: IrqKind) -> &mut Vec<Vector> {
        let [pin, msi, msix, error, request] = &mut self.kinds;
        match kind {
            IrqKind::Pin => pin,
            IrqKind::Msi => msi,
            IrqKind::Msix => msix,
            IrqKind::Error => error,
            IrqKind::Request => request,
        }
    }

    /// All eventfds of vectors.
    pub(super) fn events(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.kinds.iter().flatten().filter_map(|vector| vector.event.as_ref())
    }

    pub(super) fn range(
        &self,
        kind: IrqKind,
        start: u32,
        count: u32,
    ) -> Result<Range<usize>, IrqError> {
        let have = u32::try_from(self.vectors(kind).len()).unwrap_or(u32::MAX);
        match start.checked_add(count) {
            Some(end) if end <= have => Ok(start as usize..end as usize),
            _ => Err(IrqError::OutOfRange { kind, start, count, have }),
        }
    }

    /// Delivers an interrupt, or marks it as pending. Returns the eventfd to signal.
    #[must_use]
    pub(super) fn deliver(&mut self, kind: IrqKind, index: usize) -> Option<Arc<Event>> {
        let used = self.vectors(kind).iter().any(|vector| vector.event.is_some());
        if let Some(vector) = self.vectors_mut(kind).get_mut(index) {
            // Without an eventfd of this kind nobody listens, and nothing is kept for later.
            vector.pending = used;
        }
        self.deliver_pending(kind, index)
    }

    /// Delivers an interrupt that is pending and no longer masked. Returns the eventfd to signal.
    #[must_use]
    pub(super) fn deliver_pending(&mut self, kind: IrqKind, index: usize) -> Option<Arc<Event>> {
        let held_back = match kind {
            IrqKind::Pin => self.pin_disabled,
            IrqKind::Msix => self.function_masked || !self.is_master,
            IrqKind::Msi => !self.is_master,
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

    /// Delivers messages that are pending and no longer masked. Returns the eventfds to signal.
    #[must_use]
    pub(super) fn deliver_messages(&mut self) -> Vec<Arc<Event>> {
        let mut due = Vec::new();
        for kind in [IrqKind::Msix, IrqKind::Msi] {
            for index in 0..self.vectors(kind).len() {
                due.extend(self.deliver_pending(kind, index));
            }
        }
        due
    }

    /// Has another line follow the pin, or none. The one before is lowered.
    pub(super) fn set_line(&mut self, line: Option<Arc<dyn PinLine>>) {
        if let Some(line) = self.line.take().filter(|_| self.level) {
            line.set(false);
        }
        (self.line, self.level) = (line, false);
        self.follow_pin();
    }

    /// Sets the line to the pin's level.
    pub(super) fn follow_pin(&mut self) {
        let level = self.raised && !self.pin_disabled;
        if let Some(line) = self.line.as_ref().filter(|_| self.level != level) {
            line.set(level);
            self.level = level;
        }
    }

    /// Resets to the state after power-on; the VMM's eventfds and masks stay.
    pub(super) fn reset(&mut self) {
        self.function_masked = false;
        self.is_master = false;
        self.pin_disabled = false;
        self.raised = false;
        self.follow_pin();
        for vector in self.kinds.iter_mut().flatten() {
            vector.pending = false;
            vector.table_masked = false;
        }
    }

    /// Drops all eventfds.
    pub(super) fn detach_events(&mut self) {
        self.kinds.iter_mut().flatten().for_each(Vector::detach_event);
        self.unmask = None;
        self.set_line(None);
    }
}

impl Vector {
    pub(super) fn detach_event(&mut self) {
        self.event = None;
        self.masked = false;
        self.pending = false;
    }
}
