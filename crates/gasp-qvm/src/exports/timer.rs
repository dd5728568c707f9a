//! `<qvm/guest.h>`: timers.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use gasp::Errno;
use gasp_capi::types::Vdev;
use parking_lot::RwLock;

use super::cpu::code;
use crate::abi::TimerData;
use crate::clock;
use crate::live::Live;
use crate::worker::When;

/// Timers, by the number that C has as a `struct guest_timer *`.
static TIMERS: RwLock<BTreeMap<usize, Weak<Live>>> = RwLock::new(BTreeMap::new());
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// `GUEST_TIMER_ABSOLUTE`.
const ABSOLUTE: usize = usize::MAX;

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_timer_create(
    _gcp: *const c_void,
    vdp: *const Vdev,
    data: *const c_void,
    resolutionp: *mut u64,
) -> *mut c_void {
    let create = || {
        let live = Live::find(vdp).ok_or(Errno::INVAL)?;
        if live.factory.timer.is_none() {
            tracing::warn!(vdev = %live.name, "guest_timer_create: the factory has no `timer`");
            return Err(Errno::NOSYS);
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        live.worker.add_timer(number, data.expose_provenance())?;
        let mut all = TIMERS.write();
        all.retain(|_, live| live.strong_count() > 0);
        all.insert(number, Arc::downgrade(&live));
        Ok(number)
    };
    let (timer, says) = match create() {
        Ok(number) => (number, clock::RESOLUTION),
        Err(errno) => (0, u64::try_from(errno.raw_os_error()).unwrap_or(0)),
    };
    if !resolutionp.is_null() {
        // SAFETY: it is not NULL, so it is valid for writes, by the pointer rule.
        unsafe { resolutionp.write(says) };
    }
    core::ptr::without_provenance_mut(timer)
}

fn of(timer: *const c_void) -> Result<(usize, Arc<Live>), Errno> {
    let number = timer.addr();
    let live = TIMERS.read().get(&number).and_then(Weak::upgrade);
    Ok((number, live.ok_or(Errno::INVAL)?))
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_timer_notify(
    vtp: *mut c_void,
    tdp: *const TimerData,
    deadline: u64,
) -> c_int {
    let notify = || {
        let (number, live) = of(vtp)?;
        let when = match tdp.addr() {
            0 if deadline == 0 => When::Never,
            0 => When::FromNow(deadline),
            ABSOLUTE => When::At(deadline),
            _ => When::FromDue(deadline),
        };
        live.worker.set_timer(&live, number, when)
    };
    code(notify())
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_timer_state(vtp: *const c_void, tdp: *mut TimerData) {
    if tdp.is_null() {
        return;
    }
    let requested = of(vtp).ok().and_then(|(number, live)| live.worker.requested(number));
    let (start, now) = (requested.unwrap_or(0), clock::now());
    let times = TimerData {
        host_notify_start: start,
        host_current: now,
        guest_notify_start: start,
        guest_current: now,
    };
    // SAFETY: it is not NULL, so it is valid for writes, by the pointer rule.
    unsafe { tdp.write(times) };
}
