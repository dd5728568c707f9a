//! `vdev_pulse()`: events that call a vdev's `pulse`.
//!
//! An event is one of the host's threads (SIGEV_THREAD), for timer_create(2), mq_notify(3), aio(7);
//! its value is a number by which the pulse is found, so that one that comes late is dropped.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::c_int;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::collections::BTreeMap;

use gasp::Errno;
use gasp_capi::types::Vdev;
use parking_lot::RwLock;

use super::cpu::code;
use crate::abi::{Pulse, SigEvent};
use crate::live::Live;

/// A pulse that an event is prepared for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Prepared {
    vdev: usize,
    code: i8,
    scoid: i32,
}

static PREPARED: RwLock<BTreeMap<usize, Prepared>> = RwLock::new(BTreeMap::new());
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// See `<qvm/vdev-core.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdev_pulse(
    vdp: *mut Vdev,
    code: i8,
    _priority: c_int,
    ev: *mut SigEvent,
    coid: c_int,
) {
    let (false, Some(live)) = (ev.is_null(), Live::find(vdp)) else {
        tracing::error!("vdev_pulse: the vdev or the event is not valid");
        return;
    };
    if !live.factory.callbacks().contains(&"pulse") {
        tracing::warn!(vdev = %live.name, "vdev_pulse: the factory has no `pulse`");
    }
    let prepared = Prepared { vdev: vdp.addr(), code, scoid: coid };
    let mut all = PREPARED.write();
    // Those of vdevs that are gone are found by no one.
    all.retain(|_, other| Live::find(core::ptr::without_provenance(other.vdev)).is_some());
    let same = all.iter().find(|(_, other)| **other == prepared).map(|(number, _)| *number);
    let number = same.unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
    all.insert(number, prepared);
    drop(all);
    let event = SigEvent {
        value: number,
        signo: 0,
        notify: libc::SIGEV_THREAD,
        function: Some(notified),
        attributes: 0,
        rest: [0; 4],
    };
    // SAFETY: `ev` is not NULL, so it is valid for writes, by the pointer rule.
    unsafe { ev.write(event) };
}

/// What the thread of an event calls.
extern "C" fn notified(number: usize) {
    if let Err(errno) = deliver(number) {
        tracing::debug!(%errno, "a pulse is dropped");
    }
}

fn deliver(number: usize) -> Result<(), Errno> {
    let prepared = PREPARED.read().get(&number).copied().ok_or(Errno::INVAL)?;
    let vdev = core::ptr::without_provenance(prepared.vdev);
    let live = Live::find(vdev).ok_or(Errno::NXIO)?;
    let Prepared { code, scoid, .. } = prepared;
    live.worker.pulse(&live, Pulse { code, scoid, ..Pulse::default() })
}

/// See `<qvm/vdev-core.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdev_pulse_deliver(ev: *const SigEvent) -> c_int {
    if ev.is_null() {
        return libc::EINVAL;
    }
    // SAFETY: `ev` is not NULL, so it is valid for reads, by the pointer rule.
    let event = unsafe { ev.read() };
    let ours = event.notify == libc::SIGEV_THREAD
        && event
            .function
            .is_some_and(|it| core::ptr::fn_addr_eq(it, notified as extern "C" fn(usize)));
    match ours {
        true => code(deliver(event.value)),
        false => libc::EINVAL,
    }
}
