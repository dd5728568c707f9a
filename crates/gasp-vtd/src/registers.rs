//! The register page: offsets, and the bits of the fields.
//!
//! Names and layouts are those of the chapter "Register Descriptions" of the specification.

/// The size of the register page in bytes.
pub(crate) const PAGE: u64 = 4096;

pub(crate) const VER: u64 = 0x00;
pub(crate) const CAP: u64 = 0x08;
pub(crate) const ECAP: u64 = 0x10;
/// The register after it is GSTS.
pub(crate) const GCMD: u64 = 0x18;
pub(crate) const RTADDR: u64 = 0x20;
pub(crate) const CCMD: u64 = 0x28;
pub(crate) const FSTS: u64 = 0x34;
pub(crate) const FECTL: u64 = 0x38;
pub(crate) const IQH: u64 = 0x80;
pub(crate) const IQT: u64 = 0x88;
pub(crate) const IQA: u64 = 0x90;
pub(crate) const ICS: u64 = 0x9c;
pub(crate) const IECTL: u64 = 0xa0;
pub(crate) const IQERCD: u64 = 0xb0;
/// Where ECAP.IRO says that they are.
pub(crate) const IVA: u64 = 0x500;
pub(crate) const IOTLB: u64 = 0x508;
/// Where CAP.FRO says that they are: 16 bytes each.
pub(crate) const FRCD: u64 = 0x600;

/// The architecture version: 1.0.
pub(crate) const VERSION: u32 = 0x10;

/// Fields of GCMD, and of GSTS.
pub(crate) mod global {
    /// Translation enable, and its status.
    pub(crate) const TE: u32 = 1 << 31;
    /// Set root table pointer, and its status.
    pub(crate) const SRTP: u32 = 1 << 30;
    /// Queued invalidation enable, and its status.
    pub(crate) const QIE: u32 = 1 << 26;
}

/// Fields of CCMD.
pub(crate) mod context_command {
    pub(crate) const ICC: u64 = 1 << 63;
    /// The field CIRG, what is requested, begins at this bit.
    pub(crate) const REQUESTED: u32 = 61;
    /// The field CAIG, what has been done, begins at this bit.
    pub(crate) const ACTUAL: u32 = 59;
    pub(crate) const FUNCTION_MASK: u32 = 32;
    pub(crate) const SOURCE: u32 = 16;
    /// What is read as it was written: CIRG and DID.
    pub(crate) const KEPT: u64 = 3 << REQUESTED | 0xffff;
}

/// Fields of IOTLB.
pub(crate) mod iotlb {
    pub(crate) const IVT: u64 = 1 << 63;
    /// The field IIRG, what is requested, begins at this bit.
    pub(crate) const REQUESTED: u32 = 60;
    /// The field IAIG, what has been done, begins at this bit.
    pub(crate) const ACTUAL: u32 = 57;
    pub(crate) const DOMAIN: u32 = 32;
    /// What is read as it was written: IIRG, DR, DW and DID.
    pub(crate) const KEPT: u64 = 3 << REQUESTED | 3 << 48 | 0xffff << DOMAIN;
}

/// Fields of FSTS.
pub(crate) mod fault_status {
    /// Primary fault overflow.
    pub(crate) const PFO: u32 = 1 << 0;
    /// Primary pending fault.
    pub(crate) const PPF: u32 = 1 << 1;
    /// Invalidation queue error.
    pub(crate) const IQE: u32 = 1 << 4;
    /// The field FRI begins at this bit.
    pub(crate) const FRI: u32 = 8;
}

/// Fields of FECTL and IECTL.
pub(crate) mod event_control {
    /// Interrupt mask.
    pub(crate) const IM: u32 = 1 << 31;
    /// Interrupt pending.
    pub(crate) const IP: u32 = 1 << 30;
}

/// The field IWC of ICS.
pub(crate) const WAIT_COMPLETE: u32 = 1;

/// The half of `quad` that the register of 4 bytes at `offset` is.
pub(crate) fn half(quad: u64, offset: u64) -> u32 {
    (if offset & 4 == 0 { quad } else { quad >> 32 }) as u32
}

/// `quad` with that half replaced.
pub(crate) fn with_half(quad: u64, offset: u64, value: u32) -> u64 {
    match offset & 4 {
        0 => quad & !0xffff_ffff | u64::from(value),
        _ => quad & 0xffff_ffff | u64::from(value) << 32,
    }
}

/// A quad of two registers of 4 bytes.
pub(crate) fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}
