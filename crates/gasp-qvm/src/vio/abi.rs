//! The structures and constants of `<qvm/vio.h>` and `<qvm/vq.h>`, which have their documentation.
//! `tests/vio_headers.rs` of `gasp-capi` compares the headers with the same numbers.

use core::ffi::{c_int, c_uint, c_void};
use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

use gasp_capi::types::MapHandle;

/// `VIO_MAX_FEATURE_WORDS`.
pub(crate) const FEATURE_WORDS: usize = 4;
/// `VIOREF_CLASS_*`.
pub(crate) const NOP: u32 = 0;
pub(crate) const NOTIFY: u32 = 0x10000;
pub(crate) const ENABLED: u32 = 0x20000;
pub(crate) const RESET: u32 = 0x30000;
pub(crate) const STATUS: u32 = 0x40000;
pub(crate) const DEVCFG: u32 = 0x50000;
pub(crate) const BUS_ERROR: u32 = 0x60000;
pub(crate) const ERRNO: u32 = 0x70000;
/// `VIOVER_095`.
pub(crate) const LEGACY: u32 = 0;
/// `VQ_INVALID_ID`.
pub(crate) const INVALID_ID: u32 = u32::MAX;
/// `VVF_PADDRS`, and all flags.
pub(crate) const PADDRS: u32 = 1;
pub(crate) const FLAGS: u32 = PADDRS;
/// `VIRTQ_DESC_F_*`.
pub(crate) const DESC_NEXT: u32 = 1;
pub(crate) const DESC_WRITE: u32 = 2;
pub(crate) const DESC_INDIRECT: u32 = 4;

/// `struct vio_description`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// `VIRTIO_DT_*`.
    pub device_type: u16,
    /// The subsystem vendor ID; 0 for the default.
    pub vendor_id: u16,
    /// The PCI class code.
    pub pci_class: c_uint,
    /// How many queues it has.
    pub num_queues: c_uint,
    /// How many bytes of configuration it has.
    pub device_config_size: c_uint,
    /// What it offers.
    pub device_features: [u32; FEATURE_WORDS],
}

/// `struct vio_state`.
#[repr(C)]
#[derive(Debug)]
pub struct State {
    /// Private.
    pub vsip: *mut c_void,
    /// An array of `num_queues`.
    pub qinfo: *mut QueueInfo,
    /// What the driver has accepted.
    pub driver_features: [u32; FEATURE_WORDS],
}

/// `struct vio_queue_info`: the vdev reads it while calls of other threads write it.
#[repr(C)]
#[derive(Debug)]
pub struct QueueInfo {
    /// The queue: `pvq`, or `vq` in 7.x.
    pub queue: AtomicPtr<c_void>,
    /// Of which device it is.
    pub state: AtomicPtr<State>,
    /// Descriptor table, available ring, used ring.
    pub places: [AtomicU64; 3],
    /// Its entries.
    pub size: AtomicU32,
    /// 0.
    pub reserved: u32,
    /// The most entries that it can have.
    pub max_size: AtomicU32,
}

/// `struct __iovec64`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Physical {
    /// The host-physical address.
    pub base: u64,
    /// In bytes.
    pub len: u64,
}

/// `struct vio_iov`, 7.x: the beginning of that of 8.0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Iov {
    /// The array.
    pub iov: *mut libc::iovec,
    /// Host-physical addresses.
    pub paddrs: *mut Physical,
    /// The entries of the array.
    pub len: c_int,
    /// How many of them are the vdev's own.
    pub reserved: c_int,
    /// `VVF_*`.
    pub flags: c_uint,
    /// The length of the header in bytes.
    pub hdr_len: c_uint,
    /// The entries in use.
    pub count: c_int,
    /// The first entry of the payload.
    pub payload: c_int,
}

/// `struct vio_iov`, 8.0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Iov800 {
    /// As in 7.x.
    pub iov: Iov,
    /// The mapping of each entry; can be NULL.
    pub mappings: *mut MapHandle,
}

const _: () = assert!(size_of::<Description>() == 32);
const _: () = assert!(size_of::<State>() == 32 && offset_of!(State, driver_features) == 16);
const _: () = assert!(size_of::<QueueInfo>() == 56 && offset_of!(QueueInfo, places) == 16);
const _: () = assert!(offset_of!(QueueInfo, size) == 40 && offset_of!(QueueInfo, max_size) == 48);
const _: () = assert!(size_of::<Physical>() == 16);
const _: () = assert!(size_of::<Iov>() == 40 && offset_of!(Iov, payload) == 36);
const _: () = assert!(size_of::<Iov800>() == 48 && offset_of!(Iov800, mappings) == 40);
