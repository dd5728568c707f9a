//! `<qvm/vq.h>`, and the requests of `<qvm/vio.h>`. SAFETY comments refer to the pointer rule of
//! [`exports`](crate::exports).
#![allow(unsafe_code, reason = "exports C functions")]
#![allow(clippy::missing_safety_doc, reason = "the headers say what C must pass")]

use core::ffi::{c_int, c_uint, c_void};

use gasp::Errno;
use gasp_capi::types::Vdev;
use gasp_virtio::Broken;

use super::abi::{DESC_NEXT, DESC_WRITE, FLAGS, INVALID_ID, Iov, Iov800, PADDRS};
use super::iov::Structure;
use super::of_vdev;
use super::queues::{self, Listed};

/// Reports what a driver has broken.
fn or_fail<T>(listed: &Listed, outcome: Result<T, Broken>) -> Option<T> {
    outcome.inspect_err(|broken| listed.owner.fail(listed.start, broken)).ok()
}

/// Writes a result, if C wants it.
///
/// # Safety
/// `place` is NULL or valid for writes: the pointer rule.
unsafe fn give<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: it is not NULL, so it is valid for writes, as this function asks.
        unsafe { place.write(value) };
    }
}

/// See `<qvm/vq.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vq_get_from_driver(vq: *mut c_void, first: *mut c_uint) -> c_uint {
    let Some(listed) = queues::find(vq.addr()) else { return INVALID_ID };
    let Some(head) = or_fail(&listed, listed.queue.take()).flatten() else { return INVALID_ID };
    // SAFETY: the pointer rule.
    unsafe { give(first, head.into()) };
    head.into()
}

/// See `<qvm/vq.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vq_desc_get(
    vq: *mut c_void,
    idx: c_uint,
    paddr: *mut u64,
    len: *mut u32,
    flags: *mut c_uint,
) -> c_uint {
    let found = queues::find(vq.addr()).and_then(|listed| listed.queue.find(idx));
    let descriptor = found.as_ref().and_then(|found| found.descriptor());
    let next = found.as_ref().and_then(|found| found.next());
    let (addr, bytes, writable) =
        descriptor.map_or((0, 0, false), |found| (found.addr, found.len, found.writable));
    let write = if writable { DESC_WRITE } else { 0 };
    let more = if next.is_some() { DESC_NEXT } else { 0 };
    // SAFETY: the pointer rule.
    unsafe { give(paddr, addr) };
    // SAFETY: the pointer rule.
    unsafe { give(len, bytes) };
    // SAFETY: the pointer rule.
    unsafe { give(flags, write | more) };
    next.unwrap_or(INVALID_ID)
}

/// See `<qvm/vq.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vq_put_to_driver(vq: *mut c_void, id: c_uint, len: u32, notify: bool) {
    let Some(listed) = queues::find(vq.addr()) else { return };
    let Some(put) = or_fail(&listed, listed.queue.put(id, len, notify)) else { return };
    match put {
        Some(true) => listed.owner.interrupt_queue(listed.start, listed.index),
        Some(false) => {}
        None => listed.owner.warn("vq_put_to_driver() was called for no request in progress"),
    }
}

/// Appends the buffers of a request, or of its first descriptor alone, at most `cap` bytes.
fn append(
    vdp: *const Vdev,
    vq: *mut c_void,
    didx: c_uint,
    structure: Result<Structure, Errno>,
    all: bool,
    cap: u64,
) -> Result<u64, Errno> {
    let mut structure = structure?;
    if all {
        structure.prepare();
    }
    let listed = queues::find(vq.addr()).ok_or(Errno::INVAL)?;
    let outside = listed.owner.outside();
    if outside.pointer() != vdp {
        return Err(Errno::INVAL);
    }
    let found = listed.queue.find(didx).ok_or(Errno::INVAL)?;
    let rest = found.rest();
    let descriptors = if all { rest } else { rest.get(..1).unwrap_or_default() };
    structure.append(&**outside, descriptors, cap)
}

/// What C gets: the bytes, or a negative error number.
fn of(outcome: Result<u64, Errno>) -> isize {
    match outcome {
        Ok(bytes) => isize::try_from(bytes).unwrap_or(isize::MAX),
        Err(errno) => -(errno.raw_os_error() as isize),
    }
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_get_iov(
    vdp: *const Vdev,
    vq: *mut c_void,
    didx: c_uint,
    iov: *mut Iov800,
) -> isize {
    // SAFETY: the pointer rule, for this call.
    let structure = unsafe { Structure::of_800(iov) };
    of(append(vdp, vq, didx, structure, true, u64::MAX))
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_get_iov_710(
    vdp: *const Vdev,
    vq: *mut c_void,
    didx: c_uint,
    iov: *mut Iov,
) -> isize {
    // SAFETY: the pointer rule, for this call.
    let structure = unsafe { Structure::of_710(iov) };
    of(append(vdp, vq, didx, structure, true, u64::MAX))
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_append_iov(
    vdp: *const Vdev,
    vq: *mut c_void,
    didx: c_uint,
    iov: *mut Iov800,
    cap: usize,
) -> isize {
    // SAFETY: the pointer rule, for this call.
    let structure = unsafe { Structure::of_800(iov) };
    of(append(vdp, vq, didx, structure, false, cap as u64))
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_append_iov_710(
    vdp: *const Vdev,
    vq: *mut c_void,
    didx: c_uint,
    iov: *mut Iov,
) -> isize {
    // SAFETY: the pointer rule, for this call.
    let structure = unsafe { Structure::of_710(iov) };
    of(append(vdp, vq, didx, structure, false, u64::MAX))
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_append_iov_cap_710(
    vdp: *const Vdev,
    vq: *mut c_void,
    didx: c_uint,
    iov: *mut Iov,
    cap: usize,
) -> isize {
    // SAFETY: the pointer rule, for this call.
    let structure = unsafe { Structure::of_710(iov) };
    of(append(vdp, vq, didx, structure, false, cap as u64))
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_prepare_iov(vdp: *const Vdev, iov: *mut Iov) -> c_int {
    // SAFETY: the pointer rule, for this call. The structure of 8.0 begins with that of 7.x.
    match unsafe { Structure::of_710(iov) } {
        Ok(mut structure) if of_vdev(vdp).is_some() => {
            structure.prepare();
            0
        }
        _ => libc::EINVAL,
    }
}

fn put(vdp: *const Vdev, structure: Result<Structure, Errno>) {
    if let (Some(virtio), Ok(mut structure)) = (of_vdev(vdp), structure) {
        structure.put(&**virtio.outside());
    }
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_put_iov(vdp: *const Vdev, iov: *mut Iov800) {
    // SAFETY: the pointer rule, for this call.
    put(vdp, unsafe { Structure::of_800(iov) });
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_put_iov_710(vdp: *const Vdev, iov: *mut Iov) {
    // SAFETY: the pointer rule, for this call.
    put(vdp, unsafe { Structure::of_710(iov) });
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_iov_set_flags(iov: *mut Iov, flags: c_uint) -> c_int {
    // SAFETY: it is NULL, or valid for reads and writes, initialized, and accessed by nobody else, by
    // the pointer rule.
    let Some(iov) = (unsafe { iov.as_mut() }) else { return libc::EINVAL };
    if flags & !FLAGS != 0 || (flags & PADDRS != 0 && iov.paddrs.is_null()) {
        return libc::EINVAL;
    }
    iov.flags = flags;
    0
}
