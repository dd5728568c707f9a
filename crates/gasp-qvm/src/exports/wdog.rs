//! `<qvm/wdog.h>`: watchdogs.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_char, c_int};

use gasp_capi::types::Vdev;

use super::bytes;
use super::core::of;
use super::power::write_core;
use crate::abi::*;
use crate::cancel::uncancelled;
use crate::host::Cause;

/// The action and the flags of `[dump,]terminate|intr`.
fn action(text: &[u8]) -> Option<(u32, u32)> {
    let (flags, text) = match text.strip_prefix(b"dump,") {
        Some(text) => (WDOG_FLAG_DUMP, text),
        None => (0, text),
    };
    match text {
        b"terminate" => Some((WDOG_ACTION_TERMINATE, flags)),
        b"intr" | b"fiq" => Some((WDOG_ACTION_INTR, flags)),
        _ => None,
    }
}

/// See `<qvm/wdog.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wdog_init(wds: *mut WdogState, vdp: *mut Vdev) {
    if wds.is_null() {
        return;
    }
    let state = WdogState {
        ws_vdev: vdp,
        ws_action: WDOG_ACTION_TERMINATE,
        ws_flags: 0,
        ws_reserved: [0; 2],
    };
    // SAFETY: it is not NULL, so it is valid for writes, by the pointer rule.
    unsafe { wds.write(state) };
}

/// See `<qvm/wdog.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wdog_parse_action(wds: *mut WdogState, arg: *const c_char) -> c_int {
    // SAFETY: the pointer rule.
    let (false, Some((action, flags))) = (wds.is_null(), action(unsafe { bytes(arg) })) else {
        return libc::EINVAL;
    };
    // SAFETY: it is not NULL, so it is valid for reads, by the pointer rule.
    let mut state = unsafe { wds.read() };
    (state.ws_action, state.ws_flags) = (action, flags);
    // SAFETY: it is not NULL, so it is valid for writes, by the pointer rule.
    unsafe { wds.write(state) };
    0
}

/// See `<qvm/wdog.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wdog_bite(wds: *mut WdogState) {
    if wds.is_null() {
        return;
    }
    // SAFETY: it is not NULL, so it is valid for reads, by the pointer rule.
    let state = unsafe { wds.read() };
    uncancelled(|| bite(&state));
}

fn bite(state: &WdogState) {
    let live = of(state.ws_vdev);
    let vdev = live.as_ref().map_or("?", |live| live.name.as_str());
    if (state.ws_action | state.ws_flags) & WDOG_FLAG_DUMP != 0
        && let Err(errno) = write_core(live.as_deref(), None)
    {
        tracing::warn!(vdev, %errno, "the watchdog cannot write a core file");
    }
    let Some(live) = &live else {
        tracing::error!("wdog_bite: ws_vdev is no vdev, and this thread is no vdev's");
        return;
    };
    match state.ws_action & !WDOG_FLAG_DUMP {
        WDOG_ACTION_TERMINATE => live.end(Cause::Terminated(GTC_WATCHDOG)),
        WDOG_ACTION_INTR if state.ws_vdev.is_null() => {
            tracing::error!(vdev, "wdog_bite: an interrupt needs ws_vdev");
        }
        WDOG_ACTION_INTR if live.has_interrupt(live.object.interrupt().src_id) => live.send_edge(),
        WDOG_ACTION_INTR => tracing::error!(vdev, "wdog_bite: the vdev has no interrupt"),
        other => tracing::error!(vdev, "wdog_bite: ws_action {other:#x} is no WDOG_ACTION_*"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_one_word_after_dump() {
        assert_eq!(action(b"terminate"), Some((WDOG_ACTION_TERMINATE, 0)));
        assert_eq!(action(b"dump,intr"), Some((WDOG_ACTION_INTR, WDOG_FLAG_DUMP)));
        assert_eq!(action(b"fiq"), Some((WDOG_ACTION_INTR, 0)));
        for text in ["", "dump", "dump,", "dump,dump,intr", "intr,dump", "INTR", "terminate "] {
            assert_eq!(action(text.as_bytes()), None, "{text}");
        }
    }
}
