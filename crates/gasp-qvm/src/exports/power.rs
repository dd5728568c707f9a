//! `<qvm/guest.h>`: the states of processors, which the host's kernel knows and does not tell, and
//! core files.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_char, c_int, c_uint, c_void};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use gasp::Errno;
use gasp_capi::embed;
use gasp_capi::types::GuestSystem;

use super::bytes;
use super::cpu::code;
use crate::abi::*;
use crate::cancel::uncancelled;
use crate::live::Live;

/// `guest_power_state_callback_func_t`.
type Callback = unsafe extern "C" fn(*mut c_void, *mut c_void);

/// Whether there is the guest that a call names, or one for a call that names none.
fn guest(named: Option<*const GuestSystem>) -> Result<(), Errno> {
    if named.is_none() && Live::current().is_some() {
        return Ok(());
    }
    embed::engine_of(named).map(drop).map_err(|_| Errno::NXIO)
}

fn current(
    named: Option<*const GuestSystem>,
    cmd: u32,
    base: c_uint,
    nresult: c_uint,
    result: *mut u64,
) -> c_int {
    let is_valid = matches!(cmd, GPSC_WAIT | GPSC_OFF | 3) && base == 0 && nresult > 0;
    match guest(named) {
        Err(errno) => -errno.raw_os_error(),
        Ok(()) if is_valid && !result.is_null() => -libc::ENOTSUP,
        Ok(()) => -libc::EINVAL,
    }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_power_state_current(
    cmd: u32,
    base: c_uint,
    nresult: c_uint,
    result: *mut u64,
) -> c_int {
    current(None, cmd, base, nresult, result)
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_power_state_current_710(
    gsp: *mut GuestSystem,
    cmd: u32,
    base: c_uint,
    nresult: c_uint,
    result: *mut u64,
) -> c_int {
    current(Some(gsp), cmd, base, nresult, result)
}

fn create(named: Option<*const GuestSystem>) -> *mut c_void {
    set_errno(guest(named).err().unwrap_or(Errno::NOTSUP));
    core::ptr::null_mut()
}

/// Sets `errno` of this thread.
pub(super) fn set_errno(errno: Errno) {
    // SAFETY: it takes nothing, and returns this thread's errno, which is valid for writes.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { place.write(errno.raw_os_error()) };
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_power_state_notify_create() -> *mut c_void {
    create(None)
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_power_state_notify_create_710(gsp: *mut GuestSystem) -> *mut c_void {
    create(Some(gsp))
}

/// See `<qvm/guest.h>`. None exists.
#[unsafe(no_mangle)]
pub extern "C" fn guest_power_state_notify_delete(_qpnp: *mut c_void) {}

/// See `<qvm/guest.h>`. None exists.
#[unsafe(no_mangle)]
pub extern "C" fn guest_power_state_notify_register(
    _qpnp: *mut c_void,
    _cmd: u32,
    _base: c_uint,
    _mask: u64,
    _bits: u64,
    _func: Option<Callback>,
    _data: *mut c_void,
) {
    let live = Live::current();
    let vdev = live.as_ref().map_or("?", |live| live.name.as_str());
    uncancelled(|| {
        tracing::warn!(
            vdev,
            "guest_power_state_notify_register: the host does not know the states of processors"
        );
    });
}

/// Has the host of a vdev write a core file.
pub(super) fn write_core(live: Option<&Live>, path: Option<&Path>) -> Result<(), Errno> {
    let live = live.ok_or(Errno::NXIO)?;
    uncancelled(|| live.host.write_core(path))
}

/// # Safety
/// `path` is NULL or a string: the pointer rule.
unsafe fn write_core_for_c(path: *const c_char) -> c_int {
    let live = Live::current();
    if path.is_null() {
        return code(write_core(live.as_deref(), None));
    }
    // SAFETY: as this function asks.
    let bytes = unsafe { bytes(path) };
    code(match bytes {
        [] => Err(Errno::NOENT),
        path => write_core(live.as_deref(), Some(Path::new(OsStr::from_bytes(path)))),
    })
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_write_core_file(path: *const c_char) -> c_int {
    // SAFETY: the pointer rule.
    unsafe { write_core_for_c(path) }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_write_core_file_710(
    gsp: *mut GuestSystem,
    path: *const c_char,
) -> c_int {
    if guest(Some(gsp)).is_err() {
        return libc::ENXIO;
    }
    // SAFETY: the pointer rule.
    unsafe { write_core_for_c(path) }
}
