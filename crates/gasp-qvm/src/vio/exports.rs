//! `<qvm/vio.h>`: set-up, registers, status. SAFETY comments refer to the pointer rule of
//! [`exports`](crate::exports).
#![allow(unsafe_code, reason = "exports C functions")]
#![allow(clippy::missing_safety_doc, reason = "the headers say what C must pass")]

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::ptr;
use std::sync::Arc;

use gasp_capi::types::{StateBlock, StateBlock710, Vdev};
use gasp_virtio::transport::FEATURES_OK;

use super::abi::{BUS_ERROR, DEVCFG, Description, ERRNO, LEGACY, NOP, STATUS, State};
use super::bars::BARS;
use super::device::Virtio;
use super::registers::{Transport, WIDTH_MAX};
use super::{enlist, find};
use crate::abi::{Block, QST_MEMORY, QST_PCI};
use crate::exports::cpu::{
    guest_cpu_read, guest_cpu_read_710, guest_cpu_write, guest_cpu_write_710,
};
use crate::live::Live;

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_init(
    vdp: *mut Vdev,
    ver: c_uint,
    vdesc: *const Description,
    vsp: *mut State,
) {
    if vsp.is_null() {
        return;
    }
    // SAFETY: it is not NULL, so it is valid for writes, by the pointer rule.
    let set = |virtio: Option<&Arc<Virtio>>| unsafe { fill(vsp, virtio) };
    set(None);
    let Some(live) = Live::find(vdp) else {
        tracing::error!("vio_init() was called without a vdev");
        return;
    };
    // SAFETY: it is NULL or valid for reads of a description, by the pointer rule.
    let Some(description) = (unsafe { vdesc.as_ref() }) else {
        tracing::error!(vdev = %live.name, "vio_init() was called without a description");
        return;
    };
    let block = live.object.block();
    let transport = match block.kind {
        QST_MEMORY => Transport::Mmio,
        QST_PCI => Transport::Pci,
        kind => {
            tracing::error!(vdev = %live.name, kind, "a virtio device is in memory or on the PCI bus");
            return;
        }
    };
    if ver == LEGACY {
        tracing::warn!(vdev = %live.name, "the legacy interface (VIOVER_095) is not supported");
    }
    match Virtio::new(live.clone(), transport, description) {
        Ok(virtio) => {
            let length = virtio.register_bytes();
            if block.length < length {
                live.object.set_block(Block { length, ..block });
            }
            let virtio = Arc::new(virtio);
            set(Some(&virtio));
            enlist(vsp, virtio);
        }
        Err(unfit) => tracing::error!(vdev = %live.name, %unfit, "vio_init() has set up nothing"),
    }
}

/// Fills in a `struct vio_state`.
///
/// # Safety
/// `vsp` is valid for writes, and no one else accesses it.
unsafe fn fill(vsp: *mut State, virtio: Option<&Arc<Virtio>>) {
    let (mut vsip, mut qinfo) = (ptr::null_mut(), ptr::null_mut());
    if let Some(virtio) = virtio {
        virtio.infos().set_state(vsp);
        qinfo = virtio.infos().pointer();
        // Not a valid pointer: nothing of it is read.
        vsip = ptr::without_provenance_mut::<c_void>(vsp.addr() | 1 << 63);
    }
    // SAFETY: it is valid for writes, as this function asks.
    unsafe { vsp.write(State { vsip, qinfo, driver_features: [0; 4] }) };
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_init_queue(vsp: *mut State, qidx: c_uint, max: c_uint) -> c_int {
    let Some(virtio) = find(vsp) else { return libc::EINVAL };
    virtio.init_queue(qidx, max).map_or_else(|errno| errno.raw_os_error(), |()| 0)
}

/// # Safety
/// `arg` is NULL or valid for writes of a pointer: the pointer rule.
unsafe fn ctrl_pci_bars(vsp: *mut State, arg: *const c_char, is_710: bool) -> c_int {
    let Some(virtio) = find(vsp) else { return libc::EINVAL };
    if virtio.transport() == Transport::Mmio {
        return 0;
    }
    if arg.is_null() {
        return libc::EINVAL;
    }
    let place = arg.cast_mut().cast::<*const c_void>();
    // SAFETY: it is not NULL, so it is valid for writes of a pointer, as this function asks; of any
    // alignment.
    unsafe { place.write_unaligned(virtio.bars().pointer(is_710)) };
    -(BARS as c_int)
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_ctrl_pci_bars(vsp: *mut State, arg: *const c_char) -> c_int {
    // SAFETY: the pointer rule.
    unsafe { ctrl_pci_bars(vsp, arg, false) }
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_ctrl_pci_bars_710(vsp: *mut State, arg: *const c_char) -> c_int {
    // SAFETY: the pointer rule.
    unsafe { ctrl_pci_bars(vsp, arg, true) }
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_ctrl_gen_fdt(
    vsp: *mut State,
    name: *const c_char,
    _node: c_int,
) -> c_int {
    // SAFETY: it is NULL or a string, by the pointer rule.
    let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) });
    tracing::debug!(?vsp, ?name, "there is no device tree to describe a device in");
    libc::ENOTSUP
}

/// The device of an access, its offset and its width.
fn reached(vsp: *const State, device: Block) -> Option<(Arc<Virtio>, u64, usize)> {
    let virtio = find(vsp)?;
    let offset = device.location.checked_sub(virtio.outside().location())?;
    let len = usize::try_from(device.length).ok()?;
    (1..=WIDTH_MAX).contains(&len).then_some((virtio, offset, len))
}

/// What a failure to read or write the processor's register is.
fn class_of(code: c_int) -> u32 {
    match code {
        0 => NOP,
        1.. => ERRNO | (code as u32 & 0xffff),
        _ => BUS_ERROR,
    }
}

const INVALID: u32 = ERRNO | libc::EINVAL as u32;

/// A read: `supply` writes the processor's register.
fn read(vsp: *mut State, device: Option<Block>, supply: impl FnOnce(&[u8]) -> c_int) -> c_uint {
    let Some((virtio, offset, len)) = device.and_then(|device| reached(vsp, device)) else {
        return INVALID;
    };
    match virtio.read(offset, len) {
        Ok(value) => class_of(supply(value.to_le_bytes().get(..len).unwrap_or_default())),
        Err(class) => class,
    }
}

/// A write: `take` reads the processor's register.
///
/// # Safety
/// `vsp` is valid for writes if it has been set up: the pointer rule.
unsafe fn write(
    vsp: *mut State,
    device: Option<Block>,
    take: impl FnOnce(&mut [u8]) -> c_int,
) -> c_uint {
    let Some((virtio, offset, len)) = device.and_then(|device| reached(vsp, device)) else {
        return INVALID;
    };
    let mut bytes = [0; WIDTH_MAX];
    let bytes = bytes.get_mut(..len).unwrap_or_default();
    let failed = class_of(take(bytes));
    if failed != NOP {
        return failed;
    }
    let class = virtio.write(offset, bytes);
    if class & !0xffff == STATUS && class & u32::from(FEATURES_OK) != 0 {
        // SAFETY: `vsp` has been set up, as it was found, so it is valid for writes, as this
        // function asks.
        unsafe { set_features(vsp, virtio.accepted()) };
    }
    debug_assert!(class & !0xffff != DEVCFG || class & 0xffff < 4096);
    class
}

/// # Safety
/// `vsp` is valid for writes.
unsafe fn set_features(vsp: *mut State, features: u64) {
    // SAFETY: it is valid for writes, as this function asks.
    let place = unsafe { ptr::addr_of_mut!((*vsp).driver_features) };
    let words = [features as u32, (features >> 32) as u32, 0, 0];
    // SAFETY: as above.
    unsafe { place.write_volatile(words) };
}

/// A block of C, if there is one.
///
/// # Safety
/// `block` is NULL or valid for reads: the pointer rule.
unsafe fn block<B: Copy + Into<Block>>(block: *const B) -> Option<Block> {
    // SAFETY: it is NULL or valid for reads, as this function asks.
    unsafe { block.as_ref() }.map(|&block| block.into())
}

macro_rules! registers {
    ($read:ident, $write:ident, $block:ty, $cpu_write:ident, $cpu_read:ident, $len:ty) => {
        /// See `<qvm/vio.h>`.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $read(
            vsp: *mut State,
            _cookie: c_uint,
            vopnd: *const $block,
            oopnd: *const $block,
            gcp: *mut c_void,
        ) -> c_uint {
            // SAFETY: the pointer rule.
            let device = unsafe { block(vopnd) };
            read(vsp, device, |bytes| {
                let (from, len) = (bytes.as_ptr().cast(), bytes.len() as $len);
                // SAFETY: `oopnd` by the pointer rule; the bytes are valid for reads.
                unsafe { $cpu_write(gcp, 0, oopnd, 1, from, len) }
            })
        }

        /// See `<qvm/vio.h>`.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $write(
            vsp: *mut State,
            _cookie: c_uint,
            vopnd: *const $block,
            oopnd: *const $block,
            gcp: *mut c_void,
        ) -> c_uint {
            // SAFETY: the pointer rule.
            let device = unsafe { block(vopnd) };
            let take = |bytes: &mut [u8]| {
                let (into, len) = (bytes.as_mut_ptr().cast(), bytes.len() as $len);
                // SAFETY: `oopnd` by the pointer rule; the bytes are valid for writes.
                unsafe { $cpu_read(gcp, 0, oopnd, 1, into, len) }
            };
            // SAFETY: the pointer rule.
            unsafe { write(vsp, device, take) }
        }
    };
}

registers!(vio_read, vio_write, StateBlock, guest_cpu_write, guest_cpu_read, usize);
registers!(
    vio_read_710,
    vio_write_710,
    StateBlock710,
    guest_cpu_write_710,
    guest_cpu_read_710,
    c_uint
);

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_setup_queues(vsp: *mut State) -> c_int {
    let Some(virtio) = find(vsp) else { return libc::EINVAL };
    virtio.set_up_queues().map_or_else(|errno| errno.raw_os_error(), |()| 0)
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_reset(vsp: *mut State) {
    if let Some(virtio) = find(vsp) {
        // SAFETY: `vsp` has been set up, as it was found, so it is valid for writes, by the pointer
        // rule.
        unsafe { set_features(vsp, 0) };
        virtio.reset();
    }
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_device_status(vsp: *mut State, on: c_uint, off: c_uint) -> c_uint {
    find(vsp).map_or(0, |virtio| virtio.status(on, off).into())
}

/// See `<qvm/vio.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vio_config_update(vsp: *mut State) {
    if let Some(virtio) = find(vsp) {
        virtio.config_changed();
    }
}
