//! `<qvm/log.h>`, `<qvm/outpipe.h>`: messages of vdevs, and the end of one that cannot go on.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::c_char;
use std::panic::resume_unwind;

use gasp_capi::types::Vdev;

use super::core::of;
use super::text;
use crate::cancel::uncancelled;
use crate::doing::Doing;
use crate::host::{Cause, End};
use crate::live::{Fatal, Live};

/// Levels: `QL_QVM_*`. Those of the configuration have one bit more.
const FATAL: u32 = 0;
const ERROR: u32 = 2;
const WARN: u32 = 3;
const INFO: u32 = 4;
const DEBUG: u32 = 5;
const OF_CONFIGURATION: u32 = 0x100;

/// The sources of a fatal error that concern the configuration.
const QLS_CNF: u32 = 1;
/// Exit statuses.
const STATUS_CONFIGURATION: i32 = 65;
const STATUS_START: i32 = 64;
const STATUS_RUNNING: i32 = 96;

/// A report of the state of a vdev is cut after so many bytes.
const REPORT_MAX: usize = 64 << 10;

/// See `<qvm/log.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdev_log_text(level: u32, vdp: *const Vdev, line: *const c_char) {
    // SAFETY: the pointer rule.
    let line = unsafe { text(line) };
    uncancelled(|| log(level, vdp, line.trim_end_matches('\n')));
}

fn log(level: u32, vdp: *const Vdev, line: &str) {
    let live = of(vdp);
    let vdev = live.as_ref().map_or("?", |live| live.name.as_str());
    match level & !OF_CONFIGURATION {
        FATAL..=ERROR => {
            // That of a thread is not why a call of `control` fails.
            let in_control = Doing::with(|doing| doing.is_some_and(|doing| doing.may_unwind));
            if let Some(live) = live.as_ref().filter(|_| in_control) {
                line.clone_into(&mut live.error.lock());
            }
            tracing::error!(vdev, "{line}");
        }
        WARN => tracing::warn!(vdev, "{line}"),
        INFO => tracing::info!(vdev, "{line}"),
        DEBUG => tracing::debug!(vdev, "{line}"),
        _ => tracing::trace!(vdev, "{line}"),
    }
}

/// See `<qvm/log.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qvm_report_text(line: *const c_char) {
    // SAFETY: the pointer rule.
    let line = unsafe { text(line) };
    if let Some(live) = Live::current() {
        report(&live, &line);
    }
}

/// Adds a text to the report of a vdev; a line of the log if none is being collected.
pub(super) fn report(live: &Live, line: &str) {
    let mut report = live.report.lock();
    match report.as_mut() {
        Some(report) if report.len() + line.len() <= REPORT_MAX => report.push_str(line),
        Some(_) => {}
        None => {
            drop(report);
            uncancelled(|| tracing::info!(vdev = %live.name, "{}", line.trim_end_matches('\n')));
        }
    }
}

/// See `<qvm/log.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn qvm_fatal_text(source: u32, line: *const c_char) -> ! {
    // SAFETY: the pointer rule.
    let line = unsafe { text(line) }.trim_end_matches('\n').to_owned();
    let live = Live::current();
    if Doing::with(|doing| doing.is_some_and(|doing| doing.may_unwind)) {
        // The frames between are those of the vdev, in C: they have nothing to clean up.
        resume_unwind(Box::new(Fatal(line)));
    }
    let vdev = live.as_ref().map_or("?", |live| live.name.as_str());
    uncancelled(|| tracing::error!(vdev, "{line}"));
    let status = match (source, &live) {
        (QLS_CNF, _) => STATUS_CONFIGURATION,
        (_, None) => STATUS_START,
        (_, Some(_)) => STATUS_RUNNING,
    };
    if let Some(live) = live {
        live.host.stuck(&End { vdev: live.name.clone(), cause: Cause::Fatal(line) });
    }
    std::process::exit(status)
}
