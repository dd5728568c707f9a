//! Mappings that C identifies by their address alone: the functions without handles.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_int, c_void};
use core::ptr;
use std::collections::BTreeMap;

use gasp::ffi::{Section, Token};
use gasp::{DeviceAddr, Location, Operation};
use parking_lot::{Mutex, MutexGuard};

use crate::arguments::map_flags;
use crate::boundary::{self, Outcome};
use crate::objects::{VDEVS, no_vdev};
use crate::types::Vdev;
use crate::{guard, map};

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_map_vdma(
    vdev: *const Vdev,
    guest_paddr: u64,
    length: usize,
    prot: u32,
) -> *mut c_void {
    boundary::value(ptr::null_mut(), || vdma(vdev, guest_paddr, length, prot))
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_map_contig(
    vdev: *const Vdev,
    ppaddr: *mut u64,
    plength: *mut usize,
    prot: u32,
) -> *mut c_void {
    boundary::value(ptr::null_mut(), || {
        // SAFETY: `ppaddr` and `plength` are NULL or valid during the call, by the pointer rule.
        let ((), mapping) = unsafe { map::host_contig(vdev, ppaddr, plength, prot, || Ok(())) }?;
        Ok(keep(mapping.guest, mapping.length, mapping.token))
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_map_sys(guest_paddr: u64, length: usize, prot: u32) -> *mut c_void {
    boundary::value(ptr::null_mut(), || {
        let ((), mapping) = map::firmware(None, guest_paddr, length, prot, || Ok(()))?;
        Ok(keep(mapping.guest, mapping.length, mapping.token))
    })
}

/// Maps for `gasp_map_vdma` and its 7.x form.
pub(crate) fn vdma(
    vdev: *const Vdev,
    guest_paddr: u64,
    length: usize,
    prot: u32,
) -> Outcome<*mut c_void> {
    let place = || Location::Device(DeviceAddr(guest_paddr));
    let flags = map_flags(Operation::Map, place, length, prot)?;
    let section = Section::enter();
    let found = VDEVS.find(&section, vdev.addr()).ok_or_else(no_vdev)?;
    let mapping = found.may_reach()?.map(DeviceAddr(guest_paddr), length as u64, flags)?;
    let (guest, length) = (found.guest.number, length as u64);
    drop(section);
    Ok(keep(guest, length, guard::token(mapping)?))
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_unmap(ptr: *const c_void, length: usize, _flush: c_int) {
    boundary::value((), || {
        unmap(None, ptr.addr(), length as u64);
        Ok(())
    });
}

/// A mapping that C identifies by its address alone.
struct Kept {
    guest: usize,
    length: u64,
    token: Token,
}

/// The mappings of the functions without handles, by address. These functions are for old
/// programs, so one lock for all of them is enough.
static KEPT: Mutex<BTreeMap<usize, Vec<Kept>>> = Mutex::new(BTreeMap::new());

fn kept() -> MutexGuard<'static, BTreeMap<usize, Vec<Kept>>> {
    KEPT.lock()
}

/// Keeps a mapping for [`unmap`]; returns its address.
pub(crate) fn keep(guest: usize, length: u64, token: Token) -> *mut c_void {
    let Some(pointer) = token.pointer() else { return ptr::null_mut() };
    let mut kept = kept();
    let all = kept.entry(pointer.addr()).or_default();
    all.push(Kept { guest, length, token });
    pointer.cast()
}

/// Unmaps a mapping at an address: the latest of this length, otherwise the latest of any length.
/// Does nothing if there is none.
pub(crate) fn unmap(guest: Option<usize>, address: usize, length: u64) {
    let mut kept = kept();
    let Some(all) = kept.get_mut(&address) else { return };
    let of_guest = |one: &Kept| guest.is_none_or(|guest| guest == one.guest);
    let exact = all.iter().rposition(|one| of_guest(one) && one.length == length);
    let Some(index) = exact.or_else(|| all.iter().rposition(of_guest)) else { return };
    let one = all.swap_remove(index);
    if all.is_empty() {
        kept.remove(&address);
    }
    drop(kept);
    guard::unmap(one.token.words());
}
