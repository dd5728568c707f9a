//! The 7.x forms: a guest as first argument, `PROT_*` for access, a pointer instead of a handle.
//!
//! Each behaves as the 8.0 form. The header declares them with the published names; their symbols
//! end in `_710`.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_int, c_uint, c_void};
use core::ptr;

use crate::arguments::{Out, array, read};
use crate::boundary::{self, Outcome};
use crate::by_address;
use crate::find::{self, Wanted};
use crate::lock::{self, Space};
use crate::map;
use crate::objects::guest_of;
use crate::regions;
use crate::types::*;
use crate::walk::{self, Entry, Filtered, Options};

/// The `GMF_*` of `PROT_*`: `PROT_READ`, `PROT_WRITE` and `PROT_EXEC` have the same values. A
/// negative number has unknown bits.
fn flags(prot: c_int) -> u32 {
    prot as u32
}

const _: () = assert!(
    libc::PROT_READ as u32 == GMF_READ
        && libc::PROT_WRITE as u32 == GMF_WRITE
        && libc::PROT_EXEC as u32 == GMF_EXEC
);

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_map_contig_710(
    vdev: *const Vdev,
    prot: c_int,
    ppaddr: *mut u64,
    plength: *mut usize,
) -> *mut c_void {
    boundary::value(ptr::null_mut(), || {
        // SAFETY: `ppaddr` and `plength` are NULL or valid during the call, by the pointer rule.
        let mapping = unsafe { map::host_contig(vdev, ppaddr, plength, flags(prot), || Ok(())) };
        let ((), mapping) = mapping?;
        Ok(by_address::keep(mapping.guest, mapping.length, mapping.token))
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_map_vdma_710(
    vdev: *const Vdev,
    prot: c_int,
    guest_paddr: u64,
    length: usize,
) -> *mut c_void {
    boundary::value(ptr::null_mut(), || by_address::vdma(vdev, guest_paddr, length, flags(prot)))
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_map_sys_710(
    gsp: *mut GuestSystem,
    prot: c_int,
    guest_paddr: u64,
    length: usize,
) -> *mut c_void {
    boundary::value(ptr::null_mut(), || {
        let guest = gsp.addr();
        let ((), mapping) =
            map::firmware(Some(guest), guest_paddr, length, flags(prot), || Ok(()))?;
        Ok(by_address::keep(mapping.guest, mapping.length, mapping.token))
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_unmap_710(
    gsp: *mut GuestSystem,
    ptr: *const c_void,
    length: usize,
    _flush: c_int,
) {
    boundary::value((), || {
        by_address::unmap(Some(gsp.addr()), ptr.addr(), length as u64);
        Ok(())
    });
}

impl From<StateBlock710> for StateBlock {
    fn from(block: StateBlock710) -> Self {
        let StateBlock710 { location, length, qst_type, qst_flags } = block;
        Self { location, length: length.into(), qst_type, qst_flags, spare: 0 }
    }
}

impl From<Region710> for Region {
    fn from(region: Region710) -> Self {
        let Region710 { flags, cookie, vdev, host_location, guest } = region;
        Self { flags, cookie, vdev, host_location, guest: guest.into() }
    }
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_region_info_710(
    gsp: *mut GuestSystem,
    blk: *const StateBlock710,
    rgn: *mut Region710,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `blk` is NULL or valid for reads during the call, by the pointer rule.
        let block = unsafe { read(blk, "blk is NULL") }?;
        // SAFETY: `rgn` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(rgn, "rgn is NULL") }?;
        let Region { flags, cookie, vdev, host_location, guest } =
            regions::info(Some(gsp), block.into())?;
        // Not longer than the request, whose length has 32 bits.
        let length = u32::try_from(guest.length).unwrap_or(u32::MAX);
        let guest = StateBlock710 { length, ..block };
        place.write(Region710 { flags, cookie, vdev, host_location, guest });
        Ok(())
    })
}

/// The entries of `gasp_region_set` and `gasp_region_set_soft`.
///
/// # Safety
/// `rgn` is as [`array()`] asks of its argument, for `count` entries.
unsafe fn entries(rgn: *const Region710, count: u32) -> Outcome<Vec<Region>> {
    // SAFETY: `array` asks that `rgn` is NULL or valid for reads of `count` entries, as this
    // function does.
    let entries = unsafe { array(rgn, count as usize, "rgn is NULL") }?;
    Ok(entries.into_iter().map(Region::from).collect())
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_region_set_710(
    gsp: *mut GuestSystem,
    num_regions: c_uint,
    rgn: *const Region710,
) {
    // SAFETY: `rgn` is NULL or valid for reads of `num_regions` entries during the call, by the
    // pointer rule.
    regions::set_hard(Some(gsp), || unsafe { entries(rgn, num_regions) });
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_region_set_soft_710(
    gsp: *mut GuestSystem,
    num_regions: c_uint,
    rgn: *const Region710,
) -> c_uint {
    // SAFETY: `rgn` is NULL or valid for reads of `num_regions` entries during the call, by the
    // pointer rule.
    regions::set_soft(Some(gsp), || unsafe { entries(rgn, num_regions) })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_lock_710(gsp: *mut GuestSystem, qst: u16) -> c_int {
    lock::lock_call(Some(gsp), qst)
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_unlock_710(gsp: *mut GuestSystem, qst: u16) -> c_int {
    boundary::call(|| lock::release(Some(gsp.addr()), Space::of(qst.into())?))
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_find_free_710(
    gsp: *const GuestSystem,
    qst: c_uint,
    size: u64,
    align: u64,
) -> u64 {
    find::free(Some(gsp), qst, &Wanted::anywhere(size, align))
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_find_free_range_710(
    gsp: *const GuestSystem,
    qst: c_uint,
    size: u64,
    align: u64,
    min_addr: u64,
    max_addr: u64,
) -> u64 {
    find::free(Some(gsp), qst, &Wanted { size, align, first: min_addr, last: max_addr })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gram_find_free_710(
    gsp: *mut GuestSystem,
    size: u64,
    align: u64,
    flags: c_uint,
) -> u64 {
    find::inside_ram(Some(gsp), flags, &Wanted::anywhere(size, align))
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gram_find_free_range_710(
    gsp: *mut GuestSystem,
    size: u64,
    align: u64,
    flags: c_uint,
    range_start: u64,
    range_end: u64,
) -> u64 {
    let wanted = Wanted { size, align, first: range_start, last: range_end };
    find::inside_ram(Some(gsp), flags, &wanted)
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gram_reserve_710(gsp: *mut GuestSystem, start: u64, size: u64) -> c_int {
    boundary::call(|| find::reserve(Some(gsp), start, size))
}

const NO_STATE: &str = "the walk's state is NULL";

impl WalkState710 {
    fn options(&self) -> Options {
        Options { max_length: self.max_length, flags: self.flags }
    }

    fn entry(&self) -> Entry {
        Entry { guest: self.guest_loc, host: self.host_loc, length: self.length }
    }

    fn at(self, entry: Entry) -> Self {
        Self { guest_loc: entry.guest, host_loc: entry.host, length: entry.length, ..self }
    }

    fn begin(gsp: *mut GuestSystem, max_length: u64, flags: c_uint) -> Outcome<Self> {
        Options { max_length, flags }.check()?;
        guest_of(Some(gsp))?;
        Ok(Self {
            span: ptr::null_mut(),
            gsp,
            guest_loc: 0,
            host_loc: QSL_NO_LOCATION,
            length: 0,
            max_length,
            flags,
        })
    }
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_walk_init_710(
    ws: *mut WalkState710,
    gsp: *mut GuestSystem,
    max_length: u64,
    flags: c_uint,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `ws` is NULL or valid during the call, by the pointer rule.
        let state = unsafe { Out::new(ws, NO_STATE) }?;
        state.write(WalkState710::begin(gsp, max_length, flags)?);
        Ok(())
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_walk_next_710(ws: *mut WalkState710) -> c_int {
    boundary::call(|| {
        // SAFETY: `ws` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(ws, NO_STATE) }?;
        let state = place.read();
        let guest = guest_of(Some(state.gsp))?;
        let entry = walk::next(&guest, state.options(), state.guest_loc, state.length)?;
        place.write(state.at(entry));
        Ok(())
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_walk_count_710(
    gsp: *const GuestSystem,
    max_length: u64,
    flags: c_uint,
) -> c_uint {
    boundary::value(0, || {
        let guest = guest_of(Some(gsp))?;
        // SAFETY: what `count` asks is of the filter, and there is none.
        unsafe { walk::count(&guest, Options { max_length, flags }, None) }
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_walk_init_filtered_710(
    ws: *mut WalkStateFiltered710,
    gsp: *mut GuestSystem,
    max_length: u64,
    flags: c_uint,
    filter: WalkFilter,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `ws` is NULL or valid during the call, by the pointer rule.
        let state = unsafe { Out::new(ws, NO_STATE) }?;
        walk::check_filter(filter)?;
        let ws = WalkState710::begin(gsp, max_length, flags)?;
        let (remaining_guest_loc, remaining_length) = (0, 0);
        state.write(WalkStateFiltered710 { ws, filter, remaining_guest_loc, remaining_length });
        Ok(())
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_walk_next_filtered_710(ws: *mut WalkStateFiltered710) -> c_int {
    boundary::call(|| {
        // SAFETY: `ws` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(ws, NO_STATE) }?;
        let state = place.read();
        let rest = (state.remaining_guest_loc, state.remaining_length);
        let now = Filtered { entry: state.ws.entry(), rest };
        let guest = guest_of(Some(state.ws.gsp))?;
        // SAFETY: the filter is C's, which `<qvm/gasp.h>` asks to neither throw nor jump out.
        let next = unsafe { walk::next_filtered(&guest, state.ws.options(), state.filter, now) }?;
        let (remaining_guest_loc, remaining_length) = next.rest;
        let ws = state.ws.at(next.entry);
        place.write(WalkStateFiltered710 { ws, remaining_guest_loc, remaining_length, ..state });
        Ok(())
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_walk_count_filtered_710(
    gsp: *const GuestSystem,
    max_length: u64,
    flags: c_uint,
    filter: WalkFilter,
) -> c_uint {
    boundary::value(0, || {
        walk::check_filter(filter)?;
        let guest = guest_of(Some(gsp))?;
        // SAFETY: the filter is C's, which `<qvm/gasp.h>` asks to neither throw nor jump out.
        unsafe { walk::count(&guest, Options { max_length, flags }, Some(filter)) }
    })
}
