//! Doorbells, interrupts, and more than one vCPU.

use core::time::Duration;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use gasp::GuestPhys;
use gasp_vm::{BusDevice, DoorbellAddr, End, Interrupts, Rings};
use parking_lot::Mutex;

use crate::code::{Code, interrupt_tables};
use crate::support::{Flat, PATIENCE, POWER_OFF, Trials, flatten};

/// How long nothing must arrive.
const QUIET: Duration = Duration::from_millis(100);

pub(crate) fn trials() -> Trials {
    vec![
        ("a_doorbell_counts_without_an_exit", doorbells),
        ("an_interrupt_wakes_the_guest", interrupt),
        ("a_level_that_stays_up_is_delivered_again_after_each_end", level),
        ("a_guest_starts_its_second_vcpu", second_vcpu),
        ("a_device_that_waits_does_not_hold_up_another_vcpu", not_held_up),
    ]
}

fn doorbells() {
    const GUEST: &[u8] = &[
        0x66, 0xba, 0x20, 0x05, // mov dx, 0x520
        0xb8, 0x07, 0x00, 0x00, 0x00, // mov eax, 7
        0xee, // out dx, al
        0x66, 0xef, // out dx, ax
        0xef, // out dx, eax
        0xa3, 0x00, 0x10, 0x00, 0xd0, // mov [0xd0001000], eax
        0xa3, 0x00, 0x10, 0x00, 0xd0, // mov [0xd0001000], eax
        0x66, 0xa3, 0x00, 0x10, 0x00, 0xd0, // mov [0xd0001000], ax: not as wide
        0x40, // inc eax
        0xa3, 0x00, 0x10, 0x00, 0xd0, // mov [0xd0001000], eax: another value
    ];
    let flat = Flat::new(Interrupts::None, &[GUEST, POWER_OFF]);
    let port = flat.machine.doorbell(DoorbellAddr::Port(0x520), Rings::Any).unwrap();
    let at = DoorbellAddr::Mmio(0xd000_1000);
    let register = flat.machine.doorbell(at, Rings::U32(7)).unwrap();
    let half = flat.machine.doorbell(at, Rings::U16(3)).unwrap();
    assert!(flat.machine.doorbell(at, Rings::U32(7)).is_err(), "taken");
    let running = flat.run();
    assert_eq!((port.take(), register.take(), half.take()), (3, 2, 0));
    assert_eq!((port.take(), running.exits().port, running.exits().mmio), (0, 1, 2));
    drop(running);
    drop((port, register));
    let again = flat.machine.doorbell(at, Rings::U32(7)).unwrap();
    assert_eq!(again.take(), 0, "free again");
}

/// Sends each byte that the guest writes.
struct Reports(Mutex<Sender<u8>>);

impl BusDevice for Reports {
    fn read(&self, _: u64, _: &mut [u8]) {}
    fn write(&self, _: u64, data: &[u8]) {
        let _ = self.0.lock().send(data[0]);
    }
}

fn reports(flat: &Flat, port: u64) -> Receiver<u8> {
    let (sender, receiver) = channel();
    flat.machine.ports().add(port, 1, Arc::new(Reports(Mutex::new(sender)))).unwrap();
    receiver
}

fn interrupt() {
    /// Leads line 4 to vector 0x30 of this vCPU, reports 1, and waits.
    const GUEST: &[u8] = &[
        0x0f, 0x01, 0x15, 0x00, 0x20, 0x00, 0x00, // lgdt [0x2000]
        0x0f, 0x01, 0x1d, 0x08, 0x20, 0x00, 0x00, // lidt [0x2008]
        0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0x00, 0x00, // mov [0xfee000f0], 0x1ff
        0xc7, 0x05, 0x00, 0x00, 0xc0, 0xfe, 0x18, 0x00, 0x00, 0x00, // mov [0xfec00000], 0x18
        0xc7, 0x05, 0x10, 0x00, 0xc0, 0xfe, 0x30, 0x00, 0x00, 0x00, // mov [0xfec00010], 0x30
        0xfb, // sti
        0xb0, 0x01, // mov al, 1
        0xe6, 0x80, // out 0x80, al
        0xf4, // hlt
        0xeb, 0xfd, // jmp to hlt
        0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
    ];
    /// At 0x1040: reports 2, tells the local APIC that it is done, and waits for the next: not every
    /// KVM emulates a return from an interrupt.
    const HANDLER: &[u8] = &[
        0xb0, 0x02, // mov al, 2
        0xe6, 0x80, // out 0x80, al
        0xc7, 0x05, 0xb0, 0x00, 0xe0, 0xfe, 0x00, 0x00, 0x00, 0x00, // mov [0xfee000b0], 0
        0xfb, // sti
        0xf4, // hlt
        0xeb, 0xfd, // jmp to hlt
    ];
    let flat = Flat::new(Interrupts::Kernel, &[GUEST, HANDLER]);
    let write = |addr: u64, bytes: &[u8]| {
        flat.guest.write_firmware(GuestPhys(addr), bytes).unwrap();
    };
    // The tables' limits and addresses, a flat code segment as number 1, and the gate.
    write(0x2000, &[0x0f, 0, 0x00, 0x30, 0, 0]);
    write(0x2008, &[0xff, 0x07, 0x00, 0x40, 0, 0]);
    write(0x3008, &[0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0]);
    write(0x4000 + 0x30 * 8, &[0x40, 0x10, 0x08, 0, 0, 0x8e, 0, 0]);
    let reports = reports(&flat, 0x80);
    let line = flat.machine.line(4).unwrap();
    let other = flat.machine.line(5).unwrap();
    let running = flat.start();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(1));
    other.pulse();
    for _ in 0..3 {
        line.pulse();
        assert_eq!(reports.recv_timeout(PATIENCE), Ok(2), "{:?}", running.ending());
    }
    drop(line);
    flat.machine.line(4).unwrap().pulse();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(2), "connected anew");
}

fn level() {
    /// Leads line 10 to vector 0x30 of this vCPU, as a level; the other half of the entry is 0.
    fn begin() -> Code {
        Code::new()
            .take_interrupts()
            .store32(0xfec0_0000, 0x10 + 2 * 10)
            .store32(0xfec0_0010, 0x8030)
            .raw(&[0xb0, 1, 0xe6, 0x80]) // mov al, 1; out 0x80, al
            .wait_for_interrupts()
    }
    // Reports, and ends the interrupt.
    let handler = Code::new()
        .raw(&[0xbc, 0x00, 0x80, 0x00, 0x00]) // mov esp, 0x8000: it never returns
        .raw(&[0xb0, 2, 0xe6, 0x80])
        .end_of_interrupt()
        .wait_for_interrupts();
    let flat = Flat::new(Interrupts::Kernel, &[begin().bytes()]);
    flat.guest.write_firmware(GuestPhys(0x1100), handler.bytes()).unwrap();
    interrupt_tables(&flat, &[(0x30, 0x1100)]);
    let reports = reports(&flat, 0x80);
    let line = flat.machine.level_line(10).unwrap();
    assert!(flat.machine.level_line(24).is_err());
    let running = flat.start();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(1));
    line.set(true).unwrap();
    for _ in 0..3 {
        assert_eq!(reports.recv_timeout(PATIENCE), Ok(2), "again");
    }
    // What was under way arrives, and nothing after it.
    let quiet = || {
        let until = Instant::now() + Duration::from_secs(3);
        while reports.recv_timeout(QUIET).is_ok() {
            if Instant::now() > until {
                return false;
            }
        }
        running.wait_for(Duration::ZERO).is_none()
    };
    line.set(false).unwrap();
    assert!(quiet());
    line.set(true).unwrap();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(2));
    drop(line);
    assert!(quiet(), "a line that is dropped is lowered");
}

fn second_vcpu() {
    /// INIT and then a start at 0x5000 for all others.
    const GUEST: &[u8] = &[
        0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x0c,
        0x00, // mov [0xfee00300], 0xc4500
        0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x05, 0x46, 0x0c,
        0x00, // mov [0xfee00300], 0xc4605
        0xeb, 0xfe, // jmp to itself
    ];
    /// In real mode.
    const SECOND: &[u8] = &[
        0xb0, 0x42, // mov al, 0x42
        0xe6, 0x80, // out 0x80, al
        0xf4, // hlt
    ];
    let flat = Flat::new(Interrupts::Kernel, &[GUEST]);
    flat.guest.write_firmware(GuestPhys(0x5000), SECOND).unwrap();
    let reports = reports(&flat, 0x80);
    let running = flat.machine.start(flat.vcpus(2)).unwrap();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(0x42), "{:?}", running.ending());
    assert!(running.ending().request(End::Stopped));
    assert_eq!(running.wait(), End::Stopped);
}

/// A read waits for a write.
struct Waits(Mutex<Receiver<u8>>, Mutex<Sender<u8>>);

impl BusDevice for Waits {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(self.0.lock().recv_timeout(PATIENCE).unwrap_or(0));
    }
    fn write(&self, _: u64, data: &[u8]) {
        let _ = self.1.lock().send(data[0]);
    }
}

fn not_held_up() {
    const READER: &[u8] = &[
        0xe4, 0x80, // in al, 0x80
        0xe6, 0x82, // out 0x82, al
        0xf4, // hlt
        0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
    ];
    /// At 0x1010.
    const WRITER: &[u8] = &[
        0xb0, 0x09, // mov al, 9
        0xe6, 0x81, // out 0x81, al
        0xf4, // hlt
    ];
    let flat = Flat::new(Interrupts::None, &[READER, WRITER]);
    let (sender, receiver) = channel();
    let device = Waits(Mutex::new(receiver), Mutex::new(sender));
    flat.machine.ports().add(0x80, 2, Arc::new(device)).unwrap();
    let reports = reports(&flat, 0x82);
    let vcpus = flat.vcpus(2);
    flatten(&vcpus[1], 0x1010);
    let running = flat.machine.start(vcpus).unwrap();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(9));
    assert_eq!(running.wait(), End::Halted);
}
