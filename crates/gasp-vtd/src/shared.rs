//! What the translators of a unit's requesters share with its registers.

use gasp::Access;
use parking_lot::Mutex;

use crate::capabilities::Capabilities;
use crate::faults::{Fault, Faults};
use crate::message::Message;
use crate::root::Root;

/// The part of a unit that its translators reach. It does not own the guest, which owns them.
pub(crate) struct Shared {
    pub(crate) capabilities: Capabilities,
    pub(crate) root: Root,
    pub(crate) faults: Mutex<Faults>,
    /// Sends an interrupt; called without locks.
    pub(crate) send: Box<dyn Fn(Message) + Send + Sync>,
}

impl Shared {
    /// Records a fault, on the thread of the device that has caused it.
    pub(crate) fn record(&self, fault: Fault) {
        let message = self.faults.lock().record(fault);
        if let Some(message) = message {
            (self.send)(message);
        }
    }
}

/// The fault reason of an access that is refused for want of permission.
pub(crate) fn denied(access: Access) -> u8 {
    if access.contains(Access::WRITE) { 0x5 } else { 0x6 }
}
