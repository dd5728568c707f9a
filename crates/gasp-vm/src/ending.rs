//! How a VM ends: who says so first.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use gasp::{Errno, system_words};
use parking_lot::{Condvar, Mutex};

use crate::gate::Gate;

/// Why a VM has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum End {
    /// The guest has switched itself off.
    PowerOff,
    /// The guest asks to be started anew.
    Reset,
    /// The host has ended it: [`Ending::request`] with this, or the [`Running`](crate::Running) VM
    /// was dropped.
    Stopped,
    /// A device has ended it.
    Device {
        /// What the program is to exit with, as far as that is the device's business.
        status: u8,
        /// Which device, and why.
        why: String,
    },
    /// A fault while a vCPU handled a fault in the handling of a fault: a PC would reset itself.
    TripleFault {
        /// The number of the vCPU.
        vcpu: u32,
    },
    /// All vCPUs have halted, in a VM without interrupt controllers: nothing can wake them.
    Halted,
    /// A vCPU cannot go on.
    Failed {
        /// The number of the vCPU.
        vcpu: u32,
        /// The address of its next instruction.
        rip: u64,
        /// Why.
        why: Failure,
    },
}

/// Why a vCPU cannot go on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// KVM cannot emulate an instruction, such as one that is not in memory.
    Emulation,
    /// The processor refuses the vCPU's state, with this number.
    Entry(u64),
    /// KVM gave up, with this suberror.
    Internal(u32),
    /// KVM has returned for a reason that this program does not know.
    Unknown(String),
    /// A call of KVM failed. `EFAULT`: the guest's memory is gone.
    Call(&'static str, Errno),
    /// A device has panicked.
    Panic,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("the guest has powered off"),
            Self::Reset => f.write_str("the guest has reset itself"),
            Self::Stopped => f.write_str("the host has stopped the guest"),
            Self::Device { why, .. } => f.write_str(why),
            Self::TripleFault { vcpu } => write!(f, "vCPU {vcpu}: triple fault"),
            Self::Halted => f.write_str("all vCPUs have halted, and nothing can wake them"),
            Self::Failed { vcpu, rip, why } => write!(f, "vCPU {vcpu} at {rip:#x}: {why}"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Emulation => f.write_str("KVM cannot emulate the instruction there"),
            Self::Entry(reason) => write!(f, "the processor refuses its state ({reason:#x})"),
            Self::Internal(suberror) => write!(f, "KVM's internal error {suberror}"),
            Self::Unknown(exit) => write!(f, "KVM returned for an unknown reason ({exit})"),
            Self::Call(what, errno) => write!(f, "{what}: {}", system_words(*errno)),
            Self::Panic => f.write_str("a device has panicked"),
        }
    }
}

/// Ends a VM, and waits for its end. A clone is the same.
///
/// Whoever asks first decides why it has ended.
#[derive(Clone)]
pub struct Ending(Arc<Inner>);

struct Inner {
    gate: Arc<Gate>,
    /// Whether there is an end, for who looks often.
    set: AtomicBool,
    end: Mutex<Option<End>>,
    changed: Condvar,
}

impl Ending {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        let (set, end, changed) = (AtomicBool::new(false), Mutex::default(), Condvar::new());
        Self(Arc::new(Inner { gate, set, end, changed }))
    }

    /// Ends the VM: every vCPU leaves the guest, and its thread ends. Returns whether this was the
    /// first request. A device may call it.
    pub fn request(&self, end: End) -> bool {
        let mut place = self.0.end.lock();
        if place.is_some() {
            return false;
        }
        tracing::debug!(%end, "the VM ends");
        *place = Some(end);
        drop(place);
        self.0.set.store(true, Ordering::SeqCst);
        self.0.changed.notify_all();
        self.kick();
        true
    }

    /// Gets the vCPUs out of the guest once more.
    pub(crate) fn kick(&self) {
        self.0.gate.kick();
    }

    /// Whether the end has been requested.
    pub fn is_requested(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// Waits for the end, at most this long.
    pub fn wait_for(&self, timeout: Duration) -> Option<End> {
        let until = Instant::now().checked_add(timeout);
        let mut end = self.0.end.lock();
        while end.is_none() {
            match until {
                None => self.0.changed.wait(&mut end),
                Some(until) => {
                    if self.0.changed.wait_until(&mut end, until).timed_out() {
                        break;
                    }
                }
            }
        }
        end.clone()
    }
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ending").field(&self.0.end.lock()).finish()
    }
}
