//! Interrupt pins: level-triggered lines of the I/O APIC, each shared by several devices.

use core::fmt;
use std::sync::Arc;

use gasp_vdev::PinLine;
use kvm_ioctls::VmFd;
use parking_lot::Mutex;

use super::address::Bdf;

/// The lines that pins lead to: the first, and how many.
const FIRST: u32 = 16;
const COUNT: u32 = 8;

/// The line that pin `pin` (0 is INTA) of a device leads to.
pub(super) fn line_of(at: Bdf, pin: u32) -> u32 {
    FIRST + (u32::from(at.device()) + pin) % COUNT
}

/// The lines, and how many devices hold each of them up.
pub(super) struct Pins {
    vm: Arc<VmFd>,
    holders: Mutex<[u32; COUNT as usize]>,
}

impl Pins {
    pub(super) fn new(vm: &Arc<VmFd>) -> Arc<Self> {
        Arc::new(Self { vm: Arc::clone(vm), holders: Mutex::default() })
    }

    /// A device's connection to a line.
    pub(super) fn pin(self: &Arc<Self>, line: u32) -> Arc<dyn PinLine> {
        Arc::new(Pin { pins: Arc::clone(self), line })
    }
}

struct Pin {
    pins: Arc<Pins>,
    line: u32,
}

impl PinLine for Pin {
    fn set(&self, raised: bool) {
        let mut holders = self.pins.holders.lock();
        let index = self.line.checked_sub(FIRST).and_then(|index| usize::try_from(index).ok());
        let Some(count) = index.and_then(|index| holders.get_mut(index)) else { return };
        // A device changes its level each time it calls.
        *count = if raised { count.saturating_add(1) } else { count.saturating_sub(1) };
        let changed = *count == u32::from(raised);
        if changed && let Err(error) = self.pins.vm.set_irq_line(self.line, raised) {
            tracing::error!(%error, line = self.line, "an interrupt line stays as it is");
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin").field("line", &self.line).finish_non_exhaustive()
    }
}
