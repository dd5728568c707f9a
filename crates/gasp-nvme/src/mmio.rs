//! What the front end's thread writes and the device's thread reads: registers, doorbells, and
//! whether the device's thread has to be woken.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::registers::{DOORBELLS, Effect, Registers};
use gasp_vdev::{DeviceContext, Register, Width};

/// Set in a doorbell that was written and not read since.
const FRESH: u32 = 1 << 16;

/// Shared by both threads.
#[derive(Debug)]
pub(super) struct Mmio {
    registers: Mutex<Registers>,
    /// The registers have changed and the device's thread has not handled it.
    registers_changed: AtomicBool,
    /// Tail and head doorbell of each pair of queues.
    doorbells: Box<[[AtomicU32; 2]]>,
    /// A doorbell that does not exist was written.
    stray: AtomicBool,
    /// The device's thread has nothing to do, and has to be woken if that changes.
    asleep: AtomicBool,
}

impl Mmio {
    pub(super) fn new(pairs: u16) -> Self {
        Self {
            registers: Mutex::default(),
            registers_changed: AtomicBool::new(false),
            doorbells: (0..pairs).map(|_| Default::default()).collect(),
            stray: AtomicBool::new(false),
            asleep: AtomicBool::new(true),
        }
    }

    /// Locks the registers, for a moment at a time.
    pub(super) fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock()
    }

    /// Writes a register or a doorbell for the guest.
    pub(super) fn write(&self, device: &DeviceContext, at: Register, value: u64) {
        let Some(doorbell) = at.offset.checked_sub(DOORBELLS) else {
            if self.registers().write(at, value) == Effect::Handle {
                self.registers_changed.store(true, Ordering::SeqCst);
                self.wake(device);
            }
            return;
        };
        // Any other access to a doorbell has no meaning (NVMe 1.4, 3.1).
        if at.width != Width::Four {
            return;
        }
        let [pair, side] = [doorbell / 8, doorbell / 4 % 2];
        match self.doorbell(pair, side as usize) {
            // The upper half is reserved.
            Some(cell) => cell.store(value as u32 & 0xffff | FRESH, Ordering::SeqCst),
            None => self.stray.store(true, Ordering::SeqCst),
        }
        self.wake(device);
    }

    fn doorbell(&self, pair: u64, side: usize) -> Option<&AtomicU32> {
        self.doorbells.get(usize::try_from(pair).ok()?)?.get(side)
    }

    /// Wakes the device's thread, unless it is at work and will notice by itself.
    fn wake(&self, device: &DeviceContext) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            device.ring();
        }
    }

    /// Takes the value written to a submission queue's doorbell since the last call, if any.
    pub(super) fn take_tail(&self, queue: u16) -> Option<u32> {
        take(self.doorbell(queue.into(), 0)?)
    }

    /// Takes the value written to a completion queue's doorbell since the last call, if any.
    pub(super) fn take_head(&self, queue: u16) -> Option<u32> {
        take(self.doorbell(queue.into(), 1)?)
    }

    /// Whether a doorbell that does not exist was written since the last call.
    pub(super) fn take_stray(&self) -> bool {
        self.stray.load(Ordering::Relaxed) && self.stray.swap(false, Ordering::SeqCst)
    }

    /// Whether the registers have changed since the last call.
    pub(super) fn take_registers_changed(&self) -> bool {
        self.registers_changed() && self.registers_changed.swap(false, Ordering::SeqCst)
    }

    /// Whether the registers have changed and the device's thread has not handled it.
    pub(super) fn registers_changed(&self) -> bool {
        self.registers_changed.load(Ordering::Relaxed)
    }

    /// Whether the guest has disabled the controller, and the device's thread has not handled it.
    pub(super) fn is_disabled(&self) -> bool {
        self.registers_changed() && self.registers().was_disabled
    }

    /// Discards what was written to doorbells.
    pub(super) fn clear_doorbells(&self) {
        let cells = self.doorbells.iter().flatten();
        cells.for_each(|cell| cell.store(0, Ordering::SeqCst));
        self.stray.store(false, Ordering::SeqCst);
    }

    /// Marks the device's thread, which has nothing more to do, as asleep. Returns whether it still
    /// has nothing to do, now that the next write will ring: both sides write their own flag before
    /// they read the other's, so at least one of them sees the other.
    pub(super) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let rung = |cell: &AtomicU32| cell.load(Ordering::SeqCst) & FRESH != 0;
        let awake = self.registers_changed.load(Ordering::SeqCst)
            || self.stray.load(Ordering::SeqCst)
            || self.doorbells.iter().flatten().any(rung);
        if awake {
            self.asleep.store(false, Ordering::SeqCst);
        }
        !awake
    }

    /// Marks the device's thread as asleep although there may be more to do: the next write rings.
    pub(super) fn stop(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// Resets to the state after power-on; the device's thread is not at work.
    pub(super) fn reset(&self) {
        *self.registers() = Registers::default();
        self.registers_changed.store(false, Ordering::SeqCst);
        self.clear_doorbells();
        self.asleep.store(true, Ordering::SeqCst);
    }
}

fn take(cell: &AtomicU32) -> Option<u32> {
    if cell.load(Ordering::Relaxed) & FRESH == 0 {
        return None;
    }
    let value = cell.swap(0, Ordering::SeqCst);
    (value & FRESH != 0).then_some(value & !FRESH)
}
