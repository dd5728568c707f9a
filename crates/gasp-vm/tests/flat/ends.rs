//! How a VM ends.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use gasp::{Errno, Guest, GuestPhys};
use gasp_vm::{BusDevice, End, Ending, Failure, Interrupts, Machine, MachineError, Running};

use crate::support::{Flat, PATIENCE, POWER_OFF, Trials, flatten};

const FOR_EVER: &[u8] = &[
    0xeb, 0xfe, // jmp to itself
];
const HALT: &[u8] = &[
    0xfa, // cli
    0xf4, // hlt
];

pub(crate) fn trials() -> Trials {
    vec![
        ("a_triple_fault_ends_the_vm", triple_fault),
        ("a_vcpu_that_halts_for_good_ends_the_vm", halted),
        ("all_vcpus_halt_before_the_vm_has_halted", halted_together),
        ("a_guest_that_loops_is_stopped_in_time", stopped),
        ("a_guest_that_halts_is_stopped_in_time", stopped_while_halted),
        ("a_vm_that_is_dropped_stops", dropped),
        ("a_reset_ends_it_and_the_same_guest_runs_again", reset),
        ("the_first_end_counts", first_end),
        ("code_outside_memory_fails_with_its_address", no_code),
        ("a_device_that_panics_ends_the_vm_alone", panics),
        ("vcpus_are_counted", counted),
        ("what_is_not_kvm_is_refused", not_kvm),
    ]
}

/// The end, which comes within a second of now.
fn soon(running: &Running) -> Option<End> {
    let asked = Instant::now();
    let end = running.wait_for(PATIENCE);
    assert!(asked.elapsed() < Duration::from_secs(1));
    end
}

fn triple_fault() {
    const GUEST: &[u8] = &[
        0x0f, 0x01, 0x1d, 0x00, 0x20, 0x00, 0x00, // lidt [0x2000], an empty table
        0xb8, 0xff, 0xff, 0x00, 0x00, // mov eax, 0xffff
        0x8e, 0xd8, // mov ds, ax: no such segment
    ];
    let flat = Flat::new(Interrupts::Kernel, &[GUEST]);
    assert_eq!(flat.start().wait_for(PATIENCE), Some(End::TripleFault { vcpu: 0 }));
}

fn halted() {
    let flat = Flat::new(Interrupts::None, &[HALT]);
    assert_eq!(flat.start().wait(), End::Halted);
}

fn halted_together() {
    let flat = Flat::new(Interrupts::None, &[HALT, FOR_EVER]);
    let vcpus = flat.vcpus(2);
    flatten(&vcpus[1], 0x1002);
    let running = flat.machine.start(vcpus).unwrap();
    assert_eq!(running.wait_for(Duration::from_millis(100)), None, "one of them runs");
}

fn stopped() {
    for interrupts in [Interrupts::None, Interrupts::Kernel] {
        let running = Flat::new(interrupts, &[FOR_EVER]).start();
        assert_eq!(running.wait_for(Duration::from_millis(50)), None);
        assert!(running.ending().request(End::Stopped));
        let asked = Instant::now();
        assert_eq!(running.wait(), End::Stopped);
        assert!(asked.elapsed() < Duration::from_secs(1));
    }
}

fn stopped_while_halted() {
    let running = Flat::new(Interrupts::Kernel, &[HALT]).start();
    assert_eq!(running.wait_for(Duration::from_millis(50)), None, "the kernel waits for it");
    let asked = Instant::now();
    assert!(running.ending().request(End::Stopped));
    assert_eq!(running.wait(), End::Stopped);
    assert!(asked.elapsed() < Duration::from_secs(1));
}

fn dropped() {
    // A kick that comes before, while and after the vCPU enters the guest.
    for pause in [0, 0, 0, 0, 1, 10, 100, 1000] {
        let running = Flat::new(Interrupts::Kernel, &[FOR_EVER]).start();
        std::thread::sleep(Duration::from_micros(pause));
        let asked = Instant::now();
        drop(running);
        assert!(asked.elapsed() < Duration::from_secs(1));
    }
}

struct Requests(Ending, End);

impl BusDevice for Requests {
    fn read(&self, _: u64, _: &mut [u8]) {}
    fn write(&self, _: u64, _: &[u8]) {
        self.0.request(self.1.clone());
    }
}

fn reset() {
    const GUEST: &[u8] = &[
        0xe6, 0x64, // out 0x64, al
    ];
    let flat = Flat::new(Interrupts::Kernel, &[GUEST, FOR_EVER]);
    let device = Requests(flat.machine.ending().clone(), End::Reset);
    flat.machine.ports().add(0x64, 1, Arc::new(device)).unwrap();
    assert_eq!(soon(&flat.start()), Some(End::Reset));

    let guest = flat.guest.clone();
    drop(flat);
    guest.write_firmware(GuestPhys(0x1000), HALT).unwrap();
    let machine = Machine::builder().interrupts(Interrupts::None).build(&guest).unwrap();
    let vcpus = machine.vcpus(1).unwrap();
    flatten(&vcpus[0], 0x1000);
    assert_eq!(machine.start(vcpus).unwrap().wait(), End::Halted);
}

fn first_end() {
    let flat = Flat::new(Interrupts::None, &[POWER_OFF]);
    let running = flat.run();
    assert!(!running.ending().request(End::Reset));
    assert_eq!(running.wait(), End::PowerOff);
}

fn no_code() {
    let flat = Flat::new(Interrupts::None, &[]);
    let vcpus = flat.vcpus(1);
    flatten(&vcpus[0], 0xc000_0000);
    let end = flat.machine.start(vcpus).unwrap().wait();
    let expected = End::Failed { vcpu: 0, rip: 0xc000_0000, why: Failure::Emulation };
    assert_eq!(end, expected, "{end}");
}

struct Panics;

impl BusDevice for Panics {
    fn read(&self, _: u64, _: &mut [u8]) {
        panic!("on purpose");
    }
    fn write(&self, _: u64, _: &[u8]) {}
}

fn panics() {
    const GUEST: &[u8] = &[
        0xe4, 0x70, // in al, 0x70
    ];
    let flat = Flat::new(Interrupts::None, &[GUEST, FOR_EVER]);
    flat.machine.ports().add(0x70, 1, Arc::new(Panics)).unwrap();
    let end = flat.start().wait();
    assert!(matches!(end, End::Failed { vcpu: 0, why: Failure::Panic, .. }), "{end:?}");
}

fn counted() {
    let guest = Guest::builder().build().unwrap();
    let machine = Machine::builder().build(&guest).unwrap();
    for count in [0, 100_000] {
        let refused = machine.vcpus(count).unwrap_err();
        assert!(matches!(refused, MachineError::Vcpus { .. }), "{refused}");
    }
    assert_eq!(machine.vcpus(3).unwrap().len(), 3);
    let line = machine.line(24).unwrap_err();
    assert!(matches!(line, MachineError::Kvm { errno: Errno::INVAL, .. }), "{line}");
}

fn not_kvm() {
    let guest = Guest::builder().build().unwrap();
    let build = |path: &str| Machine::builder().kvm(path).build(&guest).unwrap_err();
    assert!(matches!(build("/dev/kvm-none"), MachineError::NoKvm { .. }));
    assert!(matches!(build("/dev/null"), MachineError::NotKvm { .. }), "{}", build("/dev/null"));
    assert!(matches!(build("/"), MachineError::Refused { errno: Errno::ISDIR, .. }));
    assert!(matches!(build("a\0b"), MachineError::NoKvm { .. }));
    assert!(!build("/").to_string().contains('\n'));
}
