//! Reports: faults, revoked mappings, the last error, the log, the version.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_char, c_int, c_void};

use gasp::ffi::Token;
use gasp::{Errno, Refusal};

use crate::arguments::{Out, read};
use crate::boundary::{self, Failure};
use crate::last_error;
use crate::log;
use crate::objects::{guest_of, vdev_pointer};
use crate::types::*;

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_guest_next_fault(
    guest: *mut GuestSystem,
    fault: *mut Fault,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `fault` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(fault, "the pointer for the fault is NULL") }?;
        let guest = guest_of(Some(guest))?;
        let none = Failure::Call(Errno::NOENT, "there is no fault record");
        let (fault, dropped) = guest.engine.take_fault().ok_or(none)?;
        let refusal = match fault.refusal {
            Refusal::NotGranted => GASP_REFUSED_NOT_GRANTED,
            Refusal::Access { .. } => GASP_REFUSED_ACCESS,
            Refusal::Unattached => GASP_REFUSED_UNATTACHED,
            Refusal::DenyDomain => GASP_REFUSED_DENY_DOMAIN,
            Refusal::Translator { .. } => GASP_REFUSED_TRANSLATOR,
        };
        let mut name = [0; FAULT_NAME];
        let bytes = fault.device.bytes().take(FAULT_NAME - 1);
        name.iter_mut().zip(bytes).for_each(|(to, from)| *to = from.cast_signed() as c_char);
        let vdev = guest.names().vdevs.get(&*fault.device).copied();
        place.write(Fault {
            vdev: vdev_pointer(vdev.map_or(0, |named| named.number)),
            device_addr: fault.addr.0,
            access: fault.access.bits().into(),
            refusal,
            dropped,
            name,
        });
        Ok(())
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_map_check(h: *const MapHandle) -> c_int {
    boundary::call(|| {
        // SAFETY: `h` is NULL or valid for reads during the call, by the pointer rule.
        let handle = unsafe { read(h, "the handle is NULL") }?;
        match Token::from_words(handle.reserved).is_revoked() {
            Some(false) => Ok(()),
            Some(true) => Err(Failure::Call(Errno::STALE, "the mapping was revoked")),
            None => Err(Failure::Call(Errno::BADF, "the handle is not mapped")),
        }
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_last_error() -> *const c_char {
    last_error::pointer()
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_set_log(level: u32, function: Log, context: *mut c_void) -> c_int {
    boundary::call(|| {
        if level > GASP_LOG_DEBUG {
            return Err(Failure::invalid("the level is not one of GASP_LOG_*"));
        }
        // SAFETY: `<gasp/guest.h>` asks that the function can be called from any thread, by several
        // at a time, with this context, and returns.
        unsafe { log::set(level, function, context) };
        Ok(())
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
