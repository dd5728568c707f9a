//! `vdev_t`, and what it consists of.

use core::ffi::c_void;
use core::mem::offset_of;

use gasp_capi::types::{GuestSystem, StateBlock, StateBlock710, Vdev};

/// `struct guest_intr`, `guest_intr_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GuestIntr {
    /// The interrupt controller; NULL for the host's own.
    pub pic: *mut Vdev,
    /// The line of the controller.
    pub param: u32,
    /// The number by which the host knows this interrupt; 0 for none.
    pub src_id: u32,
}

/// `struct qvm_sched_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SchedInfo {
    /// `SCHED_*`.
    pub policy: i32,
    /// The priority.
    pub priority: i32,
    /// Zeros.
    pub reserved: [u32; 6],
}

/// `struct guest_timer_data`, in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerData {
    /// The host's time when the notification was requested.
    pub host_notify_start: u64,
    /// The host's time now.
    pub host_current: u64,
    /// The guest's time when the notification was requested.
    pub guest_notify_start: u64,
    /// The guest's time now.
    pub guest_current: u64,
}

/// `vdev_t`, 8.0.
#[repr(C)]
#[allow(missing_docs, reason = "the header says what they mean")]
pub struct Object800 {
    pub v_device: *mut c_void,
    pub v_factory: *const c_void,
    pub v_gsp: *mut GuestSystem,
    pub v_block: StateBlock,
    pub v_intr: GuestIntr,
    pub v_mtx: libc::pthread_mutex_t,
    pub v_sched: SchedInfo,
}

/// `vdev_t`, 7.x.
#[repr(C)]
#[allow(missing_docs, reason = "the header says what they mean")]
pub struct Object710 {
    pub v_device: *mut c_void,
    pub v_factory: *const c_void,
    pub v_gsp: *mut GuestSystem,
    pub v_block: StateBlock710,
    pub v_intr: GuestIntr,
    pub v_mtx: libc::pthread_mutex_t,
    pub v_sched: SchedInfo,
}

/// The offset of `v_block.location`, in both editions.
pub const VDEV_LOCATION: usize = offset_of!(Object800, v_block);
const _: () = assert!(offset_of!(Object710, v_block) == VDEV_LOCATION);

/// A state block of either edition: a range of locations in a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// An address, a port, …: see `kind`.
    pub location: u64,
    /// In bytes.
    pub length: u64,
    /// `QST_*`.
    pub kind: u16,
}

impl From<Block> for StateBlock {
    fn from(Block { location, length, kind }: Block) -> Self {
        Self { location, length, qst_type: kind, qst_flags: 0, spare: 0 }
    }
}

impl From<Block> for StateBlock710 {
    fn from(Block { location, length, kind }: Block) -> Self {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Self { location, length, qst_type: kind, qst_flags: 0 }
    }
}

impl From<StateBlock> for Block {
    fn from(block: StateBlock) -> Self {
        Self { location: block.location, length: block.length, kind: block.qst_type }
    }
}

impl From<StateBlock710> for Block {
    fn from(block: StateBlock710) -> Self {
        Self { location: block.location, length: block.length.into(), kind: block.qst_type }
    }
}
