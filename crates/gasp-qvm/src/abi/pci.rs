//! What `<qvm/vpci.h>` and `<qvm/utils.h>` have: slices, BARs, a configuration space.

use gasp_capi::types::{Region, Region710};

/// The BARs of a function.
pub(crate) const BARS: usize = 6;

/// `struct qvm_slice_descriptor`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the header says what they mean")]
pub struct Slice {
    pub writable: u32,
    pub offset: u16,
    pub store_offset: u16,
    pub nbytes: u8,
    pub spare: u8,
    pub tag: u16,
}

/// `struct vpci_bar`, 8.0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header says what they mean")]
pub struct VpciBar {
    pub vb_mapping: Region,
    pub vb_value: u32,
    pub vb_value_upper: u32,
    pub vb_slice: u16,
    pub vb_breg: u16,
}

/// `struct vpci_bar`, 7.x.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header says what they mean")]
pub struct VpciBar710 {
    pub vb_mapping: Region710,
    pub vb_value: u32,
    pub vb_value_upper: u32,
    pub vb_slice: u16,
    pub vb_breg: u16,
}

/// `struct vpci_rw_state`, 8.0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header says what they mean")]
pub struct RwState {
    pub bars: [VpciBar; BARS],
    pub rom_bar: u32,
    pub command: u16,
    pub cache_line_size: u8,
    pub latency_timer: u8,
    pub interrupt_line: u8,
    pub reserved: [u8; 7],
}

/// `struct vpci_rw_state`, 7.x.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header says what they mean")]
pub struct RwState710 {
    pub bars: [VpciBar710; BARS],
    pub rom_bar: u32,
    pub command: u16,
    pub cache_line_size: u8,
    pub latency_timer: u8,
    pub interrupt_line: u8,
    pub reserved: [u8; 7],
}

/// `struct _pci_config_regs`: the bytes of a configuration space.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug)]
pub struct PciConfig(pub [u8; 256]);
