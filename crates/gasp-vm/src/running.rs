//! The threads of a running VM.

use core::fmt;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::ending::{End, Ending, Failure};
use crate::error::MachineError;
use crate::exits::{Counters, Exits};
use crate::vcpu::Vcpu;

/// How often who waits for a thread looks at it: at first, and at last.
const FIRST_LOOK: Duration = Duration::from_micros(50);
const LAST_LOOK: Duration = Duration::from_millis(50);

/// A running VM: a thread for each vCPU. Dropping it stops the VM and waits for the threads.
#[must_use = "dropping it stops the VM"]
pub struct Running {
    ending: Ending,
    counters: Vec<Arc<Counters>>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(ending: Ending, vcpus: Vec<Vcpu>) -> Result<Self, MachineError> {
        let counters = vcpus.iter().map(|vcpu| Arc::clone(vcpu.counters())).collect();
        let awake = Arc::new(AtomicUsize::new(vcpus.len()));
        let mut running = Self { ending, counters, threads: Vec::new() };
        // The first one last: the others wait for it, if the guest is to start them.
        for vcpu in vcpus.into_iter().rev() {
            let (ending, awake) = (running.ending.clone(), Arc::clone(&awake));
            let name = format!("vcpu{}", vcpu.id());
            let thread =
                thread::Builder::new().name(name).spawn(move || run(vcpu, &ending, &awake));
            running.threads.push(thread.map_err(MachineError::host("a vCPU's thread"))?);
        }
        Ok(running)
    }

    /// Waits until the VM has ended and no vCPU runs.
    pub fn wait(mut self) -> End {
        let end = self.ending.wait_for(Duration::MAX);
        self.join();
        end.unwrap_or(End::Stopped)
    }

    /// Waits until the VM has ended, at most this long.
    pub fn wait_for(&self, timeout: Duration) -> Option<End> {
        self.ending.wait_for(timeout)
    }

    /// Ends the VM.
    pub fn ending(&self) -> &Ending {
        &self.ending
    }

    /// How often its vCPUs have left the guest so far.
    pub fn exits(&self) -> Exits {
        let mut sum = Exits::default();
        self.counters.iter().for_each(|counters| counters.add_to(&mut sum));
        sum
    }

    /// Waits for the threads, once the end is requested. Kicks them again until they have ended: a
    /// signal is lost if the user has too many.
    fn join(&mut self) {
        let mut pause = FIRST_LOOK;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() {
                thread::sleep(pause);
                pause = (pause * 2).min(LAST_LOOK);
                self.ending.kick();
            }
            // A panic was caught there.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ending.request(End::Stopped);
        self.join();
    }
}

/// A vCPU's thread. A device that panics ends the VM, not the program.
fn run(mut vcpu: Vcpu, ending: &Ending, awake: &AtomicUsize) {
    let id = vcpu.id();
    match catch_unwind(AssertUnwindSafe(|| vcpu.run())) {
        Ok(false) => {}
        Ok(true) => {
            if awake.fetch_sub(1, Ordering::AcqRel) == 1 {
                ending.request(End::Halted);
            }
        }
        Err(_) => {
            let rip = vcpu.kvm().get_regs().map_or(0, |regs| regs.rip);
            ending.request(End::Failed { vcpu: id, rip, why: Failure::Panic });
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ending, threads, .. } = self;
        f.debug_struct("Running").field("ending", ending).field("vcpus", &threads.len()).finish()
    }
}
