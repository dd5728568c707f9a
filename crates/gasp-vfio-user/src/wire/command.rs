//! The numbers of the commands.

pub(crate) const VERSION: u16 = 1;
pub(crate) const DMA_MAP: u16 = 2;
pub(crate) const DMA_UNMAP: u16 = 3;
pub(crate) const DEVICE_GET_INFO: u16 = 4;
pub(crate) const DEVICE_GET_REGION_INFO: u16 = 5;
pub(crate) const DEVICE_GET_REGION_IO_FDS: u16 = 6;
pub(crate) const DEVICE_GET_IRQ_INFO: u16 = 7;
pub(crate) const DEVICE_SET_IRQS: u16 = 8;
pub(crate) const REGION_READ: u16 = 9;
pub(crate) const REGION_WRITE: u16 = 10;
pub(crate) const DMA_READ: u16 = 11;
pub(crate) const DMA_WRITE: u16 = 12;
pub(crate) const DEVICE_RESET: u16 = 13;
pub(crate) const REGION_WRITE_MULTI: u16 = 15;
pub(crate) const DEVICE_FEATURE: u16 = 16;
pub(crate) const MIG_DATA_READ: u16 = 17;
pub(crate) const MIG_DATA_WRITE: u16 = 18;

/// The name of a command, for logs.
pub(crate) fn name(command: u16) -> &'static str {
    match command {
        VERSION => "VERSION",
        DMA_MAP => "DMA_MAP",
        DMA_UNMAP => "DMA_UNMAP",
        DEVICE_GET_INFO => "DEVICE_GET_INFO",
        DEVICE_GET_REGION_INFO => "DEVICE_GET_REGION_INFO",
        DEVICE_GET_REGION_IO_FDS => "DEVICE_GET_REGION_IO_FDS",
        DEVICE_GET_IRQ_INFO => "DEVICE_GET_IRQ_INFO",
        DEVICE_SET_IRQS => "DEVICE_SET_IRQS",
        REGION_READ => "REGION_READ",
        REGION_WRITE => "REGION_WRITE",
        DMA_READ => "DMA_READ",
        DMA_WRITE => "DMA_WRITE",
        DEVICE_RESET => "DEVICE_RESET",
        REGION_WRITE_MULTI => "REGION_WRITE_MULTI",
        DEVICE_FEATURE => "DEVICE_FEATURE",
        MIG_DATA_READ => "MIG_DATA_READ",
        MIG_DATA_WRITE => "MIG_DATA_WRITE",
        _ => "unknown command",
    }
}
