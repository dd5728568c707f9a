//! `<qvm/guest.h>`: callbacks for instructions, of which the host's processor tells nobody.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_int, c_uint, c_void};

use gasp_capi::types::Vdev;

use crate::abi::*;
use crate::live::Live;

/// `guest_instr_callback_func_t`.
type Callback = unsafe extern "C" fn(*mut Vdev, *mut c_void, u32, c_uint) -> u32;

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_instr_register(
    vdp: *mut Vdev,
    git: u32,
    _qualifier: c_uint,
    func: Option<Callback>,
) -> c_int {
    let is_known = matches!(
        git & !GIT_FLAG_NO_QUALIFIER,
        GIT_X86_HLT..=GIT_X86_VMCALL | GIT_ARM_WFI..=GIT_ARM_SMC
    );
    match Live::find(vdp) {
        Some(live) if live.is_running() => libc::EPERM,
        Some(_) if is_known && func.is_some() => libc::ENOTSUP,
        _ => libc::EINVAL,
    }
}
