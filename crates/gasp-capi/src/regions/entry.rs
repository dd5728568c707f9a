//! One entry of `gasp_region_set` or `gasp_region_set_soft`: what it changes, and which mappings
//! that revokes.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use gasp::{
    Access, Adopt, Errno, Error, GuestPhys, HostPhys, MemoryObject, Operation, Reason, RegionKind,
    Residency, Search, SpaceLock, Span,
};

use crate::arguments::check_spare;
use crate::boundary::{Failure, Outcome};
use crate::lock::{self, Revoked, Space};
use crate::objects::{Guest, VDEVS};
use crate::ports::PortRegion;
use crate::types::*;

/// The flags that only C knows: kept in the tag.
const TAG_FLAGS: u32 = GRF_VIRT_ANY | GRF_NOCACHE | GRF_NOPERMS;

const NO_MEMORY: &str = "registers have no memory, so GRF_PASS_* does not apply to them";

/// Carries out one entry; `EPERM` if this thread does not own the lock of its space.
pub(super) fn set_one(guest: &Arc<Guest>, entry: &Region) -> Outcome {
    let block = entry.guest;
    check_spare(&block)?;
    let start = GuestPhys(block.location);
    let fail = |reason| Error::new(Operation::SetRegion, start, block.length, reason);
    let span = Span::new(start, block.length).map_err(fail)?;
    let space = Space::of(block.qst_type.into())?;
    if !lock::has(guest, space) {
        let why = "gasp_region_set_soft: this thread does not have gasp_lock()";
        return Err(Failure::misuse(Errno::PERM, why));
    }
    let vdev = match entry.flags & GRF_VIRT_ANY {
        0 => None,
        _ => Some(owner(guest, entry.vdev)?),
    };
    match space {
        Space::Memory => lock::with_memory(guest, |lock| {
            set_memory(guest, lock, entry, span, vdev.as_ref().map(|(name, _)| name.as_str()))
        }),
        Space::Ports => guest.ports.set(PortRegion {
            first: start.0,
            last: span.last().0,
            flags: entry.flags,
            cookie: entry.cookie,
            vdev: vdev.map_or(0, |(_, number)| number),
        }),
    }
}

/// The name and number of the vdev that emulates a region.
fn owner(guest: &Guest, vdev: *const Vdev) -> Outcome<(String, usize)> {
    let found = VDEVS.get(vdev.addr()).filter(|found| found.guest.number == guest.number);
    let why = "a region with GRF_VIRT_* needs a vdev of this guest";
    let found = found.ok_or(Failure::invalid(why))?;
    Ok((found.vdev.name().to_owned(), vdev.addr()))
}

fn set_memory(
    guest: &Guest,
    lock: &SpaceLock,
    entry: &Region,
    span: Span<GuestPhys>,
    owner: Option<&str>,
) -> Outcome<Option<Revoked>> {
    let fail = |reason| Error::new(Operation::SetRegion, span.start(), span.len(), reason);
    check_width(guest, span)?;
    if entry.flags == GRF_NONE {
        let before = memory_in(guest, span);
        return Ok(Some(Revoked { drain: lock.remove(span)?, before }));
    }
    let access = passed(entry.flags);
    if entry.flags & GRF_NOPERMS != 0 && !(access.is_empty() && owner.is_none()) {
        return Err(Failure::invalid("GRF_NOPERMS excludes GRF_PASS_* and GRF_VIRT_*"));
    }
    let tag = tag(entry.flags, entry.cookie);
    let within = |len| Search::new(len, 1).within(span.start(), span.last());
    let unused = |len| guest.engine.space().find_free(within(len));
    if unused(span.len()).is_ok() {
        lock.add(new_region(entry, span, owner)?.tagged(tag))?;
        return Ok(None);
    }
    if unused(1).is_ok() {
        let why = Reason::Overlaps("a region in part of the range (set that part alone)");
        return Err(fail(why).into());
    }
    let all = |wanted: &dyn Fn(RegionKind) -> bool| all_are(guest, span, wanted);
    match owner.filter(|_| all(&|kind| kind == RegionKind::Device)) {
        // Registers have no memory and are never mapped, so no mapping is revoked while they are
        // replaced.
        Some(_) if !access.is_empty() => Err(Failure::invalid(NO_MEMORY)),
        Some(owner) => {
            drop(lock.remove(span)?);
            lock.add(gasp::Region::device(span, owner).tagged(tag))?;
            Ok(None)
        }
        None if all(&RegionKind::is_memory) => {
            let before = memory_in(guest, span);
            let drain = lock.set_access(span, access)?;
            lock.set_tag(span, tag, owner)?;
            Ok(Some(Revoked { drain, before }))
        }
        None => {
            let why = "registers and reserved ranges do not change their kind; delete them first";
            Err(Failure::invalid(why))
        }
    }
}

/// Refuses a range past the guest's address width.
pub(crate) fn check_width(guest: &Guest, span: Span<GuestPhys>) -> Outcome {
    let bits = guest.engine.address_width();
    let fail = |reason| Error::new(Operation::SetRegion, span.start(), span.len(), reason);
    match span.last().0 >> bits {
        0 => Ok(()),
        _ => Err(fail(Reason::BeyondWidth { bits }).into()),
    }
}

/// The engine's tag of a region.
pub(crate) fn tag(flags: u32, cookie: u32) -> u64 {
    u64::from(flags & TAG_FLAGS) << 32 | u64::from(cookie)
}

/// The memory in a range.
fn memory_in(guest: &Guest, span: Span<GuestPhys>) -> Vec<gasp::Region> {
    let regions = guest.engine.space().regions();
    let inside = |region: &gasp::Region| region.kind().is_memory() && region.span().overlaps(&span);
    regions.into_iter().filter(inside).filter_map(|region| region.part(span)).collect()
}

pub(super) fn is_of(entry: &Region, space: Space) -> bool {
    Space::of(entry.guest.qst_type.into()).is_ok_and(|of| of == space)
}

/// Whether an entry, after those before it, would wait for mappings that this thread has created.
pub(super) fn waits_for_oneself(guest: &Guest, entry: &Region, before: &[Region]) -> bool {
    let span_of = |entry: &Region| {
        let is_memory = is_of(entry, Space::Memory);
        Span::new(GuestPhys(entry.guest.location), entry.guest.length).ok().filter(|_| is_memory)
    };
    // An entry that is not valid does not wait.
    let Some(span) = span_of(entry) else { return false };
    if guest.engine.space().held_by_this_thread(span) == 0 {
        return false;
    }
    // Access that the entries before it grant is taken away again, too.
    let given = before.iter().filter(|before| span_of(before).is_some_and(|b| b.overlaps(&span)));
    let given = given.fold(Access::empty(), |given, before| given | passed(before.flags));
    let access = passed(entry.flags);
    let is_less = |region: &gasp::Region| !access.contains(region.access() | given);
    memory_in(guest, span).iter().any(is_less)
}

/// Whether a range has no holes, and all its regions are of a wanted kind.
fn all_are(guest: &Guest, span: Span<GuestPhys>, wanted: &dyn Fn(RegionKind) -> bool) -> bool {
    let mut at = Some(span.start());
    while let Some(addr) = at.filter(|&addr| addr <= span.last()) {
        match guest.engine.space().region_at(addr) {
            Some(region) if wanted(region.kind()) => {
                at = region.span().last().checked_add(1);
            }
            _ => return false,
        }
    }
    true
}

/// The access of a set of `GRF_PASS_*`.
fn passed(flags: u32) -> Access {
    let mut access = Access::empty();
    access.set(Access::READ, flags & GRF_PASS_RD != 0);
    access.set(Access::WRITE, flags & GRF_PASS_WR != 0);
    access.set(Access::EXEC, flags & GRF_PASS_EX != 0);
    access
}

/// The region that an entry adds to a range without any. `EINVAL` if its flags make none.
fn new_region(entry: &Region, span: Span<GuestPhys>, owner: Option<&str>) -> Outcome<gasp::Region> {
    let access = passed(entry.flags);
    match owner {
        Some(_) if !access.is_empty() => return Err(Failure::invalid(NO_MEMORY)),
        Some(owner) => return Ok(gasp::Region::device(span, owner)),
        None => {}
    }
    if access.is_empty() && entry.flags & GRF_NOPERMS != 0 {
        return Ok(gasp::Region::reserved(span));
    }
    if access.is_empty() {
        let why = "the flags have none of GRF_VIRT_*, GRF_PASS_* and GRF_NOPERMS";
        return Err(Failure::invalid(why));
    }
    if entry.host_location == QSL_NO_LOCATION {
        return Err(Failure::invalid("GRF_PASS_* of a range without memory needs a host_location"));
    }
    let object = host_memory(entry.host_location, span.len(), access)?;
    let window = gasp::Region::pass_through(span.start(), &object)
        .map_err(|reason| Error::new(Operation::SetRegion, span.start(), span.len(), reason))?;
    Ok(window.restricted(access))
}

/// A window to host-physical memory, by way of /dev/mem.
fn host_memory(host: u64, len: u64, access: Access) -> Outcome<MemoryObject> {
    let write = access.contains(Access::WRITE);
    let file = OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(libc::O_SYNC | libc::O_CLOEXEC)
        .open("/dev/mem")
        .map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
            Failure::Call(errno, "opening /dev/mem for a window to host memory failed")
        })?;
    let how = Adopt {
        offset: host,
        access: if write { Access::RW } else { Access::READ },
        residency: Residency::OnDemand,
        ..Adopt::new("host memory", len)
    };
    Ok(MemoryObject::pass_through(OwnedFd::from(file), HostPhys(host), how)?)
}
