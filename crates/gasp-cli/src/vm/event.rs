//! Events of a VM, as JSON has them.

use gasp::{AskCounts, Fault, Vdev};
use gasp_vm::Exits;
use serde::{Deserialize, Serialize};

use super::guest::{Device, Vm};
use super::plan::Plan;
use super::vdevs::Vdevs;

/// An event; one object on a line.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event {
    Started {
        name: String,
        kernel: String,
        ram_bytes: u64,
        cpus: u32,
        iommu: bool,
        devices: Vec<DeviceIntro>,
    },
    Totals(Totals),
    Fault {
        device: String,
        addr: u64,
        access: String,
        reason: String,
    },
    FaultsDropped {
        count: u64,
    },
    PowerButton {},
    VdevStatus {
        vdev: String,
        text: String,
    },
    Reset {},
    Ended {
        status: u8,
        why: String,
    },
}

#[derive(Serialize)]
pub(super) struct DeviceIntro {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    at: String,
}

/// The answer to `status`.
#[derive(Serialize, Deserialize)]
pub(super) struct Status {
    pub(super) name: String,
    /// Seconds since the command began.
    pub(super) seconds: f64,
    #[serde(flatten)]
    pub(super) totals: Totals,
}

/// Counters since the command began.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Totals {
    pub(super) exits: ExitTotals,
    pub(super) devices: Vec<DeviceTotals>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct ExitTotals {
    pub(super) port: u64,
    pub(super) mmio: u64,
    pub(super) interrupted: u64,
    pub(super) other: u64,
}

#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct DeviceTotals {
    pub(super) name: String,
    pub(super) at: String,
    /// Mappings that it holds now.
    pub(super) held: u64,
    /// Of a device behind the IOMMU.
    pub(super) iommu: Option<IommuTotals>,
    /// Of an NVMe controller.
    pub(super) nvme: Option<NvmeTotals>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct IommuTotals {
    pub(super) misses: u64,
    pub(super) evictions: u64,
    pub(super) invalidations: u64,
    /// Entries of its table now.
    pub(super) entries: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct NvmeTotals {
    pub(super) reads: u64,
    pub(super) read_bytes: u64,
    pub(super) writes: u64,
    pub(super) written_bytes: u64,
    pub(super) errors: u64,
}

impl Event {
    pub(super) fn started(vm: &Vm, vdevs: Option<&Vdevs>, plan: &Plan) -> Self {
        let intro = |device: &Device| DeviceIntro {
            name: device.name.clone(),
            kind: device.kind.clone(),
            at: device.at.to_string(),
        };
        let vdevs = vdevs.into_iter().flat_map(Vdevs::intros);
        let vdevs =
            vdevs.map(|(name, kind, at)| DeviceIntro { name: name.into(), kind: kind.into(), at });
        Self::Started {
            name: plan.name.clone(),
            kernel: plan.kernel.display().to_string(),
            ram_bytes: vm.ram(),
            cpus: plan.cpus,
            iommu: plan.iommu,
            devices: vm.devices.iter().map(intro).chain(vdevs).collect(),
        }
    }

    pub(super) fn fault(fault: &Fault) -> Self {
        Self::Fault {
            device: fault.device.to_string(),
            addr: fault.addr.0,
            access: fault.access.to_string(),
            reason: fault.refusal.to_string(),
        }
    }
}

impl ExitTotals {
    /// Those of machines before, and of the one that runs.
    pub(super) fn plus(self, exits: &Exits) -> Self {
        Self {
            port: self.port.saturating_add(exits.port),
            mmio: self.mmio.saturating_add(exits.mmio),
            interrupted: self.interrupted.saturating_add(exits.interrupted),
            other: self.other.saturating_add(exits.other),
        }
    }
}

impl DeviceTotals {
    pub(super) fn of(device: &Device) -> Self {
        let nvme = device.counters.as_ref().map(|counters| {
            let now = counters.snapshot();
            NvmeTotals {
                reads: now.reads,
                read_bytes: now.read_bytes,
                writes: now.writes,
                written_bytes: now.written_bytes,
                errors: now.errors,
            }
        });
        Self { nvme, ..Self::of_vdev(&device.name, device.at.to_string(), &device.vdev) }
    }

    /// Of a device that has no counters of its own.
    pub(super) fn of_vdev(name: &str, at: String, vdev: &Vdev) -> Self {
        let domain = vdev.domain();
        let iommu = domain.and_then(|domain| {
            let AskCounts { asked, evicted, invalidations, .. } = domain.ask_counts()?;
            let entries = domain.entries();
            Some(IommuTotals { misses: asked, evictions: evicted, invalidations, entries })
        });
        Self { name: name.into(), at, held: vdev.held() as u64, iommu, nvme: None }
    }
}
