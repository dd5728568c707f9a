//! Resets, new machines, and guests that write nonsense.

use std::sync::Arc;
use std::sync::mpsc::channel;

use gasp_vdev::Shell;
use gasp_vdev::dma;
use gasp_vm::pci::{Bdf, PciRoot};
use gasp_vm::{Interrupts, Machine};

use super::rig::{COMMAND, ECAM, Kinds, Rig, config_of, vdev};
use crate::support::{Flat, PATIENCE};

pub(super) fn resets() {
    let rig = Rig::new(Interrupts::Kernel);
    let (config, table) = (config_of(rig.at), rig.bar(rig.at, 1));
    let bar = rig.bar(rig.at, 0);
    for round in 0..1000 {
        rig.write32(config + 4, COMMAND);
        rig.write32(table + 8, 0x41);
        rig.write32(table + 12, 0);
        rig.write32(config + 0x40, 0x8000_0000);
        if round % 100 == 0 {
            rig.copies(bar);
        } else {
            // In the middle of its work.
            rig.write32(bar + 0x18, 1 << 20);
            rig.write32(bar + 0x20, dma::START | dma::INTERRUPT);
        }
        rig.pci.reset(rig.at).unwrap();
        assert_eq!((rig.bar(rig.at, 0), rig.read32(bar)), (bar, u32::MAX));
    }
    rig.write32(config + 4, COMMAND);
    rig.copies(bar);
}

pub(super) fn new_machine() {
    let Rig { flat, pci, at, shell } = Rig::new(Interrupts::Kernel);
    let vdev = vdev(&flat.guest, "again");
    let mut kept = (flat, pci);
    for _ in 0..20 {
        let (flat, pci) = kept;
        drop(pci);
        assert!(!shell.is_attached());
        let mut bytes = [0; 4];
        flat.machine.mmio().read(config_of(at), &mut bytes);
        assert_eq!(bytes, [0xff; 4], "nothing is left of it");
        drop(PciRoot::new(&flat.machine).unwrap());
        let guest = flat.guest.clone();
        drop(flat);
        let machine = Machine::builder().build(&guest).unwrap();
        let flat = Flat { guest, machine };
        let pci = Arc::new(PciRoot::new(&flat.machine).unwrap());
        assert!(PciRoot::new(&flat.machine).is_err(), "there is one");
        pci.attach(at, Arc::clone(&shell), vdev.clone()).unwrap();
        let rig = Rig { flat, pci, at, shell: Arc::clone(&shell) };
        rig.write32(config_of(at) + 4, COMMAND);
        rig.copies(rig.bar(at, 0));
        kept = (rig.flat, rig.pci);
    }
    // The other way round: first the machine.
    let (flat, pci) = kept;
    drop(flat);
    assert!(pci.detach(at).is_ok() && !shell.is_attached());
}

/// A sequence of numbers that looks random, and is the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Writes and reads at random where PCI is, and makes the engine's BARs overlap now and then.
fn write_nonsense(rig: &Rig, home: [u64; 2], seed: u64) {
    let mut random = Random(seed);
    let (mmio, config) = (rig.flat.machine.mmio(), config_of(rig.at));
    for _ in 0..10_000 {
        let width = 1 + random.below(8) as usize;
        let mut data = match random.below(3) {
            0 => [[0xff; 8], [0; 8]][random.below(2) as usize],
            _ => random.below(u64::MAX).to_le_bytes(),
        };
        let bar = u64::from(rig.read32(config + 0x10 + 4 * random.below(2)) & !0xf);
        let (bus, addr) = match random.below(6) {
            0 => (rig.flat.machine.ports(), 0xcf0 + random.below(24)),
            1 => (mmio, u64::from(ECAM) + random.below(1 << 20)),
            2 => (mmio, config + random.below(0x60)),
            3 => (mmio, config + 0x8000 + random.below(0x60)),
            4 => (mmio, home[1] + random.below(64)),
            _ => (mmio, bar + random.below(64)),
        };
        bus.write(addr, &data[..width]);
        bus.read(addr, &mut data[..width]);
        if random.below(16) == 0 {
            rig.shell.interrupts().signal(0);
        }
        if random.below(64) == 0 {
            let place = home[random.below(2) as usize] as u32;
            rig.write32(config + 0x10 + 4 * random.below(2), place);
            rig.write32(config + 4, COMMAND);
        }
    }
}

pub(super) fn nonsense() {
    let rig = Rig::new(Interrupts::Kernel);
    let kinds = Arc::new(Shell::new("kinds", Kinds).unwrap());
    let other = Bdf::new(0, 2, 0).unwrap();
    rig.pci.attach(other, kinds, vdev(&rig.flat.guest, "kinds")).unwrap();
    let home = [rig.bar(rig.at, 0), rig.bar(rig.at, 1)];
    let (sender, ended) = channel();
    let rig = Arc::new(rig);
    // As two vCPUs, and resets by the host at the same time.
    for seed in [0x9e37_79b9_7f4a_7c15, 0x1234_5678_9abc_def1] {
        let (rig, sender) = (Arc::clone(&rig), sender.clone());
        std::thread::spawn(move || {
            write_nonsense(&rig, home, seed);
            sender.send(()).unwrap();
        });
    }
    let resets = Arc::clone(&rig);
    std::thread::spawn(move || {
        for _ in 0..100 {
            resets.pci.reset(resets.at).unwrap();
            resets.pci.reset(other).unwrap();
        }
        sender.send(()).unwrap();
    });
    for _ in 0..3 {
        ended.recv_timeout(2 * PATIENCE).expect("a thread hangs or has panicked");
    }
    rig.pci.reset(rig.at).unwrap();
    rig.pci.reset(other).unwrap();
    rig.write32(config_of(rig.at) + 4, COMMAND);
    rig.copies(home[0]);
}
