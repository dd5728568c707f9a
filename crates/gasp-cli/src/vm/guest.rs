//! A guest with its devices, which last while machines come and go.

use core::ops::RangeInclusive;
use std::sync::Arc;

use gasp::{Errno, Guest, MemoryObject, RegionKind, Residency, Unattached, Vdev};
use gasp_nvme::Counters;
use gasp_vdev::Shell;
use gasp_vm::pci::Bdf;
use gasp_vm::{Iommu, layout};

use super::kind::{Created, SocketFile};
use super::plan::{DevicePlan, Memory, Plan};
use super::vdevs::function::Function;
use crate::configured;
use crate::failure::Failure;

/// Where registers are, and no memory can be.
const REGISTERS: [RangeInclusive<u64>; 3] = [
    // PCI devices, and their configuration space.
    0xc000_0000..=0xe00f_ffff,
    // The I/O APIC, the IOMMU, the local APICs and messages to them.
    0xfec0_0000..=0xfeef_ffff,
    // What KVM itself uses.
    0xfffb_c000..=0xfffb_ffff,
];

/// A guest with its devices.
pub(super) struct Vm {
    pub(super) guest: Guest,
    pub(super) iommu: Option<Iommu>,
    pub(super) devices: Vec<Device>,
}

/// A PCI device.
pub(super) struct Device {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) at: Bdf,
    pub(super) shell: Arc<Shell>,
    pub(super) vdev: Vdev,
    /// Of an NVMe controller.
    pub(super) counters: Option<Counters>,
    /// Of a vdev in C.
    pub(super) function: Option<Function>,
    _socket: Option<SocketFile>,
}

impl Vm {
    /// Creates the guest, with its memory and its devices.
    pub(super) fn create(plan: &Plan) -> Result<Self, Failure> {
        let guest = match &plan.memory {
            Memory::Ram(size) => with_ram(plan, *size)?,
            Memory::Config(config) => configured::create(config)?,
        };
        clear_of_registers(&guest)?;
        let iommu = plan.iommu.then(|| Iommu::new(&guest)).transpose()?;
        let mut devices = Vec::new();
        for device in &plan.devices {
            devices.push(Device::create(&guest, iommu.as_ref(), device)?);
        }
        Ok(Self { guest, iommu, devices })
    }

    /// The vdevs in C on the PCI bus, by name.
    pub(super) fn functions(&self) -> impl Iterator<Item = (&str, &Function)> {
        self.devices.iter().filter_map(|device| Some((&*device.name, device.function.as_ref()?)))
    }

    /// The bytes of RAM.
    pub(super) fn ram(&self) -> u64 {
        let regions = self.guest.space().regions();
        let ram = regions.iter().filter(|region| region.kind() == RegionKind::Ram);
        ram.map(|region| region.span().len()).sum()
    }
}

/// A guest with RAM alone, which is allocated as it is used.
fn with_ram(plan: &Plan, size: u64) -> Result<Guest, Failure> {
    let mut builder = Guest::builder().name(&plan.name);
    if plan.iommu {
        // As on hardware, until the guest's driver enables it.
        builder = builder.iommu(Unattached::Bypass);
    }
    let guest = builder.build()?;
    let ram = MemoryObject::ram(size).residency(Residency::OnDemand).create()?;
    layout::add_ram(&guest, &ram)?;
    Ok(guest)
}

/// Refuses memory where registers are.
fn clear_of_registers(guest: &Guest) -> Result<(), Failure> {
    for region in guest.space().regions().iter() {
        let (start, last) = (region.span().start().0, region.span().last().0);
        let covers = |range: &&RangeInclusive<u64>| start <= *range.end() && last >= *range.start();
        let has_memory = !matches!(region.kind(), RegionKind::Reserved | RegionKind::Device);
        if let Some(range) = REGISTERS.iter().find(covers).filter(|_| has_memory) {
            let message = format!(
                "memory at {start:#x} to {last:#x} covers the registers at {:#x} to {:#x}; use \
                 memory below 3G and from 4G on, as in `ram 0,3G ram 4G,1G`",
                range.start(),
                range.end()
            );
            return Err(Failure::Usage(message));
        }
    }
    Ok(())
}

impl Device {
    fn create(guest: &Guest, iommu: Option<&Iommu>, plan: &DevicePlan) -> Result<Self, Failure> {
        let unavailable = |errno: Errno, message: &str| plan.origin.unavailable(errno, message);
        let created = plan.kind.create(&plan.name, iommu.is_some());
        let Created { shell, counters, socket, function } =
            created.map_err(|error| unavailable(error.errno, &error.message))?;
        let refused = |error: gasp::Error| unavailable(error.errno(), &error.to_string());
        let vdev = match guest.find_vdev(&plan.name) {
            Some(vdev) => vdev,
            None => guest.vdev(&plan.name).map_err(refused)?,
        };
        if let Some(iommu) = iommu {
            // It has no mappings yet for which this could wait.
            let _ = iommu.attach(plan.at, &vdev).map_err(refused)?.wait();
        }
        let (name, kind, at) = (plan.name.clone(), plan.kind.name().to_owned(), plan.at);
        let shell = Arc::new(shell);
        Ok(Self { name, kind, at, shell, vdev, counters, function, _socket: socket })
    }
}
