//! The array of `struct vpci_bar` of a virtio device on the PCI bus, in both editions.
#![allow(unsafe_code, reason = "structures of C with pointers are shared by threads")]

use core::ffi::c_void;
use core::ptr;

use gasp_capi::types::{GRF_VIRT_RD, GRF_VIRT_WR, Region, Region710, StateBlock, StateBlock710};
use gasp_virtio::transport::BAR_SIZE;

/// As many as a function has.
pub(super) const BARS: usize = 6;
/// The low bits of a BAR of 64 bits in memory.
const MEMORY64: u32 = 0x4;

/// `struct vpci_bar`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Bar<R> {
    mapping: R,
    value: u32,
    value_upper: u32,
    slice: u16,
    breg: u16,
}

/// The arrays. C reads them; nothing here does.
pub(super) struct Bars {
    of_800: Box<[Bar<Region>; BARS]>,
    of_710: Box<[Bar<Region710>; BARS]>,
}

// SAFETY: the pointers inside are NULL.
unsafe impl Send for Bars {}
// SAFETY: as above; nothing is written after `new`.
unsafe impl Sync for Bars {}

impl Bars {
    pub(super) fn new() -> Self {
        let (flags, vdev, host_location) = (GRF_VIRT_RD | GRF_VIRT_WR, ptr::null_mut(), u64::MAX);
        let guest = StateBlock { length: BAR_SIZE, ..StateBlock::default() };
        let mapping = Region { flags, cookie: 0, vdev, host_location, guest };
        let none = Region { flags: 0, guest: StateBlock::default(), ..mapping };
        let bars = bars(mapping, none);
        let of_800 = Box::new(bars);
        // Less than 2^32.
        let guest = StateBlock710 { length: BAR_SIZE as u32, ..StateBlock710::default() };
        let mapping = Region710 { flags, cookie: 0, vdev, host_location, guest };
        let none = Region710 { flags: 0, guest: StateBlock710::default(), ..mapping };
        Self { of_800, of_710: Box::new(self::bars(mapping, none)) }
    }

    /// What C gets, by edition.
    pub(super) fn pointer(&self, is_710: bool) -> *const c_void {
        match is_710 {
            true => ptr::from_ref(&*self.of_710).cast(),
            false => ptr::from_ref(&*self.of_800).cast(),
        }
    }
}

/// BAR 0 with all registers; the others are not there.
fn bars<R: Copy>(registers: R, none: R) -> [Bar<R>; BARS] {
    let mut all = [Bar { mapping: none, value: 0, value_upper: 0, slice: 0, breg: 0 }; BARS];
    if let Some(first) = all.first_mut() {
        (first.mapping, first.value) = (registers, MEMORY64);
    }
    all
}
