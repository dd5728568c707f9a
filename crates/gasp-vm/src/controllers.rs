//! The interrupt controllers of a VM.

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

/// Creates the interrupt controllers.
pub(crate) fn create_controllers(vm: &VmFd) -> Result<(), MachineError> {
    vm.create_irq_chip().map_err(MachineError::call("KVM_CREATE_IRQCHIP"))
}
