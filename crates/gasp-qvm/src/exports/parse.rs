//! `<qvm/utils.h>`: locations as the configuration writes them.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_char, c_int};

use gasp_capi::types::{StateBlock, StateBlock710};

use super::bytes;
use crate::conf::{self, Written};
use crate::live::Live;

/// The location at the beginning of a text, in the startup phase.
///
/// # Safety
/// `text` is NULL or a string: the pointer rule.
unsafe fn location(text: *const c_char) -> Option<Written> {
    // SAFETY: as this function asks.
    let text = unsafe { bytes(text) };
    let runs = Live::current().is_some_and(|live| live.is_running());
    conf::location(text).filter(|_| !runs)
}

/// See `<qvm/utils.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qvm_parse_block(text: *const c_char, bp: *mut StateBlock) -> *mut c_char {
    // SAFETY: the pointer rule.
    let written = unsafe { location(text) };
    let Some(written) = written.filter(|written| !bp.is_null() && !written.is_id) else {
        return core::ptr::null_mut();
    };
    // SAFETY: it is not NULL, so it is valid for reads, by the pointer rule.
    let mut block = unsafe { bp.read() };
    block.location = written.location;
    block.qst_type = written.kind.unwrap_or(block.qst_type);
    block.length = written.length.unwrap_or(block.length);
    // SAFETY: it is not NULL, so it is valid for writes, by the pointer rule.
    unsafe { bp.write(block) };
    text.wrapping_add(written.len).cast_mut()
}

/// See `<qvm/utils.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qvm_parse_block_710(
    text: *const c_char,
    bp: *mut StateBlock710,
    pci_idp: *mut c_int,
) -> *mut c_char {
    // SAFETY: the pointer rule.
    let written = unsafe { location(text) };
    let Some(written) = written.filter(|_| !bp.is_null()) else {
        return core::ptr::null_mut();
    };
    // SAFETY: it is not NULL, so it is valid for reads, by the pointer rule.
    let mut block = unsafe { bp.read() };
    block.location = written.location;
    block.qst_type = written.kind.unwrap_or(block.qst_type);
    match written.length.map(u32::try_from) {
        None => {}
        Some(Ok(length)) => block.length = length,
        Some(Err(_)) => return core::ptr::null_mut(),
    }
    // SAFETY: it is not NULL, so it is valid for writes, by the pointer rule.
    unsafe { bp.write(block) };
    if !pci_idp.is_null() {
        // SAFETY: it is not NULL, so it is valid for writes, by the pointer rule.
        unsafe { pci_idp.write(written.is_id.into()) };
    }
    text.wrapping_add(written.len).cast_mut()
}
