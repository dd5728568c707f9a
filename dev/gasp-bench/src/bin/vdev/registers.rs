//! Reads of registers by a guest, in rounds of the contestants by turns.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use gasp::GuestPhys;
use gasp_qvm::{Decoder, Space};
use gasp_vm::{Bus, BusDevice, End, Interrupts, Machine, Vcpu};
use parking_lot::Mutex;

use crate::Result;
use crate::setup::{AT, Setup};

/// Where the device in Rust is; the same distance from everything.
const RUST_AT: u64 = 0xfb00_0000;
/// Where there is none: what an exit costs alone.
const NOBODY: u64 = 0xfc00_0000;
const CODE: u64 = 0x1000;
const ROUNDS: usize = 400;
const READS: u32 = 500;

const CALLS: [(&str, u64); 2] =
    [("the bus alone: a vdev in C", AT), ("the bus alone: the same in Rust", RUST_AT)];

const CONTESTANTS: [(&str, u64); 3] =
    [("a vdev in C", AT), ("the same in Rust", RUST_AT), ("nobody: ones", NOBODY)];

/// The least nanoseconds of a read of each contestant.
pub(crate) fn measure(setup: &Setup) -> Result<Vec<(&'static str, f64)>> {
    // The thread of the vdev is not to be in the way.
    drop(setup.maps()?);
    let machine = Machine::builder().interrupts(Interrupts::None).build(&setup.guest)?;
    let window = Window(Arc::clone(&setup.decoder));
    machine.mmio().add(AT, 4, Arc::new(window))?;
    machine.mmio().add(RUST_AT, 4, Arc::new(Counter(Mutex::new(0))))?;
    let rounds = Arc::new(Rounds::new(machine.ending().clone()));
    machine.ports().add(0x80, 2, Arc::clone(&rounds) as _)?;
    let mut direct = Vec::new();
    for (name, addr) in CALLS {
        direct.push((name, calls(machine.mmio(), addr)));
    }
    setup.guest.write_firmware(GuestPhys(CODE), &code())?;
    let vcpus = machine.vcpus(1)?;
    flatten(vcpus.first().ok_or("no vCPU")?)?;
    let end = machine.start(vcpus)?.wait();
    if end != End::PowerOff {
        return Err(format!("the guest did not get to its end: {end}").into());
    }
    let state = rounds.0.lock();
    let exits = CONTESTANTS.iter().zip(state.least).map(|(&(name, _), least)| (name, least));
    Ok(exits.chain(direct).collect())
}

/// The least nanoseconds of a read on the bus, without a guest.
fn calls(bus: &Bus, addr: u64) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let before = Instant::now();
        for _ in 0..READS {
            let mut data = [0; 4];
            bus.read(black_box(addr), &mut data);
            black_box(data);
        }
        least = least.min(before.elapsed().as_secs_f64() * 1e9 / f64::from(READS));
    }
    least
}

/// A loop of rounds: port 0x80 before the reads of each contestant, 0x81 after them.
fn code() -> Vec<u8> {
    let mut code = Vec::new();
    for (number, (_, addr)) in (0_u8..).zip(CONTESTANTS) {
        code.push(0xbe); // mov esi, addr
        code.extend_from_slice(&(addr as u32).to_le_bytes());
        code.push(0xb9); // mov ecx, READS
        code.extend_from_slice(&READS.to_le_bytes());
        code.extend_from_slice(&[0xb0, number, 0xe6, 0x80]); // mov al, number; out 0x80, al
        code.extend_from_slice(&[0x8b, 0x1e, 0x49, 0x75, 0xfb]); // mov ebx, [esi]; dec ecx; jnz
        code.extend_from_slice(&[0xe6, 0x81]); // out 0x81, al
    }
    let back = -(code.len() as i32 + 5);
    code.push(0xe9); // jmp to the begin
    code.extend_from_slice(&back.to_le_bytes());
    code
}

/// Lets a vCPU begin at the code in protected mode, with flat segments.
fn flatten(vcpu: &Vcpu) -> Result<()> {
    let kvm = vcpu.kvm();
    let mut special = kvm.get_sregs()?;
    special.cr0 |= 1;
    special.cs.selector = 8;
    let segments = [&mut special.cs, &mut special.ds, &mut special.es, &mut special.ss];
    for (segment, kind) in segments.into_iter().zip([0xb, 3, 3, 3]) {
        (segment.base, segment.limit, segment.type_) = (0, 0xffff_ffff, kind);
        (segment.present, segment.s, segment.db, segment.g) = (1, 1, 1, 1);
    }
    kvm.set_sregs(&special)?;
    let mut general = kvm.get_regs()?;
    (general.rip, general.rflags, general.rsp) = (CODE, 2, 0x8000);
    Ok(kvm.set_regs(&general)?)
}

/// As `gasp vm` has the registers of vdevs on its bus.
struct Window(Arc<Decoder>);

impl BusDevice for Window {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.0.read(Space::Memory, AT + offset, data);
    }
    fn write(&self, offset: u64, data: &[u8]) {
        self.0.write(Space::Memory, AT + offset, data);
    }
}

/// The device of `measure.c`.
struct Counter(Mutex<u32>);

impl BusDevice for Counter {
    fn read(&self, _: u64, data: &mut [u8]) {
        let mut reads = self.0.lock();
        *reads = reads.wrapping_add(1);
        data.iter_mut().zip(reads.to_le_bytes()).for_each(|(place, byte)| *place = byte);
    }
    fn write(&self, _: u64, _: &[u8]) {}
}

/// The times between the writes to the two ports.
struct Rounds(Mutex<State>);

struct State {
    ending: gasp_vm::Ending,
    contestant: usize,
    began: Instant,
    least: [f64; CONTESTANTS.len()],
    done: usize,
}

impl Rounds {
    fn new(ending: gasp_vm::Ending) -> Self {
        let least = [f64::INFINITY; CONTESTANTS.len()];
        Self(Mutex::new(State { ending, contestant: 0, began: Instant::now(), least, done: 0 }))
    }
}

impl BusDevice for Rounds {
    fn read(&self, _: u64, _: &mut [u8]) {}

    fn write(&self, offset: u64, data: &[u8]) {
        let now = Instant::now();
        let mut state = self.0.lock();
        if offset == 0 {
            state.contestant = data.first().copied().unwrap_or(0).into();
            state.began = Instant::now();
            return;
        }
        let each = (now - state.began).as_secs_f64() * 1e9 / f64::from(READS);
        let contestant = state.contestant;
        if let Some(least) = state.least.get_mut(contestant) {
            *least = least.min(each);
        }
        state.done += 1;
        if state.done == ROUNDS * CONTESTANTS.len() {
            state.ending.request(End::PowerOff);
        }
    }
}
