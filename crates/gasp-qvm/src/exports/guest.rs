//! `<qvm/guest.h>`: the end of a guest, its button, its clock.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_int, c_void};
use core::sync::atomic::Ordering;

use gasp_capi::types::Vdev;

use crate::doing::Doing;
use crate::host::Cause;
use crate::live::Live;

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_terminate(cause: c_int) {
    match Doing::live() {
        Some(live) => live.end(Cause::Terminated(cause)),
        None => tracing::error!(
            "guest_terminate: this thread is no vdev's; create it with vdev_thread_create()"
        ),
    }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_terminate_710(_gsp: *mut c_void, cause: c_int) {
    guest_terminate(cause);
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_button_register(vdp: *mut Vdev) -> c_int {
    match Live::find(vdp) {
        Some(live) => {
            live.has_button.store(true, Ordering::Release);
            0
        }
        None => libc::EINVAL,
    }
}

/// See `<qvm/guest.h>`. The processors' time is not billed here.
#[unsafe(no_mangle)]
pub extern "C" fn guest_clock_start() {}

/// See `<qvm/guest.h>`. The processors' time is not billed here.
#[unsafe(no_mangle)]
pub extern "C" fn guest_clock_stop() {}
