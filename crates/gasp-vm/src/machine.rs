//! The VM, and its builder.

use core::fmt;
use std::ffi::CString;
use std::sync::Arc;

use gasp::{Errno, Guest, SpaceListener};
use kvm_bindings::{KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};

use crate::bus::Bus;
use crate::controllers::{Interrupts, create_controllers};
use crate::cpuid::Template;
use crate::ending::Ending;
use crate::error::{MachineError, errno_of};
use crate::gate::Gate;
use crate::inner::Inner;
use crate::layout::{IDENTITY_MAP, TASK_STATE};
use crate::routes::{MessageSender, Routes};
use crate::running::Running;
use crate::slots::Slots;
use crate::vcpu::Vcpu;

/// A VM on KVM: the memory of a guest, interrupt controllers, ports and registers.
///
/// It follows the regions of the guest for as long as it, or a vCPU of it, exists. A guest that
/// resets itself gets a new one, on the same [`Guest`].
///
/// ```no_run
/// use gasp::{Guest, GuestPhys, MemoryObject};
/// use gasp_vm::{Interrupts, Machine};
///
/// let guest = Guest::builder().build()?;
/// guest.space().add_ram(None, &MemoryObject::ram(2 << 20).create()?)?;
/// guest.write_firmware(GuestPhys(0), &[0xf4])?; // hlt
/// let machine = Machine::builder().interrupts(Interrupts::None).build(&guest)?;
/// let vcpus = machine.vcpus(1)?;
/// let mut special = vcpus[0].kvm().get_sregs()?;
/// (special.cs.base, special.cs.selector) = (0, 0);
/// vcpus[0].kvm().set_sregs(&special)?;
/// let mut general = vcpus[0].kvm().get_regs()?;
/// general.rip = 0;
/// vcpus[0].kvm().set_regs(&general)?;
/// println!("{}", machine.start(vcpus)?.wait());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Machine(pub(crate) Arc<Inner>);

/// A builder of a [`Machine`]; see [`Machine::builder`].
#[derive(Clone, Debug)]
#[must_use = "call `build`"]
pub struct MachineBuilder {
    path: String,
    interrupts: Interrupts,
}

impl Machine {
    /// A builder with the default options.
    pub fn builder() -> MachineBuilder {
        MachineBuilder { path: "/dev/kvm".into(), interrupts: Interrupts::Kernel }
    }

    /// The guest whose memory it has.
    pub fn guest(&self) -> &Guest {
        &self.0.guest
    }

    /// The I/O ports.
    pub fn ports(&self) -> &Arc<Bus> {
        &self.0.ports
    }

    /// The registers at memory addresses. An access is theirs if there is no memory at the address,
    /// or it is a write to ROM.
    pub fn mmio(&self) -> &Arc<Bus> {
        &self.0.mmio
    }

    /// A sender of messages to the local APICs.
    pub fn messages(&self) -> MessageSender {
        MessageSender::new(&self.0.vm)
    }

    /// Ends the VM.
    pub fn ending(&self) -> &Ending {
        &self.0.ending
    }

    /// Creates all vCPUs of the VM, as they are after power-on. Number 0 runs first; with
    /// [interrupt controllers](Interrupts::Kernel) the others wait until the guest starts them.
    ///
    /// # Errors
    /// [`MachineError::Vcpus`]; [`MachineError::Kvm`].
    pub fn vcpus(&self, count: usize) -> Result<Vec<Vcpu>, MachineError> {
        let max = self.0.most_vcpus;
        if count == 0 || count > max {
            return Err(MachineError::Vcpus { count, max });
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        (0..count).map(|id| Vcpu::new(&self.0, id, count)).collect()
    }

    /// Starts a thread for each vCPU.
    ///
    /// # Errors
    /// [`MachineError::Host`] if a thread cannot be started; the VM has then ended.
    pub fn start(&self, vcpus: Vec<Vcpu>) -> Result<Running, MachineError> {
        Running::start(self.0.ending.clone(), vcpus)
    }
}

impl MachineBuilder {
    /// Sets the path of the KVM device; `/dev/kvm` by default.
    pub fn kvm(self, path: &str) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Sets the interrupt controllers.
    pub fn interrupts(self, interrupts: Interrupts) -> Self {
        Self { interrupts, ..self }
    }

    /// Creates the VM of `guest`, whose memory it has from now on.
    ///
    /// # Errors
    /// [`MachineError::NoKvm`], [`Denied`](MachineError::Denied) and the like if there is no KVM to
    /// use; [`MachineError::TooWide`] if the guest has regions past the addresses of a vCPU;
    /// [`MachineError::Memory`] if its regions cannot be followed.
    pub fn build(self, guest: &Guest) -> Result<Machine, MachineError> {
        let kvm = open(&self.path)?;
        let vm = Arc::new(kvm.create_vm().map_err(MachineError::call("KVM_CREATE_VM"))?);
        // Both are for Intel's processors, and have to be set before there is a vCPU.
        let address = usize::try_from(TASK_STATE.0).unwrap_or(0);
        vm.set_tss_address(address).map_err(MachineError::call("KVM_SET_TSS_ADDR"))?;
        vm.set_identity_map_address(IDENTITY_MAP.0)
            .map_err(MachineError::call("KVM_SET_IDENTITY_MAP_ADDR"))?;
        let routes = match self.interrupts {
            Interrupts::Kernel => {
                create_controllers(&vm)?;
                Some(Routes::new(
                    &vm,
                    usize::try_from(kvm.check_extension_int(Cap::IrqRouting)).unwrap_or(0),
                )?)
            }
            Interrupts::None => None,
        };
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(MachineError::call("KVM_GET_SUPPORTED_CPUID"))?;
        // KVM leaves this one to who asks for its interrupt controllers.
        let timer =
            self.interrupts == Interrupts::Kernel && kvm.check_extension(Cap::TscDeadlineTimer);
        let cpuid = Template { supported, timer };
        let end = cpuid.end_of_addresses();
        let lasts = guest.space().regions().iter().map(|region| region.span().last().0).max();
        if let Some(last) = lasts.filter(|&last| last >= end) {
            return Err(MachineError::TooWide { last, width: end.trailing_zeros() });
        }
        let gate = Arc::new(Gate::default());
        let slots: Arc<dyn SpaceListener> =
            Arc::new(Slots::new(Arc::clone(&vm), Arc::clone(&gate), kvm.get_nr_memslots()));
        guest.space().add_listener(Arc::clone(&slots))?;
        Ok(Machine(Arc::new(Inner {
            vm,
            guest: guest.clone(),
            ending: Ending::new(Arc::clone(&gate)),
            gate,
            ports: Arc::default(),
            mmio: Arc::default(),
            interrupts: self.interrupts,
            routes,
            cpuid,
            most_vcpus: kvm.get_max_vcpus(),
            slots,
        })))
    }
}

/// Opens KVM, and checks that it has what the VM needs.
fn open(path: &str) -> Result<Kvm, MachineError> {
    let name = CString::new(path).map_err(|_| MachineError::open(path, Errno::NOENT))?;
    let kvm =
        Kvm::new_with_path(name).map_err(|error| MachineError::open(path, errno_of(error)))?;
    if u32::try_from(kvm.get_api_version()) != Ok(KVM_API_VERSION) {
        return Err(MachineError::NotKvm { path: path.into() });
    }
    let needed = [
        (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
        (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
        (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
        (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
        (Cap::Irqfd, "KVM_CAP_IRQFD"),
        (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
        (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
        (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
        (Cap::ReadonlyMem, "KVM_CAP_READONLY_MEM"),
    ];
    match needed.into_iter().find(|&(cap, _)| !kvm.check_extension(cap)) {
        Some((_, what)) => Err(MachineError::Lacks { what }),
        None => Ok(kvm),
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { guest, ports, mmio, .. } = &*self.0;
        f.debug_struct("Machine")
            .field("guest", guest)
            .field("ports", ports)
            .field("mmio", mmio)
            .finish_non_exhaustive()
    }
}
