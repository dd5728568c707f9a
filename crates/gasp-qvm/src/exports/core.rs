//! `<qvm/vdev-core.h>`: the factory, threads, and the name of a vdev.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_char, c_int, c_uint, c_void};
use core::ptr::NonNull;
use std::sync::Arc;

use gasp_capi::types::Vdev;

use super::{print, text};
use crate::abi::*;
use crate::doing::Forever;
use crate::factory::Registered;
use crate::live::{Live, c_text};
use crate::loader;

/// See `<qvm/vdev-core.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn vdev_register_factory(factory: *mut c_void, abi_version: c_uint) {
    let factory = NonNull::new(factory);
    if !loader::register(Registered { factory, abi: abi_version }) {
        tracing::error!(
            "vdev_register_factory: called after the file was loaded; call it in a constructor"
        );
    }
}

type Start = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

unsafe extern "C-unwind" {
    fn pthread_create(
        thread: *mut libc::pthread_t,
        attributes: *const libc::pthread_attr_t,
        start: Start,
        argument: *mut c_void,
    ) -> c_int;
}

/// A thread that is about to start.
struct Starting {
    live: Arc<Live>,
    name: String,
    start: Start,
    argument: *mut c_void,
}

/// See `<qvm/vdev-core.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdev_thread_create(
    vdp: *const Vdev,
    name: *const c_char,
    thread: *mut libc::pthread_t,
    attr: *mut libc::pthread_attr_t,
    start: Option<Start>,
    arg: *mut c_void,
) -> c_int {
    let (Some(live), Some(start)) = (Live::find(vdp), start) else { return libc::EINVAL };
    // SAFETY: `name` is NULL or a string, by the pointer rule.
    let name = match unsafe { text(name) } {
        name if name.is_empty() => live.name.clone(),
        name => name.into_owned(),
    };
    live.threads.add(&name);
    let starting = Starting { live: Arc::clone(&live), name: name.clone(), start, argument: arg };
    let starting = Box::into_raw(Box::new(starting));
    let mut own: libc::pthread_t = 0;
    let place = if thread.is_null() { &raw mut own } else { thread };
    // SAFETY: `place` is valid for writes: it is `own`, or `thread` by the pointer rule. `attr` is
    // NULL or initialized, by the same rule. `run` takes the box, once.
    let code = unsafe { pthread_create(place, attr, run, starting.cast()) };
    if code != 0 {
        // SAFETY: it is of `Box::into_raw`, and no thread has started that would take it.
        drop(unsafe { Box::from_raw(starting) });
        live.threads.remove(&name);
    }
    code
}

/// The start of a thread. It may be cancelled, or end itself, in `start`: this frame has nothing
/// that would have to be dropped then.
unsafe extern "C-unwind" fn run(starting: *mut c_void) -> *mut c_void {
    let (start, argument) = begin(starting.cast());
    // SAFETY: `start` is what the vdev has asked to be called with `argument`; its file is never
    // unloaded.
    unsafe { start(argument) }
}

fn begin(starting: *mut Starting) -> (Start, *mut c_void) {
    // SAFETY: `vdev_thread_create` has it of `Box::into_raw`, and this thread alone takes it.
    let Starting { live, name, start, argument } = *unsafe { Box::from_raw(starting) };
    let short: String = name.chars().take(15).collect();
    // SAFETY: it takes nothing, and returns this thread.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: the text is a C string; the thread is this one.
    unsafe { libc::pthread_setname_np(this, c_text(&short).as_ptr()) };
    gasp::signal::block_in_thread();
    live.guest.choose();
    let doing = Forever::new(&live.name, live.address(), &name);
    let threads = Arc::clone(&live.threads);
    threads.is_this(&name, doing, live);
    (start, argument)
}

/// See `<qvm/vdev-core.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdev_string(buf: *mut c_char, count: usize, vdp: *const Vdev) -> c_int {
    let text = match Live::find(vdp) {
        None => "(no vdev)".to_owned(),
        Some(live) => {
            let Block { location, kind, .. } = live.object.block();
            let space = match kind {
                QST_MEMORY => "mem",
                QST_X86_IO => "io",
                QST_PCI => "pci",
                _ => "?",
            };
            match location {
                QSL_NO_LOCATION => live.name.clone(),
                _ => format!("{} {space}:{location:#x}", live.name),
            }
        }
    };
    // SAFETY: `buf` is NULL or valid for writes of `count` bytes, by the pointer rule.
    let len = unsafe { print(&text, buf, count) };
    c_int::try_from(len).unwrap_or(c_int::MAX)
}

/// See `<qvm/vdev-core.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdev_path(buf: *mut c_char, count: usize, vdp: *const Vdev) -> c_int {
    let text = Live::find(vdp).map_or_else(String::new, |live| {
        format!("/dev/qvm/{}/{}", live.guest.engine().name(), live.name)
    });
    // SAFETY: `buf` is NULL or valid for writes of `count` bytes, by the pointer rule.
    let len = unsafe { print(&text, buf, count) };
    c_int::try_from(len).unwrap_or(c_int::MAX)
}

/// The vdev that a call is for: the one it names, or the one that this thread works for.
pub(super) fn of(vdp: *const Vdev) -> Option<Arc<Live>> {
    if vdp.is_null() { Live::current() } else { Live::find(vdp) }
}
