//! Where global system interrupts lead: the lines to the I/O APIC, further ones to messages.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use gasp::Errno;
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irq_routing_msi, kvm_msi,
};
use kvm_ioctls::VmFd;
use parking_lot::Mutex;

use crate::controllers::LINES;
use crate::error::MachineError;

/// A message-signalled interrupt: what a device writes, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// The address, as the guest's driver has set it.
    pub addr: u64,
    /// The data.
    pub data: u32,
}

/// The routes of a VM, which KVM takes all at once.
pub(crate) struct Routes {
    vm: Arc<VmFd>,
    /// The most entries that KVM takes.
    most: usize,
    messages: Mutex<BTreeMap<u32, Option<Message>>>,
}

impl Routes {
    /// Leads every line to the I/O APIC alone: the 8259s that come with it stay unconnected,
    /// because what they are programmed to after power-on is nothing that a guest without legacy
    /// hardware would change.
    pub(crate) fn new(vm: &Arc<VmFd>, most: usize) -> Result<Arc<Self>, MachineError> {
        let routes = Self { vm: Arc::clone(vm), most, messages: Mutex::default() };
        routes.apply(&BTreeMap::new())?;
        Ok(Arc::new(routes))
    }

    /// Reserves a number for messages.
    pub(crate) fn reserve(self: &Arc<Self>) -> Result<Route, MachineError> {
        let mut messages = self.messages.lock();
        let gsi = (LINES..).find(|gsi| !messages.contains_key(gsi));
        match gsi.filter(|_| LINES as usize + messages.len() < self.most) {
            Some(gsi) => {
                messages.insert(gsi, None);
                Ok(Route { gsi, routes: Arc::clone(self) })
            }
            None => Err(MachineError::Kvm { what: "a route of interrupts", errno: Errno::NOSPC }),
        }
    }

    fn apply(&self, messages: &BTreeMap<u32, Option<Message>>) -> Result<(), MachineError> {
        let lines = (0..LINES).map(|gsi| {
            let pin = kvm_irq_routing_irqchip { irqchip: KVM_IRQCHIP_IOAPIC, pin: gsi };
            let mut entry =
                kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
            entry.u.irqchip = pin;
            entry
        });
        let messages = messages.iter().filter_map(|(&gsi, message)| {
            let Message { addr, data } = (*message)?;
            let mut entry =
                kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
            let (address_lo, address_hi) = (addr as u32, (addr >> 32) as u32);
            entry.u.msi =
                kvm_irq_routing_msi { address_lo, address_hi, data, ..Default::default() };
            Some(entry)
        });
        let what = "KVM_SET_GSI_ROUTING";
        let entries: Vec<_> = lines.chain(messages).collect();
        let routes = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| MachineError::Kvm { what, errno: Errno::NOSPC })?;
        self.vm.set_gsi_routing(&routes).map_err(MachineError::call(what))
    }
}

/// A global system interrupt that leads to a message; dropping it frees its number.
pub(crate) struct Route {
    gsi: u32,
    routes: Arc<Routes>,
}

impl Route {
    pub(crate) fn gsi(&self) -> u32 {
        self.gsi
    }

    /// Leads it to `message`; nothing has changed if that fails.
    pub(crate) fn set(&self, message: Message) -> Result<(), MachineError> {
        let mut messages = self.routes.messages.lock();
        let before = messages.insert(self.gsi, Some(message)).flatten();
        let applied = self.routes.apply(&messages);
        if applied.is_err() {
            messages.insert(self.gsi, before);
        }
        applied
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        // KVM keeps the entry until the next change, when nothing is connected to it.
        self.routes.messages.lock().remove(&self.gsi);
    }
}

/// Sends messages to a VM's local APICs, as its IOMMU does for its own events. It does not keep the
/// VM's devices, so a device may have it.
#[derive(Clone)]
pub struct MessageSender(Arc<VmFd>);

impl MessageSender {
    pub(crate) fn new(vm: &Arc<VmFd>) -> Self {
        Self(Arc::clone(vm))
    }

    /// Sends a message. Returns whether a local APIC has accepted it.
    ///
    /// # Errors
    /// [`MachineError::Kvm`], such as `ENXIO` if the VM has no interrupt controllers.
    pub fn send(&self, message: Message) -> Result<bool, MachineError> {
        let Message { addr, data } = message;
        let (address_lo, address_hi) = (addr as u32, (addr >> 32) as u32);
        let msi = kvm_msi { address_lo, address_hi, data, ..Default::default() };
        let sent = self.0.signal_msi(msi).map_err(MachineError::call("KVM_SIGNAL_MSI"))?;
        Ok(sent > 0)
    }
}

impl fmt::Debug for MessageSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageSender").finish_non_exhaustive()
    }
}
