//! A VM of 4 MiB with 32-bit code at 0x1000, in protected mode without paging.

use core::time::Duration;
use std::fs::OpenOptions;
use std::sync::Arc;

use gasp::{Guest, GuestPhys, MemoryObject, Residency};
use gasp_vm::{BusDevice, End, Ending, Interrupts, Machine, Running, Vcpu};
use libtest_mimic::Trial;
use parking_lot::Mutex;

pub(crate) type Trials = Vec<(&'static str, fn())>;

/// How long a guest may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const CODE: u64 = 0x1000;
/// A write of this port powers the guest off.
pub(crate) const OFF: u64 = 0x600;
/// Powers the guest off.
pub(crate) const POWER_OFF: &[u8] = &[
    0x66, 0xba, 0x00, 0x06, // mov dx, 0x600
    0xee, // out dx, al
    0xf4, // hlt
];

/// A trial, which is marked as ignored if there is no KVM, with the reason in its name.
pub(crate) fn trial(name: &str, body: fn()) -> Trial {
    let open = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let name = match &open {
        Ok(_) => name.to_string(),
        Err(why) => format!("{name} [skipped, because /dev/kvm cannot be used: {why}]"),
    };
    Trial::test(name, move || {
        body();
        Ok(())
    })
    .with_ignored_flag(open.is_err())
}

pub(crate) fn ram(len: u64) -> MemoryObject {
    MemoryObject::ram(len).residency(Residency::Resident).create().unwrap()
}

pub(crate) struct Flat {
    pub(crate) guest: Guest,
    pub(crate) machine: Machine,
}

impl Flat {
    pub(crate) fn new(interrupts: Interrupts, code: &[&[u8]]) -> Self {
        let guest = Guest::builder().build().unwrap();
        guest.space().add_ram(None, &ram(4 << 20)).unwrap();
        if !code.is_empty() {
            guest.write_firmware(GuestPhys(CODE), &code.concat()).unwrap();
        }
        let machine = Machine::builder().interrupts(interrupts).build(&guest).unwrap();
        let off = Off(machine.ending().clone());
        machine.ports().add(OFF, 1, Arc::new(off)).unwrap();
        Self { guest, machine }
    }

    pub(crate) fn vcpus(&self, count: usize) -> Vec<Vcpu> {
        let vcpus = self.machine.vcpus(count).unwrap();
        flatten(&vcpus[0], CODE);
        vcpus
    }

    pub(crate) fn start(&self) -> Running {
        self.machine.start(self.vcpus(1)).unwrap()
    }

    /// Runs one vCPU until the guest powers itself off.
    pub(crate) fn run(&self) -> Running {
        let running = self.start();
        assert_eq!(running.wait_for(PATIENCE), Some(End::PowerOff));
        running
    }
}

/// Lets a vCPU begin at `entry` in protected mode, with flat segments and a stack of its own.
pub(crate) fn flatten(vcpu: &Vcpu, entry: u64) {
    let kvm = vcpu.kvm();
    let mut special = kvm.get_sregs().unwrap();
    special.cr0 |= 1;
    special.cs.selector = 8;
    let segments = [&mut special.cs, &mut special.ds, &mut special.es, &mut special.ss];
    for (segment, kind) in segments.into_iter().zip([0xb, 3, 3, 3]) {
        (segment.base, segment.limit, segment.type_) = (0, 0xffff_ffff, kind);
        (segment.present, segment.s, segment.db, segment.g) = (1, 1, 1, 1);
    }
    kvm.set_sregs(&special).unwrap();
    let mut general = kvm.get_regs().unwrap();
    (general.rip, general.rflags) = (entry, 2);
    general.rsp = 0x8000 + u64::from(vcpu.id()) * 0x1000;
    kvm.set_regs(&general).unwrap();
}

struct Off(Ending);

impl BusDevice for Off {
    fn read(&self, _: u64, _: &mut [u8]) {}
    fn write(&self, _: u64, _: &[u8]) {
        self.0.request(End::PowerOff);
    }
}

/// Registers that keep what is written, and note each access.
#[derive(Default)]
pub(crate) struct Registers {
    pub(crate) bytes: Mutex<[u8; 32]>,
    /// Read or written, where, how many bytes.
    pub(crate) log: Mutex<Vec<(char, u64, usize)>>,
}

impl BusDevice for Registers {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.log.lock().push(('r', offset, data.len()));
        data.copy_from_slice(&self.bytes.lock()[offset as usize..][..data.len()]);
    }
    fn write(&self, offset: u64, data: &[u8]) {
        self.log.lock().push(('w', offset, data.len()));
        self.bytes.lock()[offset as usize..][..data.len()].copy_from_slice(data);
    }
}
