//! What a configuration file says, checked: everything that [`build`](super::build) needs.

use std::path::PathBuf;

use super::ConfigError;
use super::check::{Check, Names};
use super::file::Document;
use super::layout::Layout;
use super::rules::plan_domains;
use super::source::{Mark, Source};
use crate::access::Access;
use crate::addr::{DeviceAddr, GuestPhys, HostPhys};
use crate::guest::Unattached;
use crate::iommu::DomainOptions;
use crate::mapping::DrainPolicy;
use crate::memory::{Backing, Contiguity, PinMethod, Residency};
use crate::span::Span;

/// A guest to be made.
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
}

/// A region, placed.
#[derive(Clone, Debug)]
pub(super) struct RegionPlan {
    pub(super) span: Span<GuestPhys>,
    pub(super) start_at: Mark,
    pub(super) size_at: Mark,
    pub(super) content: Content,
}

/// What is in a region.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Ram(RamPlan),
    Rom { image: Image, file_at: Mark },
    Reserve,
    Pass { path: PathBuf, path_at: Mark, host: HostPhys, offset: u64, access: Access },
    Device { vdev: String },
}

/// Where a ROM's bytes come from.
#[derive(Clone, Debug)]
pub(super) enum Image {
    File(PathBuf),
    /// Handed in with the text of the file.
    Bytes {
        name: String,
        bytes: &'static [u8],
    },
}

/// How RAM is to be made.
#[derive(Clone, Debug)]
pub(super) struct RamPlan {
    pub(super) name: String,
    pub(super) prefer: Vec<Backing>,
    pub(super) residency: Residency,
    pub(super) pins: Vec<PinMethod>,
    pub(super) contiguity: Option<Contiguity>,
    pub(super) exclusive: bool,
}

/// A domain and its rules.
#[derive(Clone, Debug)]
pub(super) struct DomainPlan {
    pub(super) name: String,
    pub(super) at: Mark,
    pub(super) options: DomainOptions,
    /// No two of them overlap.
    pub(super) rules: Vec<RulePlan>,
}

/// A rule, or a piece of several; in an identity domain both addresses are the same.
#[derive(Clone, Debug)]
pub(super) struct RulePlan {
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

impl Plan {
    pub(super) fn new(source: &Source, document: Document) -> Result<Self, ConfigError> {
        let guest = document.guest;
        let check = Check::new(source, guest.address_width.as_ref())?;
        let name = guest.name.map_or(Ok("guest".into()), |name| check.name(&name, "guest.name"))?;
        let drain = check.drain(&document.drain, DrainPolicy::default(), "drain.deadline-ms")?;
        let iommu = document
            .iommu
            .map(|table| table.unattached.map_or_else(Unattached::default, |word| word.0));
        if let (None, Some(first)) = (iommu, document.domain.first()) {
            let message = "the guest has no IOMMU for domains: add an [iommu] table";
            return Err(source.wrong(Mark::of(first, "domain"), message));
        }

        let mut domain_names = Names::new();
        for domain in &document.domain {
            check.unique(&mut domain_names, &domain.get_ref().name, "domain.name")?;
        }
        let mut vdev_names = Names::new();
        let mut vdevs = Vec::with_capacity(document.vdev.len());
        for vdev in &document.vdev {
            let vdev = vdev.get_ref();
            let domain = vdev
                .domain
                .as_ref()
                .map(|domain| check.known(&domain_names, domain, "vdev.domain", "[[domain]]"));
            vdevs.push(VdevPlan {
                name: check.unique(&mut vdev_names, &vdev.name, "vdev.name")?,
                at: Mark::of(&vdev.name, "vdev.name"),
                domain: domain.transpose()?,
            });
        }

        let mut layout = Layout::new(&check);
        document.ram.iter().try_for_each(|table| layout.ram(table))?;
        document.rom.iter().try_for_each(|table| layout.rom(table))?;
        document.reserve.iter().try_for_each(|table| layout.reserve(table))?;
        document.pass.iter().try_for_each(|table| layout.pass(table))?;
        document.device.iter().try_for_each(|table| layout.device(table, &vdev_names))?;
        let regions = layout.finish()?;
        let domains = plan_domains(&check, &document.domain, &regions, drain)?;
        Ok(Self {
            name,
            width: check.width,
            allow_unpinned: guest.allow_unpinned,
            frame_broker: guest.frame_broker.map(|path| {
                let at = Mark::of(&path, "guest.frame-broker");
                (source.resolve(path.get_ref()), at)
            }),
            drain,
            iommu,
            regions,
            domains,
            vdevs,
        })
    }
}
