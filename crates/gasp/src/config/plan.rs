//! The checked contents of a configuration file: everything that [`build`](super::build) needs.

use std::path::PathBuf;

use super::machine::machine_config::MachineConfig;
use super::source::Mark;
use crate::access::Access;
use crate::addr::{DeviceAddr, GuestPhys, HostPhys};
use crate::iommu::DomainOptions;
use crate::iommu::Unattached;
use crate::mapping::DrainPolicy;
use crate::memory::{Backing, Contiguity, PinMethod, Residency};
use crate::span::Span;

/// A guest to create.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) width: u32,
    pub(super) allow_unpinned: bool,
    pub(super) frame_broker: Option<(PathBuf, Mark)>,
    pub(super) drain: DrainPolicy,
    pub(super) iommu: Option<Unattached>,
    /// RAM, then ROM, then the rest; each in the order of the file.
    pub(super) regions: Vec<RegionPlan>,
    pub(super) domains: Vec<DomainPlan>,
    pub(super) vdevs: Vec<VdevPlan>,
    /// In the order in which they are copied.
    pub(super) loads: Vec<LoadPlan>,
    pub(super) machine: MachineConfig,
}

/// A file that is copied into RAM or ROM.
#[derive(Clone, Debug)]
pub(super) struct LoadPlan {
    pub(super) span: Span<GuestPhys>,
    pub(super) path: PathBuf,
    pub(super) at: Mark,
}

/// A region with its place.
#[derive(Clone, Debug)]
pub(super) struct RegionPlan {
    pub(super) span: Span<GuestPhys>,
    pub(super) start_at: Mark,
    pub(super) size_at: Mark,
    pub(super) content: Content,
}

/// Contents of a region.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Ram(RamPlan),
    /// Empty without an image.
    Rom {
        image: Option<(Image, Mark)>,
    },
    Reserve,
    Pass {
        path: PathBuf,
        path_at: Mark,
        host: HostPhys,
        offset: u64,
        access: Access,
        /// Whether it is system RAM to the guest.
        ram: bool,
        /// Whether the host maps it uncached.
        uncached: bool,
    },
    Device {
        vdev: String,
    },
}

/// Source of a ROM's bytes.
#[derive(Clone, Debug)]
pub(super) enum Image {
    File(PathBuf),
    /// Passed by the program, with the text of the file.
    Bytes {
        name: String,
        bytes: &'static [u8],
    },
}

/// Options of RAM.
#[derive(Clone, Debug)]
pub(super) struct RamPlan {
    pub(super) name: String,
    pub(super) prefer: Vec<Backing>,
    /// `None` if the text does not say.
    pub(super) residency: Option<Residency>,
    pub(super) pins: Vec<PinMethod>,
    pub(super) contiguity: Option<Contiguity>,
    pub(super) exclusive: bool,
}

/// A domain and its grants.
#[derive(Clone, Debug)]
pub(super) struct DomainPlan {
    pub(super) name: String,
    pub(super) at: Mark,
    pub(super) options: DomainOptions,
    /// No two of them overlap.
    pub(super) grants: Vec<GrantPlan>,
}

/// A grant, or a part of several; in an identity domain both addresses are the same.
#[derive(Clone, Debug)]
pub(super) struct GrantPlan {
    pub(super) at: Mark,
    pub(super) device: DeviceAddr,
    pub(super) guest: GuestPhys,
    pub(super) len: u64,
    pub(super) access: Access,
}

/// A device and the domain that it is attached to.
#[derive(Clone, Debug)]
pub(super) struct VdevPlan {
    pub(super) name: String,
    pub(super) at: Mark,
    pub(super) domain: Option<String>,
}
