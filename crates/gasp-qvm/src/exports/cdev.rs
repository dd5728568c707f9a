//! `<qvm/cdev.h>`: character devices.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use gasp::Errno;
use gasp_capi::types::Vdev;

use super::cpu::code;
use super::log::report;
use super::power::set_errno;
use super::pulse::vdev_pulse;
use crate::abi::*;
use crate::cancel::uncancelled;
use crate::cdev::{self, Cdev, SIZE_MAX, Shown};
use crate::live::Live;

/// The most character devices of a vdev.
const CDEVS_MAX: usize = 64;

/// The character device of a `struct cdev_state`, and its vdev.
///
/// # Safety
/// `cds` is NULL or valid for reads: the pointer rule.
unsafe fn of(cds: *const CdevState) -> Result<(Arc<Cdev>, Arc<Live>), Errno> {
    if cds.is_null() {
        return Err(Errno::INVAL);
    }
    // SAFETY: it is not NULL, so it is valid for reads, as this function asks.
    let vdev = unsafe { &raw const (*cds).vdev };
    // SAFETY: as above.
    let vdev = unsafe { vdev.read_volatile() };
    let live = Live::find(vdev).ok_or(Errno::INVAL)?;
    let cdev = live.cdevs.lock().get(&cds.addr()).cloned();
    Ok((cdev.ok_or(Errno::INVAL)?, live))
}

/// Shows the state of a character device in its `struct cdev_state`.
///
/// # Safety
/// `cds` is valid for writes.
unsafe fn show(cds: *mut CdevState, shown: &Shown) {
    /// Writes a member, which other threads may read meanwhile.
    ///
    /// # Safety
    /// `place` is valid for writes.
    unsafe fn store(place: *mut u32, value: u32) {
        // SAFETY: as this function asks; it is aligned as a member.
        unsafe { AtomicU32::from_ptr(place) }.store(value, Ordering::Release);
    }
    macro_rules! set {
        ($($member:ident).+ = $value:expr) => {{
            // SAFETY: `cds` is valid for writes, as this function asks.
            let place = unsafe { &raw mut (*cds).$($member).+ };
            // SAFETY: as above.
            unsafe { place.write_volatile($value) };
        }};
    }
    macro_rules! set_number {
        ($($member:ident).+ = $value:expr) => {{
            // SAFETY: `cds` is valid for writes, as this function asks.
            let place = unsafe { &raw mut (*cds).$($member).+ };
            // SAFETY: as above.
            unsafe { store(place, $value) };
        }};
    }
    let Shown { input, output, .. } = shown;
    set!(input.name = input.name);
    set!(input.buff = input.buffer);
    set_number!(input.size = input.size);
    set_number!(input.avail = input.end);
    set_number!(input.pos = input.begin);
    set!(input.fd = input.fd);
    set!(output.name = output.name);
    set!(output.buff = output.buffer);
    set_number!(output.size = output.size);
    set_number!(output.begin = output.begin);
    set_number!(output.pos = output.end);
    set!(output.fd = output.fd);
    set!(output.flush_timeout = i64::try_from(shown.batch.as_micros()).unwrap_or(i64::MAX));
    set!(delayed_count = shown.delayed);
    if let Some(settings) = shown.settings {
        set!(save_termio = settings.0);
    }
}

/// Calls `work` with a character device, and then shows its state.
///
/// # Safety
/// `cds` is NULL or valid for reads and writes: the pointer rule.
unsafe fn with<T>(
    cds: *mut CdevState,
    work: impl FnOnce(&Arc<Cdev>, &Arc<Live>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    uncancelled(|| {
        // SAFETY: `cds` is as this function asks.
        let (cdev, live) = unsafe { of(cds) }?;
        let outcome = work(&cdev, &live);
        // SAFETY: a NULL has been refused above.
        unsafe { show(cds, &cdev.shown()) };
        outcome
    })
}

/// Bytes as C has them: their number, or -1 and errno.
fn count(outcome: Result<usize, Errno>) -> c_int {
    match outcome {
        Ok(count) => c_int::try_from(count).unwrap_or(c_int::MAX),
        Err(errno) => {
            set_errno(errno);
            -1
        }
    }
}

/// See `<qvm/cdev.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdev_setup(cds: *mut CdevState, vdev: *mut Vdev, size: c_uint) -> c_int {
    let set_up = || {
        let live = Live::find(vdev).filter(|_| !cds.is_null()).ok_or(Errno::INVAL)?;
        let size = size as usize;
        if size > SIZE_MAX {
            return Err(Errno::INVAL);
        }
        if live.is_running() {
            return Err(Errno::PERM);
        }
        let cdev = Cdev::new(Arc::<Live>::downgrade(&live), &live.name, size)?;
        let shown = cdev.shown();
        let mut cdevs = live.cdevs.lock();
        if cdevs.len() >= CDEVS_MAX && !cdevs.contains_key(&cds.addr()) {
            return Err(Errno::NOMEM);
        }
        // One that is set up again loses what it was.
        let before = cdevs.insert(cds.addr(), Arc::new(cdev));
        drop(cdevs);
        drop(before);
        // SAFETY: it is not NULL, so it is valid for writes, by the pointer rule.
        unsafe { cds.write_bytes(0, 1) };
        // SAFETY: as above.
        let place = unsafe { &raw mut (*cds).vdev };
        // SAFETY: as above.
        unsafe { place.write_volatile(vdev) };
        for (code, place) in [
            // SAFETY: as above.
            (CDEV_INPUT_AVAILABLE_PULSE_CODE, unsafe { &raw mut (*cds).ev_in }),
            // SAFETY: as above.
            (CDEV_OUTPUT_AVAILABLE_PULSE_CODE, unsafe { &raw mut (*cds).ev_out }),
        ] {
            // SAFETY: `place` is that of a member of `cds`.
            unsafe { vdev_pulse(vdev, code, -1, place, -1) };
        }
        // SAFETY: as above.
        unsafe { show(cds, &shown) };
        Ok(())
    };
    code(uncancelled(set_up))
}

/// See `<qvm/cdev.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdev_control(cds: *mut CdevState, ctrl: u32, arg: *const c_char) -> c_int {
    let text = match arg.is_null() || ctrl < VDEV_CTRL_FIRST_OPTIDX {
        true => c"",
        // SAFETY: it is not NULL, so for an option it is a string, by the pointer rule.
        false => unsafe { CStr::from_ptr(arg) },
    };
    // SAFETY: the pointer rule.
    code(unsafe { with(cds, |cdev, live| control(cdev, live, ctrl, text)) })
}

fn control(cdev: &Arc<Cdev>, live: &Live, ctrl: u32, argument: &CStr) -> Result<(), Errno> {
    match ctrl {
        VDEV_CTRL_GUEST_CONFIGURED => cdev.start().map_err(|(errno, path)| {
            let why = format!("{}: {errno}", path.display());
            tracing::error!(vdev = %live.name, "the host device cannot be opened: {why}");
            *live.error.lock() = why;
            errno
        })?,
        VDEV_CTRL_TERMINATE => cdev.close(),
        VDEV_CTRL_STATUS => report(live, &cdev.report()),
        _ => match ctrl.checked_sub(VDEV_CTRL_FIRST_OPTIDX) {
            Some(CDEV_OPT_HOSTDEV_IDX) => {
                let (used, path) = cdev::hostdev(argument).ok_or(Errno::INVAL)?;
                cdev.set_path(used, path);
            }
            Some(CDEV_OPT_DELAYED_IDX) => {
                cdev.set_delay(cdev::delayed(argument).ok_or(Errno::INVAL)?);
            }
            Some(CDEV_OPT_BATCH_IDX) => cdev.set_batch(cdev::batch(argument).ok_or(Errno::INVAL)?),
            _ => {}
        },
    }
    Ok(())
}

/// See `<qvm/cdev.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdev_input_receive(cds: *mut CdevState) -> c_int {
    // SAFETY: the pointer rule.
    count(unsafe { with(cds, |cdev, _| cdev.receive()) })
}

/// See `<qvm/cdev.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdev_read(cds: *mut CdevState, buf: *mut c_void, nbytes: c_uint) -> c_int {
    let read = |cdev: &Arc<Cdev>, _: &Arc<Live>| match buf.is_null() && nbytes > 0 {
        true => Err(Errno::INVAL),
        // SAFETY: it is not NULL, so it is valid for writes of so many bytes, by the pointer rule.
        false => unsafe { cdev.read(buf.cast(), nbytes.min(COUNT_MAX) as usize) },
    };
    // SAFETY: the pointer rule.
    count(unsafe { with(cds, read) })
}

/// The most bytes of a call: the result is an `int`.
const COUNT_MAX: c_uint = c_int::MAX as c_uint;

/// See `<qvm/cdev.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdev_write(
    cds: *mut CdevState,
    buf: *const c_void,
    nbytes: c_uint,
) -> c_int {
    let write = |cdev: &Arc<Cdev>, _: &Arc<Live>| match buf.is_null() && nbytes > 0 {
        true => Err(Errno::INVAL),
        // SAFETY: it is not NULL, so it is valid for reads of so many bytes, by the pointer rule.
        false => unsafe { cdev.write(buf.cast(), nbytes.min(COUNT_MAX) as usize) },
    };
    // SAFETY: the pointer rule.
    count(unsafe { with(cds, write) })
}

/// See `<qvm/cdev.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdev_write_buffer(cds: *mut CdevState) -> c_int {
    // SAFETY: the pointer rule.
    count(unsafe { with(cds, |cdev, _| cdev.flush()) })
}
