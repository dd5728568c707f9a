//! A vdev in C as a PCI function. It lasts while machines come and go, and has a fresh instance for
//! each of them.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;

use gasp_qvm::{PciFailure, PciVdev, VdevError};
use gasp_vm::{End, Machine, Message, RawTerminal};
use parking_lot::Mutex;

use super::host::{PATIENCE, Wires, status_of};
use super::plan::VdevPlan;

/// The exit status if a vdev refuses to start with a machine.
const NOT_STARTED: u8 = 1;

/// A vdev as a PCI function.
pub(in crate::vm) struct Function {
    pub(in crate::vm) vdev: PciVdev,
    link: Arc<Link>,
}

/// The machine that a function is in.
struct Link {
    name: String,
    wires: Mutex<Option<Wires>>,
    is_stuck: AtomicBool,
}

impl Function {
    /// Creates the function: an instance of the vdev has gone through its life then.
    pub(in crate::vm) fn create(plan: &VdevPlan) -> Result<Self, VdevError> {
        let link = Arc::new(Link {
            name: plan.name.clone(),
            wires: Mutex::default(),
            is_stuck: AtomicBool::new(false),
        });
        let (messages, failures) = (Arc::clone(&link), Arc::clone(&link));
        let vdev = PciVdev::builder(&plan.factory, &plan.request)
            .messages(move |addr, data| messages.send(Message { addr, data }))
            .on_failure(move |failure| failures.end(failure))
            .build()?;
        Ok(Self { vdev, link })
    }

    /// It is about to be attached to a machine.
    pub(in crate::vm) fn connect(&self, machine: &Machine) {
        let wires = Wires { messages: machine.messages(), ending: machine.ending().clone() };
        *self.link.wires.lock() = Some(wires);
    }

    /// Its machine has ended.
    pub(in crate::vm) fn disconnect(&self) {
        *self.link.wires.lock() = None;
    }

    /// Whether a thread is in the vdev for ever.
    pub(in crate::vm) fn is_stuck(&self) -> bool {
        self.link.is_stuck.load(Ordering::Acquire)
    }
}

impl Link {
    fn send(&self, message: Message) {
        let sender = self.wires.lock().as_ref().map(|wires| wires.messages.clone());
        if let Some(Err(error)) = sender.map(|sender| sender.send(message)) {
            tracing::debug!(vdev = self.name, %error, ?message, "a message is lost");
        }
    }

    fn end(&self, failure: &PciFailure) {
        let (status, is_stuck) = match failure {
            PciFailure::Ended(end) => (status_of(&end.cause), false),
            PciFailure::Stuck(end) => (status_of(&end.cause), true),
            _ => (NOT_STARTED, false),
        };
        let ending = self.wires.lock().as_ref().map(|wires| wires.ending.clone());
        self.is_stuck.fetch_or(is_stuck, Ordering::AcqRel);
        if let Some(ending) = ending {
            ending.request(End::Device { status, why: failure.to_string() });
        }
        if is_stuck {
            thread::sleep(PATIENCE);
            RawTerminal::restore();
        }
    }
}
