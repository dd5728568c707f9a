//! From power-on to the end of a VM: a machine, which the next reset replaces.

use core::mem;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use gasp::Errno;
use gasp_vm::boot::{Boot, BootError};
use gasp_vm::pci::{PciError, PciRoot};
use gasp_vm::serial::SerialPort;
use gasp_vm::{End, Machine, MachineError, PowerButton, acpi};

use super::guest::Vm;
use super::plan::Plan;
use super::report::Report;
use super::signals::Signalled;
use super::vdevs::Vdevs;
use super::vdevs::function::Function;
use crate::failure::Failure;

/// How often counters, faults and signals are looked at.
const TICK: Duration = Duration::from_millis(200);
/// How long the rest of the console's output may take.
const FLUSH: Duration = Duration::from_secs(1);

/// Runs the VM from power-on to the end.
pub(super) fn cycle(
    vm: &Vm,
    plan: &Plan,
    kvm: &str,
    signalled: &Signalled,
    report: &mut Report,
) -> Result<End, Failure> {
    let machine = Machine::builder().kvm(kvm).build(&vm.guest)?;
    if let Some(iommu) = &vm.iommu {
        iommu.connect(&machine)?;
    }
    let pci = PciRoot::new(&machine)?;
    let functions = Functions::connect(vm, &machine);
    for device in &vm.devices {
        pci.attach(device.at, Arc::clone(&device.shell), device.vdev.clone())?;
    }
    let console = SerialPort::connect(&machine, io::stdout())?;
    let button = PowerButton::connect(&machine)?;
    let vcpus = machine.vcpus(usize::try_from(plan.cpus).unwrap_or(usize::MAX))?;
    let mut vdevs = match &*plan.vdevs {
        [] => None,
        plans => Some(Vdevs::create(vm, plans, Some(&machine))?),
    };
    let mut tables = pci.describe(acpi::Tables::new(plan.cpus));
    if let Some(vdevs) = &mut vdevs {
        vdevs.place(vm, pci.high_window())?;
        vdevs.connect(&machine, pci.high_window())?;
        // What they are is known now.
        tables = vdevs.describe(tables)?;
    }
    if let Some(iommu) = &vm.iommu {
        tables = iommu.describe(tables);
    }
    let root = tables.write(&vm.guest)?;
    let mut boot = Boot::new(&plan.kernel).cmdline(&plan.cmdline).acpi(root);
    if let Some(initrd) = &plan.initrd {
        boot = boot.initrd(initrd);
    }
    if let Some(first) = vcpus.first() {
        boot.load(&vm.guest)?.apply(&vm.guest, first)?;
    }
    report.started(vm, vdevs.as_ref(), plan);
    // A vdev that has asked for the button has it in place of the guest.
    let is_asked = functions.have_button() || vdevs.as_ref().is_some_and(Vdevs::have_button);
    let button = Some(button).filter(|_| !is_asked);
    let connected = signalled.connect(button, machine.ending());
    if let Some(vdevs) = &vdevs {
        vdevs.start()?;
    }
    let running = machine.start(vcpus)?;
    let input = console.read_from(io::stdin())?;
    let end = loop {
        let end = running.wait_for(TICK);
        let is_pressed = signalled.take_press();
        if is_pressed {
            report.pressed();
        }
        if is_pressed {
            let have = |all: &Vdevs| !is_asked || all.have_button();
            vdevs.iter().filter(|all| have(all)).for_each(Vdevs::button);
            functions.button(is_asked);
        }
        if signalled.take_status() {
            let all = vdevs.as_ref().map(Vdevs::status).unwrap_or_default();
            report.statuses(&[all, functions.status()].concat());
        }
        report.tick(vm, vdevs.as_ref(), &running.exits(), signalled, end.is_some());
        let Some(end) = end else { continue };
        if functions.are_stuck() || vdevs.as_ref().is_some_and(Vdevs::are_stuck) {
            console.flush(FLUSH);
            // One of these threads does not end, nor does the vdev that it is in.
            mem::forget((running, vdevs, pci));
            return Ok(end);
        }
        break running.wait();
    };
    // A panic there was reported by its hook.
    let _ = input.join();
    console.flush(FLUSH);
    drop(connected);
    drop(vdevs);
    report.cycled();
    Ok(end)
}

/// The vdevs in C on the PCI bus, connected to a machine until this is dropped.
struct Functions<'a>(&'a Vm);

impl<'a> Functions<'a> {
    fn connect(vm: &'a Vm, machine: &Machine) -> Self {
        vm.functions().for_each(|(_, function)| function.connect(machine));
        Self(vm)
    }

    fn have_button(&self) -> bool {
        self.0.functions().any(|(_, function)| function.vdev.has_button())
    }

    /// Tells all of the power button, or only those that have asked for it.
    fn button(&self, only: bool) {
        let all = self.0.functions().map(|(_, function)| &function.vdev);
        all.filter(|vdev| !only || vdev.has_button()).for_each(|vdev| _ = vdev.button());
    }

    fn status(&self) -> Vec<(String, String)> {
        let status = |(name, function): (&str, &Function)| {
            (name.to_owned(), function.vdev.status().unwrap_or_default())
        };
        self.0.functions().map(status).collect()
    }

    fn are_stuck(&self) -> bool {
        self.0.functions().any(|(_, function)| function.is_stuck())
    }
}

impl Drop for Functions<'_> {
    fn drop(&mut self) {
        self.0.functions().for_each(|(_, function)| function.disconnect());
    }
}

impl From<MachineError> for Failure {
    fn from(error: MachineError) -> Self {
        let errno = match &error {
            MachineError::NoKvm { .. } => Errno::NOENT,
            MachineError::Denied { .. } => Errno::ACCESS,
            MachineError::Refused { errno, .. } | MachineError::Kvm { errno, .. } => *errno,
            MachineError::NotKvm { .. } => Errno::NODEV,
            MachineError::Lacks { .. } => Errno::NOTSUP,
            MachineError::Memory(error) => error.errno(),
            MachineError::Host { source, .. } => {
                Errno::from_io_error(source).unwrap_or(Errno::INVAL)
            }
            _ => Errno::INVAL,
        };
        Self::Unavailable { errno, message: error.to_string() }
    }
}

impl From<BootError> for Failure {
    fn from(error: BootError) -> Self {
        let errno = match &error {
            BootError::Open { source, .. } => Errno::from_io_error(source).unwrap_or(Errno::IO),
            BootError::Memory(error) => error.errno(),
            BootError::RamTooSmall { .. } | BootError::InitrdTooLarge { .. } => Errno::NOMEM,
            _ => Errno::INVAL,
        };
        Self::Unavailable { errno, message: crate::failure::plain(&error.to_string()) }
    }
}

impl From<PciError> for Failure {
    fn from(error: PciError) -> Self {
        Self::Unavailable { errno: Errno::NOSPC, message: error.to_string() }
    }
}

impl From<acpi::AcpiError> for Failure {
    fn from(error: acpi::AcpiError) -> Self {
        Self::Unavailable { errno: Errno::NOSPC, message: error.to_string() }
    }
}
