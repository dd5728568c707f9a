//! `<qvm/guest.h>`: the end of a guest, its button, its clock.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_int, c_uint, c_void};
use core::sync::atomic::Ordering;

use gasp_capi::types::Vdev;

use crate::abi::*;
use crate::cancel::uncancelled;
use crate::host::Cause;
use crate::live::Live;

/// Ends the guest of the vdev that this thread works for.
fn terminate(cause: Option<c_int>) {
    let cause = cause.filter(|cause| (GTC_NORMAL_EXIT..=GTC_MAX).contains(cause));
    match Live::current() {
        Some(live) => live.end(Cause::Terminated(cause.unwrap_or(GTC_ERROR))),
        None => uncancelled(|| {
            tracing::error!(
                "guest_terminate: this thread is no vdev's; create it with vdev_thread_create()"
            );
        }),
    }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_terminate(cause: c_int) {
    terminate(Some(cause));
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_terminate_710(_gsp: *mut c_void, cause: c_uint) {
    terminate(c_int::try_from(cause).ok());
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
