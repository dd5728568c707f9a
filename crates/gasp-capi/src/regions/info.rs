//! `gasp_region_info`: the region at an address or port.

use core::ops::RangeInclusive;

use gasp::{Access, Errno, Error, GuestPhys, Operation, Reason, RegionKind, Span};

use crate::arguments::check_spare;
use crate::boundary::{Failure, Outcome};
use crate::lock::Space;
use crate::objects::{Guest, NamedGuest, VDEVS, guest_of, vdev_pointer};
use crate::ports::PortRegion;
use crate::types::*;

/// Describes the region at the beginning of a range.
pub(crate) fn info(guest: NamedGuest, block: StateBlock) -> Outcome<Region> {
    check_spare(&block)?;
    let space = Space::of(block.qst_type.into())?;
    let guest = guest_of(guest)?;
    let start = GuestPhys(block.location);
    let span = Span::new(start, block.length)
        .map_err(|reason| Error::new(Operation::RegionInfo, start, block.length, reason))?;
    match space {
        Space::Memory => memory_info(&guest, span, block),
        Space::Ports => port_info(&guest, span, block),
    }
}

fn nothing_at(start: GuestPhys, length: u64) -> Failure {
    Error::new(Operation::RegionInfo, start, length, Reason::NoMemory { addr: start }).into()
}

fn memory_info(guest: &Guest, span: Span<GuestPhys>, block: StateBlock) -> Outcome<Region> {
    let start = span.start();
    let found = guest.engine.space().region_at(start);
    let found = found.ok_or_else(|| nothing_at(start, span.len()))?;
    let part = found.span().intersection(&span).ok_or_else(|| nothing_at(start, span.len()))?;
    let (mut length, mut host_location) = (part.len(), QSL_NO_LOCATION);
    let offset = found.object_offset() + (start.0 - found.span().start().0);
    if let Some(object) = found.object()
        && let Ok(run) = object.host_run(offset, length)
    {
        (length, host_location) = (run.len, run.addr.0);
    }
    Ok(Region {
        flags: flags_of(&found),
        cookie: found.tag() as u32,
        vdev: owner_of(guest, &found),
        host_location,
        guest: StateBlock { length, ..block },
    })
}

/// The vdev that emulates a region of memory; NULL if none that is listed does.
fn owner_of(guest: &Guest, region: &gasp::Region) -> *mut Vdev {
    let named = region.owner().and_then(|name| guest.names().vdevs.get(name).copied());
    vdev_pointer(named.map_or(0, |named| named.number))
}

/// The vdev that emulates a region of ports; NULL if it has been destroyed.
fn owner_of_ports(region: &PortRegion) -> *mut Vdev {
    vdev_pointer(VDEVS.get(region.vdev).map_or(0, |_| region.vdev))
}

/// The region at an address or port, for a program in Rust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionAt {
    /// The vdev that emulates it; null if none that is listed does.
    pub vdev: *mut Vdev,
    /// `GRF_*`.
    pub flags: u32,
    /// The vdev's own identifier of the region.
    pub cookie: u32,
    /// Its addresses or ports, first to last.
    pub span: RangeInclusive<u64>,
}

/// All of the region at an address or port.
pub(crate) fn region_at(guest: &Guest, space: Space, addr: u64) -> Option<RegionAt> {
    Some(match space {
        Space::Memory => of_memory(guest, &guest.engine.space().region_at(GuestPhys(addr))?),
        Space::Ports => of_ports(&guest.ports.at(addr)?),
    })
}

/// All regions of a space, in order.
pub(crate) fn regions(guest: &Guest, space: Space) -> Vec<RegionAt> {
    match space {
        Space::Memory => {
            let all = guest.engine.space().regions();
            all.iter().map(|found| of_memory(guest, found)).collect()
        }
        Space::Ports => guest.ports.all().iter().map(of_ports).collect(),
    }
}

fn of_memory(guest: &Guest, found: &gasp::Region) -> RegionAt {
    RegionAt {
        vdev: owner_of(guest, found),
        flags: flags_of(found),
        cookie: found.tag() as u32,
        span: found.span().start().0..=found.span().last().0,
    }
}

fn of_ports(found: &PortRegion) -> RegionAt {
    RegionAt {
        vdev: owner_of_ports(found),
        flags: found.flags | GRF_ACTIVE,
        cookie: found.cookie,
        span: found.first..=found.last,
    }
}

/// The `GRF_*` flags of a region.
fn flags_of(region: &gasp::Region) -> u32 {
    let pass =
        [(Access::READ, GRF_PASS_RD), (Access::WRITE, GRF_PASS_WR), (Access::EXEC, GRF_PASS_EX)];
    let pass = pass.iter().filter(|(access, _)| region.access().contains(*access));
    let pass = pass.fold(0, |flags, (_, flag)| flags | flag);
    let tagged = (region.tag() >> 32) as u32;
    let kind = match region.kind() {
        RegionKind::Ram => GRF_MEMORY | GRF_DMA_SOURCE | GRF_DMA_TARGET,
        RegionKind::Rom => GRF_DMA_SOURCE,
        RegionKind::PassThrough => GRF_PASSTHRU,
        RegionKind::Reserved => GRF_NOPERMS,
        // Registers from the configuration have no tag: the device emulates reads and writes.
        RegionKind::Device if tagged & GRF_VIRT_ANY == 0 => GRF_VIRT_RD | GRF_VIRT_WR,
        RegionKind::Device => 0,
    };
    GRF_ACTIVE | kind | pass | tagged
}

fn port_info(guest: &Guest, span: Span<GuestPhys>, block: StateBlock) -> Outcome<Region> {
    let first = span.start().0;
    let none = Failure::Call(Errno::NXIO, "there is no region at this port");
    let found = guest.ports.at(first).ok_or(none)?;
    Ok(Region {
        flags: found.flags | GRF_ACTIVE,
        cookie: found.cookie,
        vdev: owner_of_ports(&found),
        host_location: QSL_NO_LOCATION,
        guest: StateBlock { length: found.last.min(span.last().0) - first + 1, ..block },
    })
}
