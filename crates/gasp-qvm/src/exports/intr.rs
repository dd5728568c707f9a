//! `<qvm/guest.h>`: interrupts.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_char, c_int, c_uint};
use std::sync::Arc;

use gasp::Errno;
use gasp_capi::types::Vdev;

use super::cpu::code;
use super::print;
use crate::abi::*;
use crate::live::Live;
use crate::{controller, lines};

/// The vdev of an interrupt.
///
/// # Safety
/// `gip` is NULL or valid for reads: the pointer rule.
unsafe fn of(gip: *const GuestIntr) -> Result<(Arc<Live>, GuestIntr), Errno> {
    if gip.is_null() {
        return Err(Errno::INVAL);
    }
    // SAFETY: it is not NULL, so it is valid for reads, as this function asks.
    let intr = unsafe { gip.read() };
    let live = Live::of_interrupt(intr.src_id).ok_or(Errno::INVAL)?;
    Ok((live, intr))
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_intr_signal(gip: *const GuestIntr, gis: c_uint) -> c_int {
    let outcome = || {
        // SAFETY: the pointer rule.
        let (live, _) = unsafe { of(gip) }?;
        match gis & !GIS_ISR {
            GIS_ON => live.set_level(true),
            GIS_OFF => live.set_level(false),
            GIS_NOP if gis == GIS_NOP => {}
            // Nothing here runs in an interrupt handler.
            GIS_NOP => return Err(Errno::NOTSUP),
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    };
    match outcome() {
        Err(errno) if gis == GIS_ISR => -errno.raw_os_error(),
        outcome => code(outcome),
    }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_intr_level(gip: *const GuestIntr) -> c_int {
    // SAFETY: the pointer rule.
    match unsafe { of(gip) } {
        Ok(_) => 1,
        Err(errno) => -errno.raw_os_error(),
    }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_intr_string(
    gip: *const GuestIntr,
    buf: *mut c_char,
    buf_len: usize,
) -> usize {
    // SAFETY: the pointer rule.
    let text = match unsafe { of(gip) } {
        Ok((live, intr)) => match lines::line_of(&live, &intr) {
            Some(line) => format!("{}:{line}", controller::NAME),
            None => format!("{}:(any)", controller::NAME),
        },
        Err(_) => "(none)".to_owned(),
    };
    // SAFETY: the pointer rule.
    unsafe { print(&text, buf, buf_len) }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_msi_signal(src: *mut Vdev, addr: u64, data: c_uint) {
    if let Some(live) = Live::find(src) {
        live.host.message(addr, data);
    }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_msi_signal_710(src: *const Vdev, addr: u64, data: c_uint) -> c_int {
    match Live::find(src) {
        Some(live) => {
            live.host.message(addr, data);
            0
        }
        None => libc::EINVAL,
    }
}
