//! The constants of the headers, which have their documentation.
#![allow(missing_docs, reason = "the headers say what they mean")]

pub const QVM_VDEV_ABI_800: u32 = 2_026_120_100;
pub const QVM_VDEV_ABI_710: u32 = 2_019_090_401;

pub const VDEV_CTRL_OPTIONS_START: u32 = 0;
pub const VDEV_CTRL_OPTIONS_END: u32 = 1;
pub const VDEV_CTRL_GUEST_CONFIGURED: u32 = 2;
pub const VDEV_CTRL_TERMINATE: u32 = 3;
pub const VDEV_CTRL_STATUS: u32 = 4;
pub const VDEV_CTRL_GEN_ACPI: u32 = 5;
pub const VDEV_CTRL_GEN_FDT: u32 = 6;
pub const VDEV_CTRL_BUTTON: u32 = 7;
pub const VDEV_CTRL_ASSIGN: u32 = 8;
pub const VDEV_CTRL_GUEST_STARTING: u32 = 9;
pub const VDEV_CTRL_PCI_BARS: u32 = 10;
pub const VDEV_CTRL_FIRST_OPTIDX: u32 = 0x100;

pub const VRS_NORMAL: u32 = 0;
pub const VRS_NO_ADVANCE: u32 = 1;
pub const VRS_ABORT: u32 = 2;
pub const VRS_BUS_ERROR: u32 = 3;
pub const VRS_CONTINUE: u32 = 4;
pub const VRS_TERMINATE: u32 = 5;
pub const VRS_ERRNO: u32 = 0x100;

pub const VFF_NONE: u32 = 0;
pub const VFF_RESERVED: u32 = 0x1;
pub const VFF_INTR_NO: u32 = 0x2;
pub const VFF_INTR_REQ: u32 = 0x4;
pub const VFF_INTR_NONPCI: u32 = 0x8;
pub const VFF_LOC_NO: u32 = 0x10;
pub const VFF_VDEV_MEM: u32 = 0x20;
pub const VFF_VDEV_X86_IO: u32 = 0x40;
pub const VFF_VDEV_PCI: u32 = 0x80;
pub const VFF_VDEV_LOC_TYPES: u32 = VFF_VDEV_MEM | VFF_VDEV_X86_IO | VFF_VDEV_PCI;
pub const VFF_MUTEX: u32 = 0x100;
pub const VFF_MUTEX_RECURSIVE: u32 = 0x200;
pub const VFF_RC: u32 = 0x400;
pub const VFF_MANUAL_REGION: u32 = 0x800;

pub const GIS_NOP: u32 = 0x0;
pub const GIS_ON: u32 = 0x1;
pub const GIS_OFF: u32 = 0x2;
pub const GIS_ISR: u32 = 0x4;

pub const GXF_NONE: u32 = 0;
pub const GXF_PAUSE: u32 = 0x1;
pub const GXF_UNPAUSE: u32 = 0x2;
pub const GXF_ASYNC: u32 = 0x4;
pub const GXF_GDB: u32 = 0x8;
pub const GXF_FLUSH: u32 = 0x10;

pub const QST_MEMORY: u16 = 0;
pub const QST_VIRTUAL: u16 = 1;
pub const QST_CPUREGS: u16 = 2;
pub const QST_HOST: u16 = 4;
pub const QST_PCI: u16 = 5;
pub const QST_PCI_IO: u16 = 6;
pub const QST_IMMEDIATE: u16 = 7;
pub const QST_X86_IO: u16 = 0x8000;
pub const QST_NO_TYPE: u16 = 0xffff;

pub const QSL_NO_LOCATION: u64 = u64::MAX;

pub const GTC_CUSTOM_MIN: i32 = 32;
pub const GTC_MAX: i32 = 63;
