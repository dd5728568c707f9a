//! `<qvm/vpci.h>`: the configuration space of a vdev that answers its accesses itself.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_char, c_int, c_uint, c_void};

use gasp_capi::types::{StateBlock, StateBlock710, Vdev};

use crate::abi::*;
use crate::bars::{self, Described};
use crate::cancel::uncancelled;
use crate::config_space::{self, Reach, SLICES_MAX};
use crate::live::Live;

/// What `vpci_ctrl_pci_bars` returns: the number of BARs, negative.
const ALL_BARS: c_int = -(BARS as c_int);

/// The access that a block describes.
///
/// # Safety
/// `block` is NULL or valid for reads: the pointer rule.
unsafe fn reach<B: Copy + Into<Block>>(block: *const B) -> Option<Reach> {
    if block.is_null() {
        return None;
    }
    // SAFETY: it is not NULL, so it is valid for reads, as this function asks.
    let block: Block = unsafe { block.read() }.into();
    (block.kind == QST_PCI).then(|| Reach::of(block.location, block.length))?
}

/// The slices of an array that ends with one of 0 bytes.
///
/// # Safety
/// `first` is NULL or such an array: the pointer rule.
unsafe fn slices(first: *const Slice) -> Option<Vec<Slice>> {
    let mut all = Vec::new();
    for number in 0..SLICES_MAX {
        if first.is_null() {
            return None;
        }
        // SAFETY: those before it do not end the array, so it is in it.
        let place = unsafe { first.add(number) };
        // SAFETY: it is in the array, which is valid for reads, as this function asks.
        let slice = unsafe { place.read() };
        if slice.nbytes == 0 {
            break;
        }
        all.push(slice);
    }
    Some(all)
}

/// # Safety
/// The pointer rule. `rw_cfg` has the bytes that the slices refer to.
unsafe fn read<B: Copy + Into<Block>>(
    rw_cfg: *const c_void,
    desc: *const Slice,
    blk: *const B,
    val: *mut c_void,
    ro_cfg: *const PciConfig,
) -> c_uint {
    // SAFETY: `blk` is as this function asks.
    let reach = unsafe { reach(blk) };
    // SAFETY: `desc` is as this function asks.
    let slices = unsafe { slices(desc) };
    let (Some(reach), Some(slices)) = (reach, slices) else { return 0 };
    if rw_cfg.is_null() || val.is_null() || ro_cfg.is_null() {
        return 0;
    }
    // SAFETY: it is not NULL, so it is valid for reads, as this function asks.
    let image = unsafe { ro_cfg.read() };
    let stored = |at: usize| {
        // SAFETY: a slice has this byte in `rw_cfg`, which is valid for reads, as this function asks.
        unsafe { rw_cfg.cast::<u8>().wrapping_add(at).read() }
    };
    let (data, set) = config_space::read(reach, &slices, &image.0, stored);
    // SAFETY: `val` is not NULL, so it is valid for writes of the bytes of the access, at most 4.
    unsafe { val.cast::<u8>().copy_from_nonoverlapping(data.as_ptr(), reach.len()) };
    set
}

/// # Safety
/// As [`read`] asks; `rw_cfg` is valid for writes.
unsafe fn write<B: Copy + Into<Block>>(
    rw_cfg: *mut c_void,
    desc: *const Slice,
    blk: *const B,
    val: *const c_void,
) -> c_uint {
    // SAFETY: `blk` is as this function asks.
    let reach = unsafe { reach(blk) };
    // SAFETY: `desc` is as this function asks.
    let slices = unsafe { slices(desc) };
    let (Some(reach), Some(slices)) = (reach, slices) else { return 0 };
    if rw_cfg.is_null() || val.is_null() {
        return 0;
    }
    let mut data = [0; 4];
    // SAFETY: `val` is not NULL, so it is valid for reads of the bytes of the access, at most 4.
    unsafe { val.cast::<u8>().copy_to_nonoverlapping(data.as_mut_ptr(), reach.len()) };
    config_space::write(reach, &slices, data, |at, bits, value| {
        // SAFETY: a slice has this byte in `rw_cfg`, which is valid as this function asks.
        let place = unsafe { rw_cfg.cast::<u8>().add(at) };
        // SAFETY: as above.
        let before = unsafe { place.read() };
        // SAFETY: as above.
        unsafe { place.write((before & !bits) | (value & bits)) };
    })
}

/// See `<qvm/vpci.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vpci_cfg_read(
    rw_cfg: *const c_void,
    desc: *const Slice,
    blk: *const StateBlock,
    val: *mut c_void,
    ro_cfg: *const PciConfig,
) -> c_uint {
    // SAFETY: the pointer rule.
    unsafe { read(rw_cfg, desc, blk, val, ro_cfg) }
}

/// See `<qvm/vpci.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vpci_cfg_read_710(
    rw_cfg: *const c_void,
    desc: *const Slice,
    blk: *const StateBlock710,
    val: *mut c_void,
    ro_cfg: *const PciConfig,
) -> c_uint {
    // SAFETY: the pointer rule.
    unsafe { read(rw_cfg, desc, blk, val, ro_cfg) }
}

/// See `<qvm/vpci.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vpci_cfg_write(
    rw_cfg: *mut c_void,
    desc: *const Slice,
    blk: *const StateBlock,
    val: *const c_void,
) -> c_uint {
    // SAFETY: the pointer rule.
    unsafe { write(rw_cfg, desc, blk, val) }
}

/// See `<qvm/vpci.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vpci_cfg_write_710(
    rw_cfg: *mut c_void,
    desc: *const Slice,
    blk: *const StateBlock710,
    val: *const c_void,
) -> c_uint {
    // SAFETY: the pointer rule.
    unsafe { write(rw_cfg, desc, blk, val) }
}

/// Reports the BARs of a structure, which begins with them.
///
/// # Safety
/// `arg` is NULL or valid for writes of a pointer: the pointer rule.
unsafe fn report<S>(rw_cfg: *mut S, arg: *const c_char) -> c_int {
    if rw_cfg.is_null() || arg.is_null() {
        return libc::EINVAL;
    }
    // SAFETY: it is not NULL, so it is valid for writes of a pointer, as this function asks; it
    // need not be aligned.
    unsafe { arg.cast_mut().cast::<*mut S>().write_unaligned(rw_cfg) };
    ALL_BARS
}

/// See `<qvm/vpci.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vpci_ctrl_pci_bars(rw_cfg: *mut RwState, arg: *const c_char) -> c_int {
    // SAFETY: the pointer rule.
    unsafe { report(rw_cfg, arg) }
}

/// See `<qvm/vpci.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vpci_ctrl_pci_bars_710(
    rw_cfg: *mut RwState710,
    arg: *const c_char,
) -> c_int {
    // SAFETY: the pointer rule.
    unsafe { report(rw_cfg, arg) }
}

/// The places of the BARs, once their regions are there; `None` if the host has others for them.
fn update(vdp: *const Vdev, described: [Described; BARS], command: u16) -> Option<[u64; BARS]> {
    let places = uncancelled(|| match Live::find(vdp) {
        Some(live) if live.guest.is_running() => bars::update(&live, described, command),
        Some(live) => {
            tracing::warn!(vdev = %live.name, "vpci_region_update: the guest does not run yet");
            Some([None; BARS])
        }
        None => {
            tracing::warn!("vpci_region_update: there is no such vdev");
            Some([None; BARS])
        }
    });
    places.map(|places| places.map(|place| place.unwrap_or(QSL_NO_LOCATION)))
}

macro_rules! region_update {
    ($name:ident, $state:ty) => {
        /// See `<qvm/vpci.h>`.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(vdp: *mut Vdev, rw_cfg: *mut $state) {
            if rw_cfg.is_null() {
                return;
            }
            // SAFETY: it is not NULL, so it is valid for reads, by the pointer rule.
            let state = unsafe { rw_cfg.read() };
            let described = state.bars.map(Described::from);
            let Some(places) = update(vdp, described, state.command) else { return };
            for (index, place) in places.into_iter().enumerate() {
                // SAFETY: it is not NULL, so it is valid for reads and writes, by the pointer rule;
                // it has so many BARs.
                let bar = unsafe { (&raw mut (*rw_cfg).bars).cast::<BarOf<$state>>().add(index) };
                // SAFETY: as above.
                let location = unsafe { &raw mut (*bar).vb_mapping.guest.location };
                // SAFETY: as above.
                unsafe { location.write(place) };
            }
        }
    };
}

/// The BARs of a state, in each edition.
trait HasBars {
    type Bar;
}
impl HasBars for RwState {
    type Bar = VpciBar;
}
impl HasBars for RwState710 {
    type Bar = VpciBar710;
}
type BarOf<S> = <S as HasBars>::Bar;

region_update!(vpci_region_update, RwState);
region_update!(vpci_region_update_710, RwState710);
