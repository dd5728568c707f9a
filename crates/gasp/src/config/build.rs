//! Creates the guest that a configuration file describes.

use rustix::fs::OFlags;

use super::error::ConfigError;
use super::form::Form;
use super::loads::{copy, grown, load};
use super::plan::{Content, DomainPlan, Image, Plan, RamPlan, RegionPlan};
use super::source::{Mark, Source, open_file};
use crate::access::Access;
use crate::broker::use_broker;
use crate::bytes::Bytes;
use crate::error::{Errno, Error, Operation};
use crate::guest::{Guest, SpaceLock};
use crate::memory::{
    Adopt, Backing, FrameAccess, MemoryObject, RamProgress, Residency, frame_access,
};
use crate::space::{Region, RegionKind};

pub(super) fn build(
    source: &Source,
    plan: &Plan,
    residency: Residency,
    mut progress: Option<&mut dyn FnMut(RamProgress)>,
) -> Result<Guest, ConfigError> {
    fits_host(source, plan, residency)?;
    if let Some((path, at)) = &plan.frame_broker
        && frame_access() != FrameAccess::Allowed
    {
        use_broker(path).map_err(|error| match error.errno() {
            Errno::NOENT | Errno::CONNREFUSED => {
                let path = path.display();
                let message = format!(
                    "nobody listens at {path}, and this process cannot read frame numbers: start \
                     `gasp broker --socket {path}`"
                );
                source.wrong(*at, &message).caused_by(error)
            }
            _ => source.refused(*at, error),
        })?;
    }
    let mut builder = Guest::builder()
        .name(&plan.name)
        .address_width(plan.width)
        .drain(plan.drain)
        .allow_unpinned(plan.allow_unpinned);
    if let Some(unattached) = plan.iommu {
        builder = builder.iommu(unattached);
    }
    // The plan has only values that the builder accepts, so the error is about no line.
    let refused = |error| source.refused(Mark::GUEST, error);
    let guest = builder.build().map_err(refused)?;
    let space = guest.space();
    let lock = space.lock().map_err(refused)?;
    for region in &plan.regions {
        add_region(source, &lock, region, residency, &mut progress)?;
    }
    drop(lock);
    load(source, &space, &plan.loads)?;
    for domain in &plan.domains {
        add_domain(source, &guest, domain)?;
    }
    for vdev in &plan.vdevs {
        let refused = |error| source.refused(vdev.at, error);
        let device = guest.vdev(&vdev.name).map_err(refused)?;
        let domain = vdev.domain.as_deref().and_then(|name| guest.find_domain(name));
        if let Some(domain) = domain {
            // It has no mappings yet for which this could wait.
            let _ = device.attach(&domain).map_err(refused)?.wait();
        }
    }
    Ok(guest)
}

fn add_region(
    source: &Source,
    lock: &SpaceLock,
    plan: &RegionPlan,
    residency: Residency,
    progress: &mut Option<&mut dyn FnMut(RamProgress)>,
) -> Result<(), ConfigError> {
    let (start, len) = (plan.span.start(), plan.span.len());
    let at_size = |error| source.refused(plan.size_at, error);
    let region = match &plan.content {
        Content::Ram(plan) => {
            let mut ram = MemoryObject::ram(len)
                .name(&plan.name)
                .prefer(&plan.prefer)
                .residency(plan.residency.unwrap_or(residency))
                .pin(&plan.pins)
                .exclusive(plan.exclusive);
            if let Some(contiguity) = plan.contiguity {
                ram = ram.host_contiguous(contiguity);
            }
            if let Some(progress) = progress.as_deref_mut() {
                ram = ram.progress(progress);
            }
            let ram = ram.create().map_err(at_size)?;
            Region::ram(start, &ram)
        }
        Content::Rom { image } => {
            let name = match image {
                Some((Image::File(path), _)) => {
                    path.file_name().unwrap_or_default().to_string_lossy()
                }
                Some((Image::Bytes { name, .. }, _)) => name.into(),
                None => "rom".into(),
            };
            let rom = MemoryObject::ram(len).name(&name).prefer(&[Backing::Base]);
            let rom = rom.create().map_err(at_size)?;
            match image {
                None => {}
                Some((Image::File(path), file_at)) => copy(path, &mut |offset, bytes| {
                    rom.write_at(offset, bytes).map_err(|_| grown())
                })
                .map_err(|error| {
                    let what = format!("cannot read the ROM image {}", path.display());
                    source.failed(*file_at, &what, &error)
                })?,
                Some((Image::Bytes { bytes, .. }, file_at)) => {
                    rom.write_at(0, bytes).map_err(|error| source.refused(*file_at, error))?;
                }
            }
            Region::rom(start, &rom)
        }
        Content::Pass { path, path_at, host, offset, access, ram, uncached } => {
            let write = access.contains(Access::WRITE);
            let mut mode = if write { OFlags::RDWR } else { OFlags::RDONLY };
            if *uncached {
                // How `/dev/mem` is asked for an uncached mapping.
                mode |= OFlags::SYNC;
            }
            let file = open_file(path, mode).map_err(|error| {
                let how = if write { "read and write" } else { "read" };
                source.failed(*path_at, &format!("cannot {how} {}", path.display()), &error)
            })?;
            let name = path.to_string_lossy();
            let how = Adopt {
                offset: *offset,
                access: *access,
                residency: Residency::OnDemand,
                ..Adopt::new(&name, len)
            };
            let window = MemoryObject::pass_through(file.into(), *host, how)
                .map_err(|error| source.refused(*path_at, error))?;
            // Readable memory would be executable as well; the file says exactly what is offered.
            let kind = if *ram { RegionKind::Ram } else { RegionKind::PassThrough };
            Region::memory(kind, plan.span, &window, 0).map(|region| region.restricted(*access))
        }
        Content::Reserve => Ok(Region::reserved(plan.span)),
        Content::Device { vdev } => Ok(Region::device(plan.span, vdev)),
    };
    let fail = |reason| Error::new(Operation::SetRegion, start, len, reason);
    let added = region.map_err(fail).and_then(|region| lock.add(region));
    added.map_err(|error| source.refused(plan.start_at, error))
}

fn add_domain(source: &Source, guest: &Guest, plan: &DomainPlan) -> Result<(), ConfigError> {
    let created = guest.domain(&plan.name, plan.options.clone());
    let domain = created.map_err(|error| source.refused(plan.at, error))?;
    for grant in &plan.grants {
        domain
            .grant(grant.device, grant.guest, grant.len, grant.access)
            .map_err(|error| source.refused(grant.at, error))?;
    }
    Ok(())
}

/// Refuses more memory than the host has in total, before the kernel runs out of memory and
/// kills a process. Less can still be too much, which the engine reports.
fn fits_host(source: &Source, plan: &Plan, residency: Residency) -> Result<(), ConfigError> {
    let Some(total) = host_memory() else { return Ok(()) };
    let mut sum = 0_u64;
    for region in &plan.regions {
        match region.content {
            // Takes only the memory that the guest touches, which can be far less.
            Content::Ram(RamPlan { residency: it, .. })
                if it.unwrap_or(residency) == Residency::OnDemand =>
            {
                continue;
            }
            Content::Ram(_) | Content::Rom { .. } => {}
            Content::Reserve | Content::Pass { .. } | Content::Device { .. } => continue,
        }
        sum = sum.saturating_add(region.span.len());
        if sum > total {
            let advice = match source.form() {
                Form::Toml => ", or set `residency = \"on-demand\"` in a configuration file",
                Form::Qvm => "",
            };
            let message = format!(
                "RAM and ROM take {} together, and the host has {} of memory; ask for less{advice}",
                Bytes(sum),
                Bytes(total)
            );
            return Err(source.wrong(region.size_at, &message).with_errno(Errno::NOMEM));
        }
    }
    Ok(())
}

/// Total memory of the host in bytes, including its pools of huge pages.
fn host_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}
