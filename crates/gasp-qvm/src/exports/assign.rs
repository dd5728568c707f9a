//! `<qvm/guest.h>`, `<qvm/utils.h>`: interrupts that vdevs assign by themselves, and what only
//! interrupt controllers call, which are the host's here.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_char, c_int, c_uint};

use gasp::Errno;
use gasp_capi::types::{GuestSystem, Vdev};

use super::bytes;
use crate::abi::*;
use crate::controller::{self, Refused, is_host};
use crate::lines;
use crate::live::Live;
use crate::{cancel, conf};

/// Assigns a pin to the vdev whose callback this is.
///
/// # Safety
/// `gip` is NULL or valid for writes: the pointer rule.
unsafe fn assign(gip: *mut GuestIntr, kind: u32, pic: *const Vdev, pin: Option<u32>) {
    let live = Live::current();
    let outcome = match (&live, kind) {
        (None, _) => Err(Refused::new(Errno::NXIO, "this is no callback of a vdev")),
        (_, 2..) => {
            Err(Refused::new(Errno::INVAL, format!("{kind} is no GIAT_*, and assigns no line")))
        }
        _ if !is_host(pic) => Err(Refused::new(
            Errno::NXIO,
            "it assigns a line of what is no interrupt controller; use NULL for the guest's",
        )),
        (Some(live), _) => lines::assign(live, pin, kind == GIAT_EXCLUSIVE),
    };
    let refused = outcome.as_ref().err().cloned();
    if let Some(Refused { why, .. }) = &refused {
        let vdev = live.as_ref().map_or("?", |live| live.name.as_str());
        cancel::uncancelled(|| tracing::error!(vdev, "guest_intr_assign: {why}"));
    }
    if let Some(live) = live.filter(|live| !live.is_running()) {
        *live.refused_line.lock() = refused;
    }
    if !gip.is_null() {
        let none = GuestIntr { pic: core::ptr::null_mut(), param: pin.unwrap_or(0), src_id: 0 };
        // SAFETY: it is not NULL, so it is valid for writes, as this function asks.
        unsafe { gip.write(outcome.unwrap_or(none)) };
    }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_intr_assign(
    gip: *mut GuestIntr,
    kind: u32,
    pic: *mut Vdev,
    pnum: c_uint,
) {
    // SAFETY: the pointer rule.
    unsafe { assign(gip, kind, pic, Some(pnum)) };
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_intr_assign_710(
    pic: *mut Vdev,
    pnum: c_uint,
    kind: u32,
    ip: *mut GuestIntr,
) {
    // SAFETY: the pointer rule.
    unsafe { assign(ip, kind, pic, Some(pnum)) };
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_intr_assign_auto(gip: *mut GuestIntr, kind: u32) {
    // SAFETY: the pointer rule.
    unsafe { assign(gip, kind, core::ptr::null(), None) };
}

/// Reads an interrupt at the beginning of a text, and assigns it; the first character after it.
///
/// # Safety
/// `text` is NULL or a string, and `gip` NULL or valid for writes: the pointer rule.
unsafe fn parse(text: *const c_char, gip: *mut GuestIntr) -> *mut c_char {
    // SAFETY: `text` is as this function asks.
    let Some((name, line, len)) = conf::interrupt(unsafe { bytes(text) }) else {
        return core::ptr::null_mut();
    };
    let Some(live) = Live::current() else { return core::ptr::null_mut() };
    let assigned = match name {
        controller::NAME => lines::assign(&live, Some(line), true),
        _ => Err(Refused::new(
            Errno::NXIO,
            format!(
                "there is no interrupt controller `{name}`; the guest has `{}`",
                controller::NAME
            ),
        )),
    };
    match assigned {
        Ok(intr) => {
            if !gip.is_null() {
                // SAFETY: it is not NULL, so it is valid for writes, as this function asks.
                unsafe { gip.write(intr) };
            }
            text.wrapping_add(len).cast_mut()
        }
        Err(Refused { why, .. }) => {
            cancel::uncancelled(|| tracing::error!(vdev = %live.name, "{why}"));
            why.clone_into(&mut live.error.lock());
            core::ptr::null_mut()
        }
    }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_intr_from_conf_str(
    gip: *mut GuestIntr,
    text: *mut c_char,
) -> *mut c_char {
    // SAFETY: the pointer rule.
    unsafe { parse(text, gip) }
}

/// See `<qvm/utils.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qvm_parse_intr(
    gsp: *const GuestSystem,
    text: *const c_char,
    ip: *mut GuestIntr,
) -> *mut c_char {
    let own = Live::current().is_some_and(|live| live.guest.pointer().addr() == gsp.addr());
    if !own {
        return core::ptr::null_mut();
    }
    // SAFETY: the pointer rule.
    unsafe { parse(text, ip) }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_intr_num_pins(pic: *const Vdev) -> c_uint {
    let live = Live::current().filter(|_| is_host(pic));
    live.map_or(0, |live| live.host.lines())
}

/// See `<qvm/guest.h>`. The host's controllers need no such call, and no vdev is one.
#[unsafe(no_mangle)]
pub extern "C" fn guest_intr_notify(_vdp: *const Vdev, _param: c_uint, _gin: u32) {}

/// See `<qvm/guest.h>`. The address of the function is all that is taken.
#[unsafe(no_mangle)]
pub extern "C" fn guest_msi_register(
    pic: *mut Vdev,
    paddr: u64,
    mask: u64,
    _deliver: Option<unsafe extern "C" fn(*mut Vdev, *const Vdev, u64, c_uint, c_uint)>,
    _cookie: c_uint,
) {
    let live = Live::find(pic);
    let vdev = live.as_ref().map_or("?", |live| live.name.as_str());
    cancel::uncancelled(|| {
        tracing::warn!(
            vdev,
            "guest_msi_register: messages to {paddr:#x} (mask {mask:#x}) stay with the host's \
             interrupt controllers"
        );
    });
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_msi_register_range(
    pic: *mut Vdev,
    first: u64,
    last: u64,
    deliver: Option<unsafe extern "C" fn(*mut Vdev, *const Vdev, u64, u32, u32)>,
    _rangeid: u32,
) -> c_int {
    match (Live::find(pic), deliver) {
        (Some(live), _) if live.is_running() => libc::EPERM,
        (Some(_), Some(_)) if first <= last => libc::ENOTSUP,
        _ => libc::EINVAL,
    }
}
