//! The constants of the headers, which have their documentation.
#![allow(missing_docs, reason = "the headers say what they mean")]

/// Constants, and their list.
macro_rules! constants {
    ($($name:ident: $type:ty = $value:expr;)*) => {
        $(pub const $name: $type = $value;)*
        /// Name and value of every constant that the headers call so, for the comparison with them.
        pub const CONSTANTS: &[(&str, u64)] = &[$((stringify!($name), $value as u64)),*];
    };
}

/// `QVM_VDEV_ABI` of 8.0.
pub const QVM_VDEV_ABI_800: u32 = 2_026_120_100;
/// `QVM_VDEV_ABI` of 7.x.
pub const QVM_VDEV_ABI_710: u32 = 2_019_090_401;

constants! {
    VDEV_CTRL_OPTIONS_START: u32 = 0;
    VDEV_CTRL_OPTIONS_END: u32 = 1;
    VDEV_CTRL_GUEST_CONFIGURED: u32 = 2;
    VDEV_CTRL_TERMINATE: u32 = 3;
    VDEV_CTRL_STATUS: u32 = 4;
    VDEV_CTRL_GEN_ACPI: u32 = 5;
    VDEV_CTRL_GEN_FDT: u32 = 6;
    VDEV_CTRL_BUTTON: u32 = 7;
    VDEV_CTRL_ASSIGN: u32 = 8;
    VDEV_CTRL_GUEST_STARTING: u32 = 9;
    VDEV_CTRL_PCI_BARS: u32 = 10;
    VDEV_CTRL_FIRST_OPTIDX: u32 = 0x100;

    VRS_NORMAL: u32 = 0;
    VRS_NO_ADVANCE: u32 = 1;
    VRS_ABORT: u32 = 2;
    VRS_BUS_ERROR: u32 = 3;
    VRS_CONTINUE: u32 = 4;
    VRS_TERMINATE: u32 = 5;
    VRS_ERRNO: u32 = 0x100;

    VFF_NONE: u32 = 0;
    VFF_RESERVED: u32 = 0x1;
    VFF_INTR_NO: u32 = 0x2;
    VFF_INTR_REQ: u32 = 0x4;
    VFF_INTR_NONPCI: u32 = 0x8;
    VFF_LOC_NO: u32 = 0x10;
    VFF_VDEV_MEM: u32 = 0x20;
    VFF_VDEV_X86_IO: u32 = 0x40;
    VFF_VDEV_PCI: u32 = 0x80;
    VFF_VDEV_LOC_TYPES: u32 = VFF_VDEV_MEM | VFF_VDEV_X86_IO | VFF_VDEV_PCI;
    VFF_MUTEX: u32 = 0x100;
    VFF_MUTEX_RECURSIVE: u32 = 0x200;
    VFF_RC: u32 = 0x400;
    VFF_MANUAL_REGION: u32 = 0x800;

    GIS_NOP: u32 = 0x0;
    GIS_ON: u32 = 0x1;
    GIS_OFF: u32 = 0x2;
    GIS_ISR: u32 = 0x4;

    GIN_UNMASK: u32 = 0x1;
    GIN_ACK: u32 = 0x2;

    GIAT_EXCLUSIVE: u32 = 0;
    GIAT_SHARED: u32 = 1;

    GXF_NONE: u32 = 0;
    GXF_PAUSE: u32 = 0x1;
    GXF_UNPAUSE: u32 = 0x2;
    GXF_ASYNC: u32 = 0x4;
    GXF_GDB: u32 = 0x8;
    GXF_FLUSH: u32 = 0x10;

    QST_MEMORY: u16 = 0;
    QST_VIRTUAL: u16 = 1;
    QST_CPUREGS: u16 = 2;
    QST_HOST: u16 = 4;
    QST_PCI: u16 = 5;
    QST_PCI_IO: u16 = 6;
    QST_IMMEDIATE: u16 = 7;
    QST_X86_IO: u16 = 0x8000;
    QST_NO_TYPE: u16 = 0xffff;

    QSL_NO_LOCATION: u64 = u64::MAX;

    GTC_NORMAL_EXIT: i32 = 1;
    GTC_POWER_CUT: i32 = 3;
    GTC_WATCHDOG: i32 = 4;
    GTC_UNSUPPORTED: i32 = 5;
    GTC_VDEV_ERROR: i32 = 6;
    GTC_ERROR: i32 = 7;
    GTC_CUSTOM_MIN: i32 = 32;
    GTC_MAX: i32 = 63;

    GIT_X86_HLT: u32 = 1;
    GIT_X86_CPUID: u32 = 2;
    GIT_X86_RDMSR: u32 = 3;
    GIT_X86_WRMSR: u32 = 4;
    GIT_X86_VMCALL: u32 = 5;
    GIT_ARM_WFI: u32 = 0x100;
    GIT_ARM_HVC: u32 = 0x101;
    GIT_ARM_SMC: u32 = 0x102;
    GIT_FLAG_NO_QUALIFIER: u32 = 0x1_0000;

    GPSC_WAIT: u32 = 0x1;
    GPSC_OFF: u32 = 0x2;
    GPSC_TO: u32 = 0x4;
    GPSC_FROM: u32 = 0x8;

    CDEV_OPT_HOSTDEV_IDX: u32 = 0;
    CDEV_OPT_DELAYED_IDX: u32 = 1;
    CDEV_OPT_BATCH_IDX: u32 = 2;
    CDEV_OPT_NUM_OPTS: u32 = 3;
    CDEV_INPUT_AVAILABLE_PULSE_CODE: i8 = 126;
    CDEV_OUTPUT_AVAILABLE_PULSE_CODE: i8 = 125;

    WDOG_ACTION_TERMINATE: u32 = 0x1;
    WDOG_ACTION_INTR: u32 = 0x2;
    WDOG_FLAG_DUMP: u32 = 0x80;

    PCI_NUM_BARS: u32 = 6;
    PCI_CFG_SIZE: u32 = 0x100;
    PCI_CFG_SIZE_EXPRESS: u32 = 0x1000;
    PCI_CMD_IO: u16 = 0x1;
    PCI_CMD_MEMORY: u16 = 0x2;
}
