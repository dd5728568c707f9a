//! The mapping family: maps, handles, unmaps.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_int, c_void};
use core::ptr;

use gasp::ffi::{Section, Token};
use gasp::{DeviceAddr, GuestPhys, Location, MapFlags, Operation};

use crate::arguments::{Out, map_flags};
use crate::boundary::{self, Failure, Outcome};
use crate::guard;
use crate::objects::{GUESTS, GuestVdev, VDEVS, current, no_guest, no_vdev, none_current};
use crate::types::{EOK, MapHandle, Vdev};

const NO_HANDLE: &str = "h is NULL";

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_map_host_contig(
    vdev: *const Vdev,
    ppaddr: *mut u64,
    plength: *mut usize,
    prot: u32,
    h: *mut MapHandle,
) -> c_int {
    // The fast path: valid arguments, and a range inside one page. It cannot panic.
    if let Ok(flags) = MapFlags::from_bits(prot)
        && !(ppaddr.is_null() || plength.is_null() || h.is_null() || guard::is_on())
    {
        // SAFETY: `ppaddr` is not NULL, so it is aligned, and valid for reads of an initialized
        // `u64`, by the pointer rule.
        let at = unsafe { ppaddr.read() };
        // SAFETY: `plength` is not NULL, so it is aligned, and valid for reads of an initialized
        // `usize`, by the pointer rule.
        let max = unsafe { plength.read() };
        // SAFETY: the device is used in the look-up alone: `map_host_contig_page_of` calls `find`
        // inside it, and what it returns borrows nothing from the device.
        let find = || unsafe { VDEVS.find_unprotected(vdev.addr()) }.and_then(GuestVdev::reaching);
        let mapped = gasp::Vdev::map_host_contig_page_of(find, DeviceAddr(at), max as u64, flags);
        if let Some(mapping) = mapped {
            let (run, length) = (mapping.run(), mapping.len());
            let token = mapping.into_mapping().into_token();
            let handle = MapHandle { reserved: token.words() };
            // SAFETY: `ppaddr` is not NULL, so it is aligned, and valid for writes of a `u64`, by
            // the pointer rule.
            unsafe { ppaddr.write(run.addr.0) };
            // SAFETY: `plength` is not NULL, so it is aligned, and valid for writes of a `usize`,
            // by the pointer rule.
            unsafe { plength.write(length) };
            // SAFETY: `h` is not NULL, so it is aligned, and valid for writes of a `MapHandle`, by
            // the pointer rule.
            unsafe { h.write(handle) };
            return EOK;
        }
    }
    // SAFETY: `ppaddr`, `plength` and `h` are NULL or valid during the call, by the pointer rule.
    unsafe { map_host_contig_slowly(vdev, ppaddr, plength, prot, h) }
}

/// All cases of `gasp_map_host_contig`, and the reason if it fails.
///
/// # Safety
/// `ppaddr`, `plength` and `h` are as the pointer rule asks: NULL or valid during the call.
#[cold]
#[inline(never)]
unsafe fn map_host_contig_slowly(
    vdev: *const Vdev,
    ppaddr: *mut u64,
    plength: *mut usize,
    prot: u32,
    h: *mut MapHandle,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `h` is NULL or valid during the call, as this function asks.
        let handle = || unsafe { Out::new(h, NO_HANDLE) };
        // SAFETY: `ppaddr` and `plength` are NULL or valid during the call, as this function asks.
        let (handle, mapping) = unsafe { host_contig(vdev, ppaddr, plength, prot, handle) }?;
        handle.write(MapHandle { reserved: mapping.token.words() });
        Ok(())
    })
}

/// A mapping that [`host_contig`] or [`firmware`] has created.
pub(crate) struct NewMapping {
    pub(crate) token: Token,
    pub(crate) guest: usize,
    pub(crate) length: u64,
}

/// Maps for `gasp_map_host_contig`, and for `gasp_map_contig` of both editions. Checks the
/// arguments, those of the caller (`more`) after the flags and pointers, and writes address and
/// length.
///
/// # Safety
/// `ppaddr` and `plength` are as the pointer rule asks: NULL or valid during the call.
#[inline]
pub(crate) unsafe fn host_contig<T>(
    vdev: *const Vdev,
    ppaddr: *mut u64,
    plength: *mut usize,
    prot: u32,
    more: impl FnOnce() -> Outcome<T>,
) -> Outcome<(T, NewMapping)> {
    let op = Operation::MapHostContig;
    // SAFETY: `ppaddr` is NULL or valid during the call, as this function asks.
    let addr = unsafe { Out::new(ppaddr, "ppaddr is NULL") };
    // SAFETY: `plength` is NULL or valid during the call, as this function asks.
    let length = unsafe { Out::new(plength, "plength is NULL") };
    // Flags come first, and their error names the requested range, if it can be read.
    let asked = (addr.as_ref().map_or(0, Out::read), length.as_ref().map_or(0, Out::read));
    let flags = map_flags(op, || Location::Device(DeviceAddr(asked.0)), asked.1, prot)?;
    let (addr, length) = (addr?, length?);
    let more = more()?;
    let section = Section::enter();
    let found = VDEVS.find(&section, vdev.addr()).ok_or_else(no_vdev)?;
    let at = DeviceAddr(addr.read());
    let mapping = found.may_reach()?.map_host_contig(at, length.read() as u64, flags)?;
    let (guest, run, mapped) = (found.guest.number, mapping.run(), mapping.len());
    drop(section);
    let token = guard::token(mapping.into_mapping())?;
    addr.write(run.addr.0);
    length.write(mapped);
    Ok((more, NewMapping { token, guest, length: mapped as u64 }))
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_map(
    vdev: *const Vdev,
    guest_paddr: u64,
    length: usize,
    prot: u32,
    h: *mut MapHandle,
) -> c_int {
    // The fast path: valid arguments, and a range inside one page. It cannot panic.
    if let Ok(flags) = MapFlags::from_bits(prot)
        && !(h.is_null() || guard::is_on())
    {
        let at = DeviceAddr(guest_paddr);
        // SAFETY: the device is used in the look-up alone: `map_page_of` calls `find` inside it,
        // and what it returns borrows nothing from the device.
        let find = || unsafe { VDEVS.find_unprotected(vdev.addr()) }.and_then(GuestVdev::reaching);
        if let Some(mapping) = gasp::Vdev::map_page_of(find, at, length as u64, flags) {
            let handle = MapHandle { reserved: mapping.into_token().words() };
            // SAFETY: `h` is not NULL, so it is aligned, and valid for writes of a `MapHandle`, by
            // the pointer rule.
            unsafe { h.write(handle) };
            return EOK;
        }
    }
    // SAFETY: `h` is NULL or valid during the call, by the pointer rule.
    unsafe { map_slowly(vdev, guest_paddr, length, prot, h) }
}

/// All cases of `gasp_map`, and the reason if it fails.
///
/// # Safety
/// `h` is as the pointer rule asks: NULL or valid during the call.
#[cold]
#[inline(never)]
unsafe fn map_slowly(
    vdev: *const Vdev,
    guest_paddr: u64,
    length: usize,
    prot: u32,
    h: *mut MapHandle,
) -> c_int {
    boundary::call(|| {
        let op = Operation::Map;
        let flags = map_flags(op, || Location::Device(DeviceAddr(guest_paddr)), length, prot)?;
        // SAFETY: `h` is NULL or valid during the call, as this function asks.
        let handle = unsafe { Out::new(h, NO_HANDLE) }?;
        let section = Section::enter();
        let found = VDEVS.find(&section, vdev.addr()).ok_or_else(no_vdev)?;
        let mapping = found.may_reach()?.map(DeviceAddr(guest_paddr), length as u64, flags)?;
        drop(section);
        handle.write(MapHandle { reserved: guard::token(mapping)?.words() });
        Ok(())
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_map_firmware(
    guest_paddr: u64,
    length: usize,
    prot: u32,
    h: *mut MapHandle,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `h` is NULL or valid during the call, by the pointer rule.
        let handle = || unsafe { Out::new(h, NO_HANDLE) };
        let (handle, mapping) = firmware(None, guest_paddr, length, prot, handle)?;
        handle.write(MapHandle { reserved: mapping.token.words() });
        Ok(())
    })
}

/// Maps for `gasp_map_firmware`, and for `gasp_map_sys` of both editions; that of 7.x names a
/// guest.
pub(crate) fn firmware<T>(
    guest: Option<usize>,
    guest_paddr: u64,
    length: usize,
    prot: u32,
    more: impl FnOnce() -> Outcome<T>,
) -> Outcome<(T, NewMapping)> {
    let op = Operation::MapFirmware;
    let flags = map_flags(op, || Location::Guest(GuestPhys(guest_paddr)), length, prot)?;
    let more = more()?;
    // Before the section: it can log, and a log function in a section could not destroy a guest.
    let (number, none): (_, fn() -> Failure) = match guest {
        Some(number) => (number, no_guest),
        None => (current()?, none_current),
    };
    let section = Section::enter();
    let found = GUESTS.find(&section, number).ok_or_else(none)?;
    let mapping = found.engine.map_firmware(GuestPhys(guest_paddr), length as u64, flags)?;
    drop(section);
    let token = guard::token(mapping)?;
    Ok((more, NewMapping { token, guest: number, length: length as u64 }))
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_get_vaddr(h: *const MapHandle) -> *mut c_void {
    // SAFETY: `h` is NULL, or aligned, valid for reads, initialized and changed by nobody during
    // the call, by the pointer rule.
    let Some(handle) = (unsafe { h.as_ref() }) else { return ptr::null_mut() };
    let token = Token::from_words(handle.reserved);
    token.pointer().map_or(ptr::null_mut(), <*mut u8>::cast)
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_unmap_handle(h: *mut MapHandle) {
    // SAFETY: `h` is NULL, or aligned, valid for reads, initialized and changed by nobody during
    // the call, by the pointer rule.
    let Some(handle) = (unsafe { h.as_ref() }) else { return };
    // Unmapping may free memory, and run code that could panic.
    boundary::value((), || {
        match guard::is_on() {
            true => guard::unmap(handle.reserved),
            false => _ = Token::from_words(handle.reserved).unmap(),
        }
        Ok(())
    });
}
