//! The interrupt controllers of a VM.

use gasp::Errno;
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_irqchip,
};
use kvm_ioctls::VmFd;

use crate::error::MachineError;

/// How many interrupt lines the I/O APIC has: global system interrupts 0 to 23.
pub const LINES: u32 = 24;

/// The interrupt controllers of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Interrupts {
    /// An I/O APIC with 24 lines and a local APIC for each vCPU, all of them in the kernel. No
    /// 8259 is connected.
    #[default]
    Kernel,
    /// None: a vCPU that halts has ended.
    None,
}

/// Creates the interrupt controllers, and leads every line to the I/O APIC alone: the 8259s that
/// come with it stay unconnected, because what they are programmed to after power-on is nothing
/// that a guest without legacy hardware would change.
pub(crate) fn create_controllers(vm: &VmFd) -> Result<(), MachineError> {
    vm.create_irq_chip().map_err(MachineError::call("KVM_CREATE_IRQCHIP"))?;
    let routes: Vec<_> = (0..LINES)
        .map(|gsi| {
            let pin = kvm_irq_routing_irqchip { irqchip: KVM_IRQCHIP_IOAPIC, pin: gsi };
            let mut entry =
                kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
            entry.u.irqchip = pin;
            entry
        })
        .collect();
    let routes = KvmIrqRouting::from_entries(&routes)
        .map_err(|_| MachineError::Kvm { what: "KVM_SET_GSI_ROUTING", errno: Errno::NOSPC })?;
    vm.set_gsi_routing(&routes).map_err(MachineError::call("KVM_SET_GSI_ROUTING"))
}
