//! Regions, asked for and set.
//!
//! What C says of a region beyond what the engine knows, its `GRF_VIRT_*` and `GRF_NOCACHE`
//! flags and its cookie, travels with it as the engine's tag.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::c_int;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use gasp::{
    Access, Adopt, Errno, Error, GuestPhys, HostPhys, MemoryObject, Operation, Reason, RegionKind,
    Residency, Search, SpaceLock, Span,
};

use crate::arguments::{Out, array, read};
use crate::boundary::{self, Failure, Outcome, set_errno};
use crate::deadlock;
use crate::last_error;
use crate::lock::{self, Revoked, Space};
use crate::objects::{Guest, NamedGuest, VDEVS, guest_of, opaque};
use crate::ports::PortRegion;
use crate::types::*;

const NO_MEMORY: &str = "there is no memory behind registers, so no GRF_PASS_* for them";

/// The flags that are C's alone.
const TAG_FLAGS: u32 = GRF_VIRT_ANY | GRF_NOCACHE | GRF_NOPERMS;

/// Fills a region with what is at the beginning of a range.
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

fn check_spare(block: &StateBlock) -> Outcome {
    match block.spare {
        0 => Ok(()),
        _ => Err(Failure::invalid("spare is not 0")),
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
    let vdev = found.owner().and_then(|name| guest.names().vdevs.get(name).copied());
    Ok(Region {
        flags: flags_of(&found),
        cookie: found.tag() as u32,
        vdev: opaque(vdev.unwrap_or(0)),
        host_location,
        guest: StateBlock { length, ..block },
    })
}

/// The flags that tell what a region is.
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
        // Of a device that the configuration has put there, reads and writes are its own.
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
        // Not that of a device which is gone.
        vdev: opaque(VDEVS.get(found.vdev).map_or(0, |_| found.vdev)),
        host_location: QSL_NO_LOCATION,
        guest: StateBlock { length: found.last.min(span.last().0) - first + 1, ..block },
    })
}

/// Does what one entry says. This thread has the lock of its space.
fn set_one(guest: &Arc<Guest>, entry: &Region) -> Outcome {
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

/// Name and number of the vdev that is to own a region.
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
    let bits = guest.engine.address_width();
    if span.last().0 >> bits != 0 {
        return Err(fail(Reason::BeyondWidth { bits }).into());
    }
    if entry.flags == GRF_NONE {
        let was = memory_in(guest, span);
        return Ok(Some(Revoked { drain: lock.remove(span)?, was }));
    }
    let access = passed(entry.flags);
    if entry.flags & GRF_NOPERMS != 0 && !(access.is_empty() && owner.is_none()) {
        return Err(Failure::invalid("GRF_NOPERMS goes with neither GRF_PASS_* nor GRF_VIRT_*"));
    }
    let tag = u64::from(entry.flags & TAG_FLAGS) << 32 | u64::from(entry.cookie);
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
        // Registers have no memory: nothing of them can be mapped, so nothing is lost while
        // they are replaced.
        Some(_) if !access.is_empty() => Err(Failure::invalid(NO_MEMORY)),
        Some(owner) => {
            drop(lock.remove(span)?);
            lock.add(gasp::Region::device(span, owner).tagged(tag))?;
            Ok(None)
        }
        None if all(&RegionKind::is_memory) => {
            let was = memory_in(guest, span);
            let drain = lock.set_access(span, access)?;
            lock.set_tag(span, tag, owner)?;
            Ok(Some(Revoked { drain, was }))
        }
        None => {
            let why = "registers and reserved ranges cannot become something else; delete first";
            Err(Failure::invalid(why))
        }
    }
}

/// The memory in a range.
fn memory_in(guest: &Guest, span: Span<GuestPhys>) -> Vec<gasp::Region> {
    let regions = guest.engine.space().regions();
    let inside = |region: &gasp::Region| region.kind().is_memory() && region.span().overlaps(&span);
    regions.into_iter().filter(inside).filter_map(|region| region.part(span)).collect()
}

fn is_of(entry: &Region, space: Space) -> bool {
    Space::of(entry.guest.qst_type.into()).is_ok_and(|of| of == space)
}

/// Whether an entry, after those before it, would wait for mappings that this thread has made.
fn waits_for_oneself(guest: &Guest, entry: &Region, before: &[Region]) -> bool {
    let span_of = |entry: &Region| {
        let is_memory = is_of(entry, Space::Memory);
        Span::new(GuestPhys(entry.guest.location), entry.guest.length).ok().filter(|_| is_memory)
    };
    // An entry that is wrong does not wait.
    let Some(span) = span_of(entry) else { return false };
    if guest.engine.space().held_by_this_thread(span) == 0 {
        return false;
    }
    // What the entries before it give on the way is taken away again, too.
    let given = before.iter().filter(|before| span_of(before).is_some_and(|b| b.overlaps(&span)));
    let given = given.fold(Access::empty(), |given, before| given | passed(before.flags));
    let access = passed(entry.flags);
    let is_less = |region: &gasp::Region| !access.contains(region.access() | given);
    memory_in(guest, span).iter().any(is_less)
}

/// Whether every region in a range without holes is of a wanted kind.
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

/// The access that `GRF_PASS_*` give.
fn passed(flags: u32) -> Access {
    let mut access = Access::empty();
    access.set(Access::READ, flags & GRF_PASS_RD != 0);
    access.set(Access::WRITE, flags & GRF_PASS_WR != 0);
    access.set(Access::EXEC, flags & GRF_PASS_EX != 0);
    access
}

/// What an entry adds where nothing is.
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
        let why = "the flags say neither GRF_VIRT_*, GRF_PASS_* nor GRF_NOPERMS";
        return Err(Failure::invalid(why));
    }
    if entry.host_location == QSL_NO_LOCATION {
        return Err(Failure::invalid("GRF_PASS_* where nothing is needs a host_location"));
    }
    let object = host_memory(entry.host_location, span.len(), access)?;
    let window = gasp::Region::pass_through(span.start(), &object)
        .map_err(|reason| Error::new(Operation::SetRegion, span.start(), span.len(), reason))?;
    Ok(window.restricted(access))
}

/// A window to the host's physical memory.
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

/// Does what the entries say, one after the other; how many were done.
fn set_all(guest: &Arc<Guest>, entries: &[Region]) -> (usize, Outcome) {
    for (index, entry) in entries.iter().enumerate() {
        if let Err(failure) = set_one(guest, entry) {
            return (index, Err(failure));
        }
    }
    (entries.len(), Ok(()))
}

/// Sets regions in the running phase, under the lock that this thread has.
pub(crate) fn set_soft(guest: NamedGuest, entries: impl FnOnce() -> Outcome<Vec<Region>>) -> u32 {
    let mut done = 0;
    boundary::value((), || {
        let guest = guest_of(guest)?;
        if !guest.is_running() {
            let why = "gasp_region_set_soft: the guest is not running; use gasp_region_set";
            return Err(Failure::misuse(Errno::PERM, why));
        }
        let entries = entries()?;
        let (count, outcome) = set_all(&guest, &entries);
        done = count;
        outcome
    });
    done as u32
}

/// Sets regions in the startup phase; a failure ends the process.
pub(crate) fn set_hard(guest: NamedGuest, entries: impl FnOnce() -> Outcome<Vec<Region>>) {
    let allowed = boundary::call(|| {
        let guest = guest_of(guest)?;
        let why = match guest.is_running() {
            true => "gasp_region_set: the guest is running; use gasp_region_set_soft",
            false if lock::is_ending() => "gasp_region_set: this thread is ending",
            false if lock::has(&guest, Space::Memory) || lock::has(&guest, Space::Ports) => {
                "gasp_region_set: it takes gasp_lock() itself, and this thread has it already"
            }
            false => return Ok(()),
        };
        Err(Failure::misuse(Errno::PERM, why))
    });
    if allowed != EOK {
        set_errno(allowed);
        return;
    }
    let (mut entry, mut refused) = (None, false);
    let outcome = boundary::call(|| {
        let (guest, entries) = (guest_of(guest)?, entries()?);
        let mut spaces = vec![Space::Memory, Space::Ports];
        spaces.retain(|&space| entries.iter().any(|entry| is_of(entry, space)));
        for &space in &spaces {
            lock::take(&guest, space)?;
        }
        let waits = |(index, entry)| waits_for_oneself(&guest, entry, &entries[..index]);
        let held = || entries.iter().enumerate().filter(|&entry| waits(entry)).count();
        let why = "gasp_region_set: it would wait for a mapping that this thread itself has made \
                   and not unmapped; unmap it first";
        if let Err(failure) = deadlock::check(guest.engine.drain_policy(), held, why) {
            refused = true;
            spaces.iter().rev().try_for_each(|&of| lock::release(Some(guest.number), of))?;
            return Err(failure);
        }
        let (index, outcome) = set_all(&guest, &entries);
        // A process that ends does not wait for mappings: the locks go with the thread.
        outcome.inspect_err(|_| entry = Some(index))?;
        // The ports first: whoever is to unmap may need them while memory's drains wait.
        for &space in spaces.iter().rev() {
            lock::release(Some(guest.number), space)?;
        }
        Ok(())
    });
    if refused {
        set_errno(outcome);
    } else if outcome != EOK {
        let entry = entry.map_or_else(String::new, |index| format!("entry {index}: "));
        tracing::error!("gasp_region_set: {entry}{}; ending the process", last_error::copy());
        std::process::exit(libc::EXIT_FAILURE);
    }
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_region_info(blk: *const StateBlock, rgn: *mut Region) -> c_int {
    boundary::call(|| {
        // SAFETY: `blk` is NULL or valid for reads during the call, by the pointer rule.
        let block = unsafe { read(blk, "blk is NULL") }?;
        // SAFETY: `rgn` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(rgn, "rgn is NULL") }?;
        place.write(info(None, block)?);
        Ok(())
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_region_set(num_regions: u32, rgn: *const Region) {
    // SAFETY: `rgn` is NULL or valid for reads of `num_regions` entries during the call, by the
    // pointer rule.
    set_hard(None, || unsafe { array(rgn, num_regions as usize, "rgn is NULL") });
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_region_set_soft(num_regions: u32, rgn: *const Region) -> u32 {
    // SAFETY: `rgn` is NULL or valid for reads of `num_regions` entries during the call, by the
    // pointer rule.
    set_soft(None, || unsafe { array(rgn, num_regions as usize, "rgn is NULL") })
}
