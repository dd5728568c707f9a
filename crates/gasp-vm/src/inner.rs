//! What the parts of a VM share.

use std::sync::Arc;

use gasp::{Guest, SpaceListener};
use kvm_ioctls::VmFd;

use crate::bus::Bus;
use crate::controllers::Interrupts;
use crate::cpuid::Template;
use crate::ending::Ending;
use crate::gate::Gate;
use crate::routes::Routes;

/// The state of a VM, behind its handle and its vCPUs.
pub(crate) struct Inner {
    pub(crate) vm: Arc<VmFd>,
    pub(crate) guest: Guest,
    pub(crate) gate: Arc<Gate>,
    pub(crate) ending: Ending,
    pub(crate) ports: Arc<Bus>,
    pub(crate) mmio: Arc<Bus>,
    pub(crate) interrupts: Interrupts,
    /// Of its interrupt controllers, if it has any.
    pub(crate) routes: Option<Arc<Routes>>,
    pub(crate) cpuid: Template,
    pub(crate) most_vcpus: usize,
    pub(crate) slots: Arc<dyn SpaceListener>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // No vCPU is left, as each keeps this. If the lock is not free for this thread, the slots
        // and the VM stay until the guest ends.
        if let Err(error) = self.guest.space().remove_listener(&self.slots) {
            tracing::warn!(%error, "the memory slots of a VM stay");
        }
    }
}
