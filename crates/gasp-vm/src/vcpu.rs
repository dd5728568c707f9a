//! A vCPU, and the loop of its thread.

use core::fmt;
use std::sync::Arc;

use gasp::Errno;
use kvm_ioctls::VcpuFd;

use crate::controllers::Interrupts;
use crate::ending::{End, Failure};
use crate::error::MachineError;
use crate::exit::{self, Exit};
use crate::exits::Counters;
use crate::gate::Passer;
use crate::inner::Inner;

/// A vCPU that does not run yet.
pub struct Vcpu {
    id: u32,
    fd: VcpuFd,
    /// Its place at the gate, until it is dropped.
    passer: Arc<Passer>,
    counters: Arc<Counters>,
    /// Keeps the memory of the slots mapped: declared after the descriptor, and dropped after it.
    machine: Arc<Inner>,
}

/// What a vCPU does after an exit.
enum Next {
    Again,
    Ends(End),
    /// It halts for good; the VM ends with the last of them.
    Halts,
}

impl Vcpu {
    pub(crate) fn new(machine: &Arc<Inner>, id: u32, count: u32) -> Result<Self, MachineError> {
        let fd = machine.vm.create_vcpu(u64::from(id));
        let fd = fd.map_err(MachineError::call("KVM_CREATE_VCPU"))?;
        fd.set_cpuid2(&machine.cpuid.leaves(id, count))
            .map_err(MachineError::call("KVM_SET_CPUID2"))?;
        let passer = machine.gate.add();
        let machine = Arc::clone(machine);
        Ok(Self { id, fd, passer, counters: Arc::default(), machine })
    }

    /// The vCPU's number, from 0 on; it is also that of its local APIC.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// KVM's vCPU, whose registers can be set before it runs.
    pub fn kvm(&self) -> &VcpuFd {
        &self.fd
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Runs on the calling thread until the VM ends. Returns whether it has halted for good.
    pub(crate) fn run(&mut self) -> bool {
        let machine = Arc::clone(&self.machine);
        let passer = Arc::clone(&self.passer);
        gasp::signal::block_in_thread();
        let _seat = match passer.kick.sit(&self.fd) {
            Ok(seat) => seat,
            Err(error) => {
                tracing::error!(%error, vcpu = self.id, "a vCPU cannot be interrupted");
                let why = Failure::Call("KVM_SET_SIGNAL_MASK", Errno::INVAL);
                machine.ending.request(End::Failed { vcpu: self.id, rip: 0, why });
                return false;
            }
        };
        while !machine.ending.is_requested() {
            match self.step(&machine) {
                Next::Again => {}
                Next::Halts => return true,
                Next::Ends(end) => {
                    machine.ending.request(end);
                }
            }
        }
        false
    }

    /// Runs until the next exit, and handles it.
    fn step(&mut self, machine: &Inner) -> Next {
        machine.gate.enter(&self.passer);
        // Looked at once more after the kick has a place to go to: who asks for the end kicks
        // after that.
        if machine.ending.is_requested() {
            machine.gate.leave(&self.passer);
            return Next::Again;
        }
        let exit = exit::run(&mut self.fd);
        machine.gate.leave(&self.passer);
        let counters = &self.counters;
        let counter = match &exit {
            Ok(Exit::In { .. } | Exit::Out { .. }) => &counters.port,
            Ok(Exit::Read { .. } | Exit::Write { .. }) => &counters.mmio,
            Err(Errno::INTR | Errno::AGAIN) => &counters.interrupted,
            _ => &counters.other,
        };
        counter.count();
        match exit {
            Ok(Exit::In { port, width, data }) => {
                for item in data.chunks_mut(width) {
                    machine.ports.read(u64::from(port), item);
                }
                Next::Again
            }
            Ok(Exit::Out { port, width, data }) => {
                for item in data.chunks(width) {
                    machine.ports.write(u64::from(port), item);
                }
                Next::Again
            }
            Ok(Exit::Read { addr, data }) => {
                machine.mmio.read(addr, data);
                Next::Again
            }
            Ok(Exit::Write { addr, data }) => {
                machine.mmio.write(addr, data);
                Next::Again
            }
            Ok(Exit::Halted) if machine.interrupts == Interrupts::None => Next::Halts,
            Ok(Exit::Halted) => Next::Again,
            Ok(Exit::TripleFault) => Next::Ends(End::TripleFault { vcpu: self.id }),
            Ok(Exit::PowerOff) => Next::Ends(End::PowerOff),
            Ok(Exit::Reset) => Next::Ends(End::Reset),
            Ok(Exit::Failed(why)) => self.failed(why),
            // A kick, or the vCPU was started by another one.
            Err(Errno::INTR | Errno::AGAIN) => {
                self.passer.kick.taken();
                Next::Again
            }
            Err(errno) => self.failed(Failure::Call("KVM_RUN", errno)),
        }
    }

    fn failed(&self, why: Failure) -> Next {
        let rip = self.fd.get_regs().map_or(0, |regs| regs.rip);
        Next::Ends(End::Failed { vcpu: self.id, rip, why })
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.machine.gate.remove(&self.passer);
    }
}

impl fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vcpu").field("id", &self.id).finish_non_exhaustive()
    }
}
