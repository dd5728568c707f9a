//! A device in its shell, driven without a VMM: life, registers, transfers, runs.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gasp::{Backing, Guest, MemoryObject, Unattached, Vdev};
use gasp_vdev::devices::dma::{self, DmaEngine};
use gasp_vdev::{Bar, Bus, Class, Device, Identity, Model, RegionError, Register, Shell};

fn guest() -> (Vdev, MemoryObject) {
    let guest = Guest::builder().build().unwrap();
    let ram = MemoryObject::ram(4 << 20).prefer(&[Backing::Base]).create().unwrap();
    guest.space().add_ram(None, &ram).unwrap();
    (guest.vdev("device").unwrap(), ram)
}

fn read(shell: &Shell, offset: u64) -> u64 {
    let mut bytes = [0; 8];
    shell.bar_read(0, offset, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

fn read32(shell: &Shell, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    shell.bar_read(0, offset, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

fn run(shell: &Shell, source: u64, destination: u64, length: u64, control: u32) -> u32 {
    shell.config_write(4, &[6, 0]).unwrap();
    for (offset, value) in [(0x08, source), (0x10, destination), (0x18, length)] {
        shell.bar_write(0, offset, &value.to_le_bytes()).unwrap();
    }
    shell.bar_write(0, 0x20, &control.to_le_bytes()).unwrap();
    let since = Instant::now();
    while read32(shell, 0x24) == dma::BUSY {
        assert!(since.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    read32(shell, 0x24)
}

#[test]
fn the_engine_copies_and_can_be_attached_again_to_another_guest() {
    let shell = Shell::new("dma", DmaEngine::new()).unwrap();
    assert_eq!(shell.bar_read(0, 0, &mut [0; 4]), Err(RegionError::Detached));
    for round in 0..3_u8 {
        let (vdev, ram) = guest();
        shell.attach(vdev.clone(), None).unwrap();
        assert!(shell.attach(vdev, None).is_err(), "attached already");
        assert_eq!(read(&shell, 0x08), 0, "as after a reset");
        let data: Vec<u8> = (0..1_500_000_u32).map(|n| (n / 3) as u8 ^ round).collect();
        ram.write_at(0x123, &data).unwrap();
        assert_eq!(run(&shell, 0x123, 0x20_0001, data.len() as u64, dma::START), dma::DONE);
        let mut copied = vec![0; data.len()];
        ram.read_at(0x20_0001, &mut copied).unwrap();
        assert!(copied == data);
        shell.detach();
        shell.detach();
        assert!(!shell.is_attached());
    }
}

#[test]
fn runs_are_what_the_engine_would_give_to_hardware() {
    let (vdev, ram) = guest();
    let shell = Shell::new("dma", DmaEngine::new()).unwrap();
    shell.attach(vdev, None).unwrap();
    let status = run(&shell, 0x1800, 0, 0x1_0000, dma::START | dma::RUNS);
    if ram.host_run(0, 1).is_err() {
        // EPERM, without the privilege.
        assert_eq!((status, read32(&shell, 0x28)), (dma::FAILED, 1));
        return;
    }
    assert_eq!(status, dma::DONE);
    let (mut done, count) = (0, read32(&shell, 0x2c));
    for index in 0..count {
        shell.bar_write(0, 0x38, &index.to_le_bytes()).unwrap();
        let (addr, len) = (read(&shell, 0x40), read(&shell, 0x48));
        let run = ram.host_run(0x1800 + done, 0x1_0000 - done).unwrap();
        assert_eq!((addr, len), (run.addr.0, run.len));
        done += len;
    }
    assert_eq!((done, read(&shell, 0x30)), (0x1_0000, 0x1_0000));
}

/// Counts how often it works; a write to register 0 rings, register 8 makes work long.
struct Counter {
    works: Arc<AtomicU32>,
    long: AtomicU32,
}

impl Device for Counter {
    fn model(&self) -> Model {
        let class = Class { base: 0xff, sub: 0, interface: 0 };
        let identity = Identity {
            vendor: 1,
            device: 2,
            subsystem_vendor: 3,
            subsystem: 4,
            revision: 5,
            class,
        };
        Model::new(identity).bar(Bar::memory(0, 64))
    }

    fn read(&self, _: &Bus, _: Register) -> u64 {
        u64::from(self.works.load(Ordering::Relaxed))
    }

    fn write(&self, bus: &Bus, at: Register, value: u64) {
        match at.offset {
            0 => bus.ring(),
            _ => self.long.store(value as u32, Ordering::Relaxed),
        }
    }

    fn work(&self, bus: &Bus) {
        self.works.fetch_add(1, Ordering::Relaxed);
        while self.long.load(Ordering::Relaxed) != 0 && !bus.should_stop() {
            std::thread::yield_now();
        }
        self.works.fetch_add(1 << 16, Ordering::Relaxed);
    }

    fn reset(&self) {
        let works = self.works.load(Ordering::Relaxed);
        assert_eq!(works >> 16, works & 0xffff, "no work goes on in a reset");
    }
}

#[test]
fn work_runs_once_a_ring_ends_before_a_reset_and_ends_when_the_vmm_goes() {
    let works = Arc::new(AtomicU32::new(0));
    let counter = Counter { works: Arc::clone(&works), long: AtomicU32::new(0) };
    let shell = Shell::new("counter", counter).unwrap();
    let (vdev, _ram) = guest();
    shell.attach(vdev, None).unwrap();
    let wait = |count: u32| {
        let since = Instant::now();
        while works.load(Ordering::Relaxed) & 0xffff < count {
            assert!(since.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
    };
    shell.bar_write(0, 0, &[1]).unwrap();
    wait(1);
    shell.bar_write(0, 8, &[1]).unwrap();
    shell.bar_write(0, 0, &[1]).unwrap();
    wait(2);
    // Long work; both ends of it are asked for.
    shell.reset();
    shell.bar_write(0, 0, &[1]).unwrap();
    wait(3);
    shell.detach();
    assert_eq!(works.load(Ordering::Relaxed), 3 | 3 << 16);
}

#[test]
fn a_guest_with_an_iommu_denies_a_device_that_is_attached_to_no_domain() {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let shell = Shell::new("dma", DmaEngine::new()).unwrap();
    shell.attach(guest.vdev("dma").unwrap(), None).unwrap();
    assert_eq!(run(&shell, 0, 0x1000, 16, dma::START), dma::FAILED);
    assert_eq!(read32(&shell, 0x28), 14, "EFAULT");
}
