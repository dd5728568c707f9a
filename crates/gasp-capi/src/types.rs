//! The structures and constants of the headers, in Rust. `tests/abi` compares the two, member by
//! member.

use core::ffi::{c_char, c_uint, c_void};

use gasp::MapFlags;

/// `vdev_t`: the members that both editions have at the same place. Those that follow, whose
/// places differ by edition, belong to the program that hosts the vdev.
///
/// The library writes these when it lists a vdev, and reads none.
#[repr(C)]
#[derive(Debug)]
pub struct Vdev {
    /// The vdev's own data.
    pub v_device: *mut c_void,
    /// `struct vdev_factory`: what has created it.
    pub v_factory: *const c_void,
    /// Its guest.
    pub v_gsp: *mut GuestSystem,
    /// The first member of `v_block`: where it is in the guest, or `QSL_NO_LOCATION`.
    pub v_location: u64,
}

/// `struct guest_system`, `gasp_guest_t`.
#[repr(C)]
#[derive(Debug)]
pub struct GuestSystem([u8; 0]);

/// `gasp_domain_t`.
#[repr(C)]
#[derive(Debug)]
pub struct Domain([u8; 0]);

/// `gasp_drain_t`.
#[repr(C)]
#[derive(Debug)]
pub struct Drain([u8; 0]);

/// `gasp_map_handle_t`: the words of a [`gasp::ffi::Token`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MapHandle {
    /// Private.
    pub reserved: [u64; 3],
}

/// `struct qvm_state_block`, 8.0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StateBlock {
    /// The address or port.
    pub location: u64,
    /// In bytes.
    pub length: u64,
    /// `QST_*`: the kind of location.
    pub qst_type: u16,
    /// `QSF_*`.
    pub qst_flags: u16,
    /// Must be 0.
    pub spare: u32,
}

/// `struct qvm_state_block`, 7.x.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StateBlock710 {
    /// The address or port.
    pub location: u64,
    /// In bytes.
    pub length: u32,
    /// `QST_*`: the kind of location.
    pub qst_type: u16,
    /// `QSF_*`.
    pub qst_flags: u16,
}

/// `struct gasp_region`, 8.0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// `GRF_*`.
    pub flags: u32,
    /// The vdev's identifier of the region.
    pub cookie: u32,
    /// The emulating vdev.
    pub vdev: *mut Vdev,
    /// The host-physical address, or `QSL_NO_LOCATION`.
    pub host_location: u64,
    /// Its range in the guest.
    pub guest: StateBlock,
}

/// `struct gasp_region`, 7.x.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Region710 {
    /// `GRF_*`.
    pub flags: u32,
    /// The vdev's identifier of the region.
    pub cookie: u32,
    /// The emulating vdev.
    pub vdev: *mut Vdev,
    /// The host-physical address, or `QSL_NO_LOCATION`.
    pub host_location: u64,
    /// Its range in the guest.
    pub guest: StateBlock710,
}

/// `gasp_walk_filter_t`.
pub type WalkFilter = Option<unsafe extern "C" fn(*mut u64, *mut usize)>;

/// `gasp_walk_state_t`, 8.0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WalkState {
    /// Private: the guest's number.
    pub span: *mut c_void,
    /// The guest-physical address of the entry.
    pub guest_loc: u64,
    /// Its host-physical address, or `QSL_NO_LOCATION`.
    pub host_loc: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The longest entry in bytes; 0 for no limit.
    pub max_length: u64,
    /// `GWS_*`.
    pub flags: u32,
}

/// `struct gasp_walk_state`, 7.x.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WalkState710 {
    /// Not used.
    pub span: *mut c_void,
    /// The guest.
    pub gsp: *mut GuestSystem,
    /// The guest-physical address of the entry.
    pub guest_loc: u64,
    /// Its host-physical address, or `QSL_NO_LOCATION`.
    pub host_loc: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The longest entry in bytes; 0 for no limit.
    pub max_length: u64,
    /// `GWS_*`.
    pub flags: c_uint,
}

/// `gasp_walk_state_filtered_t`, 8.0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WalkStateFiltered {
    /// The current part.
    pub ws: WalkState,
    /// Selects parts.
    pub filter: WalkFilter,
    /// Where the remainder of the entry begins, for which the filter has not been called yet.
    pub remaining_guest_loc: u64,
    /// The length of the remainder in bytes.
    pub remaining_length: u64,
}

/// `struct gasp_walk_state_filtered`, 7.x.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WalkStateFiltered710 {
    /// The current part.
    pub ws: WalkState710,
    /// Selects parts.
    pub filter: WalkFilter,
    /// Where the remainder of the entry begins, for which the filter has not been called yet.
    pub remaining_guest_loc: u64,
    /// The length of the remainder in bytes.
    pub remaining_length: u64,
}

/// `struct gasp_guest_options`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GuestOptions {
    /// NULL for "guest".
    pub name: *const c_char,
    /// In bits; 0 for 48.
    pub address_width: u32,
    /// `GASP_IOMMU_*`.
    pub iommu: u32,
    /// How long a revoke waits until `at_deadline`, in milliseconds.
    pub drain_deadline_ms: u32,
    /// `GASP_DRAIN_*`.
    pub at_deadline: u32,
    /// Not 0: host-physical addresses may change.
    pub allow_unpinned: u32,
    /// Must be 0.
    pub reserved: u32,
}

/// The size of [`Fault::name`]: a name of 128 bytes and its NUL, rounded up to 8.
pub const FAULT_NAME: usize = 136;

/// `struct gasp_fault`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// NULL if it has been destroyed.
    pub vdev: *mut Vdev,
    /// The first refused address.
    pub device_addr: u64,
    /// `GMF_*`.
    pub access: u32,
    /// `GASP_REFUSED_*`.
    pub refusal: u32,
    /// Records lost since one was last taken.
    pub dropped: u64,
    /// The device's name.
    pub name: [c_char; FAULT_NAME],
}

/// `struct gasp_drained`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Drained {
    /// Mappings that were held when the revoke took effect.
    pub holders: u64,
    /// Those still held at the end.
    pub detached: u64,
    /// From the revoke to the end, in nanoseconds.
    pub waited_ns: u64,
}

/// `gasp_log_t`.
pub type Log = Option<unsafe extern "C" fn(*mut c_void, u32, *const c_char)>;

/// A decimal number.
const fn number(digits: &str) -> u32 {
    match u32::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => panic!("not a number"),
    }
}

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$doc])* #[doc = concat!("`", stringify!($name), "`")] pub const $name: $type = $value;)*
        /// Name and value of every constant, for the comparison with the headers.
        pub const CONSTANTS: &[(&str, u64)] = &[$((stringify!($name), $value as u64)),*];
    };
}

constants! {
    EOK: i32 = 0;
    QSL_NO_LOCATION: u64 = u64::MAX;
    QST_MEMORY: u16 = 0;
    QST_PCI_IO: u16 = 6;
    QST_X86_IO: u16 = 0x8000;
    QST_NO_TYPE: u16 = 0xffff;
    GRF_NONE: u32 = 0;
    GRF_VIRT_RD: u32 = 0x1;
    GRF_VIRT_WR: u32 = 0x2;
    GRF_VIRT_EX: u32 = 0x4;
    GRF_VIRT_ANY: u32 = 0x7;
    GRF_PASS_RD: u32 = 0x8;
    GRF_PASS_WR: u32 = 0x10;
    GRF_PASS_EX: u32 = 0x20;
    GRF_PASS_ANY: u32 = 0x38;
    GRF_NOCACHE: u32 = 0x40;
    GRF_ACTIVE: u32 = 0x80;
    GRF_MEMORY: u32 = 0x100;
    GRF_PASSTHRU: u32 = 0x200;
    GRF_DMA_USES: u32 = 0x400;
    GRF_DMA_NO_USE: u32 = 0x800;
    GRF_DMA_SOURCE: u32 = 0x1000;
    GRF_DMA_TARGET: u32 = 0x2000;
    GRF_PRECIOUS: u32 = 0x4000;
    GRF_NOPERMS: u32 = 0x8000;
    GRF_BACKUP_MASK: u32 = 0xf000_0000;
    GRF_BACKUP_SHIFT: u32 = 25;
    GRF_STICKY: u32 = GRF_MEMORY | GRF_DMA_SOURCE | GRF_DMA_TARGET | GRF_PASSTHRU;
    GMF_READ: u32 = 1;
    GMF_WRITE: u32 = 2;
    GMF_EXEC: u32 = 4;
    GMF_MAP_ANY: u32 = MapFlags::ANY_BIT;
    GWS_NONE: u32 = 0;
    GWS_HOST: u32 = 1;
    GWF_NONE: u32 = GWS_NONE;
    GWF_HOST: u32 = GWS_HOST;
    GRAM_HINT_NONE: u32 = 0;
    GASP_VERSION_MAJOR: u32 = number(env!("CARGO_PKG_VERSION_MAJOR"));
    GASP_VERSION_MINOR: u32 = number(env!("CARGO_PKG_VERSION_MINOR"));
    GASP_VERSION_PATCH: u32 = number(env!("CARGO_PKG_VERSION_PATCH"));
    GASP_VERSION: u32 = GASP_VERSION_MAJOR << 16 | GASP_VERSION_MINOR << 8 | GASP_VERSION_PATCH;
    GASP_LOG_OFF: u32 = 0;
    GASP_LOG_ERROR: u32 = 1;
    GASP_LOG_WARN: u32 = 2;
    GASP_LOG_INFO: u32 = 3;
    GASP_LOG_DEBUG: u32 = 4;
    GASP_IOMMU_NONE: u32 = 0;
    GASP_IOMMU_DENY: u32 = 1;
    GASP_IOMMU_BYPASS: u32 = 2;
    GASP_DRAIN_WAIT: u32 = 0;
    GASP_DRAIN_DETACH: u32 = 1;
    GASP_ANYWHERE: u64 = u64::MAX;
    GASP_PAGES_ANY: u32 = 0;
    GASP_PAGES_1G: u32 = 1;
    GASP_PAGES_2M: u32 = 2;
    GASP_PAGES_THP: u32 = 4;
    GASP_PAGES_4K: u32 = 8;
    GASP_PINNED: u32 = 0;
    GASP_RESIDENT: u32 = 1;
    GASP_ON_DEMAND: u32 = 2;
    GASP_OWNER_UNTRUSTED: u32 = 0;
    GASP_OWNER_TRUSTED: u32 = 1;
    GASP_DOMAIN_BYPASS: u32 = 0;
    GASP_DOMAIN_DENY: u32 = 1;
    GASP_DOMAIN_IDENTITY: u32 = 2;
    GASP_DOMAIN_TRANSLATE: u32 = 3;
    GASP_REFUSED_NOT_GRANTED: u32 = 0;
    GASP_REFUSED_ACCESS: u32 = 1;
    GASP_REFUSED_UNATTACHED: u32 = 2;
    GASP_REFUSED_DENY_DOMAIN: u32 = 3;
    GASP_REFUSED_TRANSLATOR: u32 = 4;
}
