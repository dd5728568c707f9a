//! Turns a document into a plan: checks each table, and all of them together.

use toml::Spanned;

use super::check::{Check, Names};
use super::error::ConfigError;
use super::file::{Document, VdevTable};
use super::grants::plan_domains;
use super::layout::Layout;
use super::loads::plan_loads;
use super::machine::device::DeviceConfig;
use super::machine::plan::plan_machine;
use super::plan::{Plan, VdevPlan};
use super::source::{Mark, Source};
use crate::iommu::Unattached;
use crate::mapping::DrainPolicy;

impl Plan {
    pub(super) fn new(source: &Source, document: Document) -> Result<Self, ConfigError> {
        let guest = document.guest;
        let check = Check::new(source, guest.address_width.as_ref())?;
        let name = guest.name.map_or(Ok("guest".into()), |name| check.name(&name, "guest.name"))?;
        let drain = check.drain(&document.drain, DrainPolicy::default(), "drain.deadline-ms")?;
        let iommu = match document.iommu {
            Some(table) => Some(table.unattached.map_or_else(Unattached::default, |word| word.0)),
            // Until the guest's driver enables it, devices in front of it bypass it.
            None if document.vdev.iter().any(is_iommu) => Some(Unattached::Bypass),
            None => None,
        };
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

        let machine = plan_machine(&check, &document.machine, &document.vdev)?;

        let mut layout = Layout::new(&check);
        document.ram.iter().try_for_each(|table| layout.ram(table))?;
        document.rom.iter().try_for_each(|table| layout.rom(table))?;
        document.reserve.iter().try_for_each(|table| layout.reserve(table))?;
        document.pass.iter().try_for_each(|table| layout.pass(table))?;
        document.mmio.iter().try_for_each(|table| layout.mmio(table, &vdev_names))?;
        let regions = layout.finish()?;
        let loads = plan_loads(&check, &document.load, &regions)?;
        let domains = plan_domains(&check, &document.domain, &regions, drain)?;
        Ok(Self {
            name,
            width: check.width,
            allow_unpinned: guest.allow_unpinned,
            frame_broker: guest.frame_broker.map(|path| {
                let at = Mark::of(&path, "guest.frame-broker");
                (source.resolve(at, path.get_ref()), at)
            }),
            drain,
            iommu,
            regions,
            domains,
            vdevs,
            loads,
            machine,
        })
    }
}

fn is_iommu(vdev: &Spanned<VdevTable>) -> bool {
    let kind = vdev.get_ref().r#type.as_ref();
    kind.is_some_and(|kind| kind.get_ref() == DeviceConfig::IOMMU)
}
