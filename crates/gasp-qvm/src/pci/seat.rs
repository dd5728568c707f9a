//! The place of an instance in front of a VMM: its [`Host`].

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use gasp_vdev::{Interrupts, IrqKind, Throttle};

use super::{Messages, OnFailure, PciFailure};
use crate::bar::Bar;
use crate::host::{End, Host};

/// What an instance signals, and how it ends.
pub(super) struct Seat {
    name: String,
    /// The function's interrupts; `None` for an instance that nobody is in front of.
    interrupts: Option<Arc<Interrupts>>,
    messages: Option<Messages>,
    on_failure: Option<OnFailure>,
    /// Whether the function is bus master when the instance is created.
    master: bool,
    /// It has failed: what it signals reaches nobody, and its registers are ones.
    signalled: AtomicBool,
    ended: AtomicBool,
    refused: Throttle,
}

impl Seat {
    pub(super) fn new(
        name: &str,
        interrupts: Option<&Arc<Interrupts>>,
        messages: Option<Messages>,
        on_failure: Option<OnFailure>,
        master: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            interrupts: interrupts.cloned(),
            messages,
            on_failure,
            master,
            ended: AtomicBool::new(false),
            signalled: AtomicBool::new(false),
            refused: Throttle::default(),
        })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The instance is over: what its threads, if any are left, signal reaches nobody.
    pub(super) fn leave(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether the instance has signalled anything: a reset has taken that back.
    pub(super) fn has_signalled(&self) -> bool {
        self.signalled.load(Ordering::Acquire)
    }

    fn signal(&self, vector: u16) {
        self.signalled.store(true, Ordering::Release);
        if let Some(interrupts) = self.interrupts.as_ref().filter(|_| !self.has_ended()) {
            interrupts.signal(vector);
        }
    }
}

impl Host for Seat {
    fn interrupt(&self, raised: bool) {
        match (raised, &self.interrupts) {
            (true, _) => self.signal(super::MSIX_VECTOR),
            (false, Some(interrupts)) => interrupts.lower(),
            (false, None) => {}
        }
    }

    fn raised_again(&self) {
        // The pin is up, and stays so; by MSI-X it is another message.
        self.signal(super::MSIX_VECTOR);
    }

    fn may_reach_memory(&self) -> bool {
        self.master
    }

    fn message(&self, addr: u64, data: u32) {
        if self.has_ended() {
            return;
        }
        match &self.messages {
            Some(send) => send(addr, data),
            None => {
                if let Some(count) = self.refused.next_logged() {
                    tracing::warn!(
                        vdev = %self.name,
                        count,
                        "guest_msi_signal: dropped, because the VMM keeps the addresses of messages \
                         to itself; signal v_intr, which is vector 0 of MSI-X"
                    );
                }
            }
        }
    }

    fn vector(&self, vector: u16) {
        self.signal(vector);
    }

    fn uses_msix(&self) -> bool {
        self.interrupts.as_ref().is_some_and(|irqs| irqs.assigned(IrqKind::Msix) > 0)
    }

    /// The VMM has the BARs, and the vdev the addresses that it was given: nothing moves.
    fn place_bars(&self, _: &[Bar]) -> bool {
        true
    }

    fn stuck(&self, end: &End) {
        self.end(end);
        if let Some(told) = &self.on_failure {
            told(&PciFailure::Stuck(end.clone()));
        }
    }

    fn end(&self, end: &End) {
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(vdev = %self.name, %end, "its registers read as ones from now on");
        if let Some(interrupts) = &self.interrupts {
            interrupts.lower();
        }
        if let Some(told) = &self.on_failure {
            told(&PciFailure::Ended(end.clone()));
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("name", &self.name).finish_non_exhaustive()
    }
}
