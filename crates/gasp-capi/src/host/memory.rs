//! A guest's memory: RAM, ROM, shared memory and windows are added; ranges are removed.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_int, c_void};
use std::os::fd::{BorrowedFd, OwnedFd};

use gasp::{
    Access, Adopt, Backing, Errno, Error, GuestPhys, HostPhys, MemoryObject, Operation, Reason,
    Region, Residency, Span,
};

use super::drain;
use crate::arguments::{Out, access, array};
use crate::boundary::{self, Failure, Outcome};
use crate::lock::{self, Space};
use crate::objects::guest_of;
use crate::types::*;

const NO_START: &str = "start is NULL";

/// The requested address; `None` for `GASP_ANYWHERE`.
fn place_of(start: u64) -> Option<GuestPhys> {
    (start != GASP_ANYWHERE).then_some(GuestPhys(start))
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_guest_add_ram(
    guest: *mut GuestSystem,
    start: *mut u64,
    size: u64,
    pages: u32,
    residency: u32,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `start` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(start, NO_START) }?;
        let guest = guest_of(Some(guest))?;
        let (prefer, residency) = (preference(pages)?, residency_of(residency)?);
        let object =
            MemoryObject::ram(size).name("ram").prefer(&prefer).residency(residency).create()?;
        let at = guest.engine.space().add_ram(place_of(place.read()), &object)?;
        place.write(at.0);
        Ok(())
    })
}

fn preference(pages: u32) -> Outcome<Vec<Backing>> {
    if pages == GASP_PAGES_ANY {
        return Ok(Backing::PREFERENCE.to_vec());
    }
    let kinds = [
        (GASP_PAGES_1G, Backing::Huge1G),
        (GASP_PAGES_2M, Backing::Huge2M),
        (GASP_PAGES_THP, Backing::Thp),
        (GASP_PAGES_4K, Backing::Base),
    ];
    let known = kinds.iter().fold(0, |known, (bit, _)| known | bit);
    match pages & !known {
        0 => Ok(kinds.iter().filter(|(bit, _)| pages & bit != 0).map(|kind| kind.1).collect()),
        _ => Err(Failure::invalid("pages is not a set of GASP_PAGES_*")),
    }
}

fn residency_of(residency: u32) -> Outcome<Residency> {
    match residency {
        GASP_PINNED => Ok(Residency::Pinned),
        GASP_RESIDENT => Ok(Residency::Resident),
        GASP_ON_DEMAND => Ok(Residency::OnDemand),
        _ => Err(Failure::invalid("residency is not GASP_PINNED, GASP_RESIDENT or GASP_ON_DEMAND")),
    }
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_guest_add_rom(
    guest: *mut GuestSystem,
    start: *mut u64,
    image: *const c_void,
    length: usize,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `start` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(start, NO_START) }?;
        // SAFETY: `image` is NULL or valid for reads of `length` bytes during the call, by the
        // pointer rule.
        let image: Vec<u8> = unsafe { array(image.cast(), length, "image is NULL") }?;
        let guest = guest_of(Some(guest))?;
        let size = (length as u64).checked_next_multiple_of(4096);
        let size = size.ok_or_else(|| Failure::invalid("the image is too long"))?;
        let object = MemoryObject::ram(size).name("rom").prefer(&[Backing::Base]).create()?;
        object.write_at(0, &image)?;
        let at = guest.engine.space().add_rom(place_of(place.read()), &object)?;
        place.write(at.0);
        Ok(())
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_guest_add_shared(
    guest: *mut GuestSystem,
    start: *mut u64,
    size: u64,
    fd: c_int,
    offset: u64,
    access: u32,
    owner: u32,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `start` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(start, NO_START) }?;
        let guest = guest_of(Some(guest))?;
        let trusted = match owner {
            GASP_OWNER_UNTRUSTED => false,
            GASP_OWNER_TRUSTED => true,
            _ => return Err(Failure::invalid("owner is not one of GASP_OWNER_*")),
        };
        let access = file_access(start_of(&place), size, access)?;
        let how = Adopt { offset, access, trusted, ..Adopt::new("shared", size) };
        let object = MemoryObject::adopt(duplicate(fd)?, how)?;
        // Guarded memory is safe for the engine's copies, but C uses pointers.
        if object.is_guarded() {
            let why = "its owner can take the memory away: seal the file against shrinking \
                       (and use no huge pages of a pool), or pass GASP_OWNER_TRUSTED";
            return Err(Failure::Call(Errno::PERM, why));
        }
        let at = guest.engine.space().add_ram(place_of(place.read()), &object)?;
        place.write(at.0);
        Ok(())
    })
}

fn start_of(place: &Out<'_, u64>) -> GuestPhys {
    place_of(place.read()).unwrap_or_default()
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_guest_add_window(
    guest: *mut GuestSystem,
    start: u64,
    size: u64,
    fd: c_int,
    offset: u64,
    host: u64,
    access: u32,
) -> c_int {
    boundary::call(|| {
        let guest = guest_of(Some(guest))?;
        let start = GuestPhys(start);
        let access = file_access(start, size, access)?;
        let residency = Residency::OnDemand;
        let how = Adopt { offset, access, residency, ..Adopt::new("window", size) };
        let object = MemoryObject::pass_through(duplicate(fd)?, HostPhys(host), how)?;
        let region = Region::pass_through(start, &object).map_err(failed(start, size))?;
        Ok(guest.engine.space().add(region)?)
    })
}

/// How to map a file for the requested access: writing implies reading.
fn file_access(start: GuestPhys, size: u64, bits: u32) -> Outcome<Access> {
    let wanted = access(bits).map_err(failed(start, size))?;
    Ok(if wanted.contains(Access::WRITE) { Access::RW } else { Access::READ })
}

fn failed(start: GuestPhys, size: u64) -> impl FnOnce(Reason) -> Failure {
    move |reason| Error::new(Operation::SetRegion, start, size, reason).into()
}

/// A duplicate of a descriptor of C's. `EBADF` if it is not open.
fn duplicate(fd: c_int) -> Outcome<OwnedFd> {
    let bad = Failure::Call(Errno::BADF, "the descriptor is not open");
    if fd < 0 {
        return Err(bad);
    }
    // SAFETY: `fd` is not -1, as it is not negative. It is borrowed for one system call, which has
    // no effect but EBADF if it is not open, so nothing relies on that.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(|errno| match errno {
        Errno::BADF => bad,
        errno => Failure::Call(errno, "duplicating the descriptor failed"),
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_guest_remove(
    guest: *mut GuestSystem,
    start: u64,
    size: u64,
    drain: *mut *mut Drain,
) -> c_int {
    boundary::call(|| {
        let guest = guest_of(Some(guest))?;
        let start = GuestPhys(start);
        let span = Span::new(start, size).map_err(failed(start, size))?;
        if lock::has(&guest, Space::Memory) {
            let why = "gasp_guest_remove: this thread has gasp_lock(); use gasp_region_set_soft";
            return Err(Failure::misuse(Errno::BUSY, why));
        }
        let (space, policy) = (guest.engine.space(), guest.engine.drain_policy());
        // SAFETY: `drain` is NULL or valid for writes during the call, by the pointer rule.
        let completion =
            unsafe { drain::completion(drain, policy, || space.held_by_this_thread(span)) }?;
        completion.complete(space.remove(span)?);
        Ok(())
    })
}
