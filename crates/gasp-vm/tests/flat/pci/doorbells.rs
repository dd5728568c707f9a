//! Doorbells that the kernel rings.

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Instant;

use gasp_vdev::{Bar, Device, DeviceContext, Model, Register, Width};
use gasp_vm::pci::{Bdf, PciRoot};
use gasp_vm::{BusDevice, Interrupts};

use super::rig::{COMMAND, IDENTITY, Rig, config_of};
use crate::code::Code;
use crate::support::PATIENCE;

/// Rings its doorbell by writes of register 0x20, and by the value 7 at 0x24.
#[derive(Default)]
struct Rung {
    counts: Arc<[AtomicU32; 2]>,
}

impl Device for Rung {
    fn model(&self) -> Model {
        Model::new(IDENTITY).bar(Bar::memory(0, 4096))
    }
    fn read(&self, _: &DeviceContext, _: Register) -> u64 {
        0
    }
    fn write(&self, context: &DeviceContext, at: Register, value: u64) {
        let register = |offset| Register { bar: 0, offset, width: Width::Four };
        match at.offset {
            0 if value == 1 => {
                assert!(context.ring_on_write(register(0x20), None));
                assert!(context.ring_on_write(register(0x20), None));
                assert!(context.ring_on_write(register(0x24), Some(7)));
                assert!(!context.ring_on_write(register(0x24), Some(1 << 32)));
            }
            0 => context.stop_ringing(register(0x20), None),
            _ => drop(self.counts[0].fetch_add(1, Ordering::SeqCst)),
        }
    }
    fn work(&self, _: &DeviceContext) {
        self.counts[1].fetch_add(1, Ordering::SeqCst);
    }
    fn reset(&self) {}
}

pub(super) fn rings() {
    let device = Rung::default();
    let counts = Arc::clone(&device.counts);
    let rig = Rig::with(Interrupts::None, device);
    let (config, bar) = (config_of(rig.at) as u32, rig.bar(rig.at, 0) as u32);
    let moved = 0xd000_0000;
    let waits = Arc::new(Waits(Arc::clone(&counts), AtomicU32::new(0)));
    rig.flat.machine.ports().add(0x90, 1, waits).unwrap();
    // Each `in` waits until the device's thread has been woken.
    let wait = |code: Code| code.raw(&[0xe4, 0x90]);
    let code = Code::new().store16(config + 4, COMMAND as u16).store32(bar, 1);
    let code = wait(code.store32(bar + 0x20, 5));
    let code = wait(code.store32(bar + 0x24, 7));
    let code = code.store32(bar + 0x24, 6).store32(config + 0x10, moved);
    let code = wait(code.store32(moved + 0x20, 5));
    let code = code.store32(bar + 0x20, 5).store32(moved, 0).store32(moved + 0x20, 5);
    let code = wait(code.store32(moved + 0x24, 7));
    let exits = rig.run(code);
    let [arrived, worked] = [0, 1].map(|index: usize| counts[index].load(Ordering::SeqCst));
    assert_eq!((arrived, worked), (2, 4));
    // Two of configuration, two of register 0, and what has arrived, at the old place too.
    assert_eq!((exits.mmio, exits.port), (2 + 2 + 2 + 1, 4 + 1));
}

pub(super) fn resets() {
    let device = Rung::default();
    let counts = Arc::clone(&device.counts);
    let rig = Rig::with(Interrupts::None, device);
    let (config, bar) = (config_of(rig.at) as u32, rig.bar(rig.at, 0) as u32);
    let (pci, at) = (Arc::clone(&rig.pci), rig.at);
    rig.flat.machine.ports().add(0x91, 1, Arc::new(Resets(pci, at))).unwrap();
    let code = Code::new().store16(config + 4, COMMAND as u16).store32(bar, 1);
    let code = code.store32(bar + 0x24, 7).output(1, 0x91, 0);
    let code = code.store16(config + 4, COMMAND as u16).store32(bar + 0x24, 7);
    let exits = rig.run(code.store32(bar + 0x20, 7));
    assert_eq!((counts[0].load(Ordering::SeqCst), exits.mmio), (2, 2 + 1 + 2));
}

/// A write resets a device.
struct Resets(Arc<PciRoot>, Bdf);

impl BusDevice for Resets {
    fn read(&self, _: u64, _: &mut [u8]) {}
    fn write(&self, _: u64, _: &[u8]) {
        self.0.reset(self.1).unwrap();
    }
}

/// A read waits until there was one more call of `work`.
struct Waits(Arc<[AtomicU32; 2]>, AtomicU32);

impl BusDevice for Waits {
    fn read(&self, _: u64, _: &mut [u8]) {
        let seen = self.1.fetch_add(1, Ordering::SeqCst);
        let since = Instant::now();
        while self.0[1].load(Ordering::SeqCst) <= seen && since.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
    }
    fn write(&self, _: u64, _: &[u8]) {}
}
