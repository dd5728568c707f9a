//! The block of registers of virtio over MMIO, version 2 (virtio 1.2, 4.2.2).
//!
//! Registers are 32 bits wide and accessed as a whole; an access of another width or alignment reads
//! zeros and writes nothing. The configuration follows them, with any width.

use gasp_virtio::transport::{CommonConfig, Field};

use super::registers::{Fixed, MMIO_CONFIG, Read, Wrote, notify, write_common};

/// "virt".
const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"virt");

const MAGIC: u64 = 0x000;
const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const VENDOR_ID: u64 = 0x00c;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_NUM_MAX: u64 = 0x034;
const QUEUE_NUM: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC_LOW: u64 = 0x080;
const QUEUE_DESC_HIGH: u64 = 0x084;
const QUEUE_DRIVER_LOW: u64 = 0x090;
const QUEUE_DRIVER_HIGH: u64 = 0x094;
const QUEUE_DEVICE_LOW: u64 = 0x0a0;
const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
const SHM_LEN_LOW: u64 = 0x0b0;
const SHM_LEN_HIGH: u64 = 0x0b4;
const SHM_BASE_LOW: u64 = 0x0b8;
const SHM_BASE_HIGH: u64 = 0x0bc;
const CONFIG_GENERATION: u64 = 0x0fc;

pub(super) fn read(
    fixed: &Fixed,
    common: &CommonConfig,
    generation: u8,
    offset: u64,
    len: usize,
) -> Read {
    if let Some(offset) = offset.checked_sub(MMIO_CONFIG) {
        return fixed.config(offset, len).map_or(Read::Value(0), Read::Config);
    }
    if len != 4 {
        return Read::Value(0);
    }
    let value = match offset {
        MAGIC => MAGIC_VALUE.into(),
        VERSION => 2,
        DEVICE_ID => fixed.device_type.into(),
        VENDOR_ID => fixed.vendor.into(),
        DEVICE_FEATURES => common.get(Field::DEVICE_FEATURE),
        QUEUE_NUM_MAX => {
            let selected = common.get(Field::QUEUE_SELECT) as usize;
            common.queues().get(selected).map_or(0, |queue| queue.max().into())
        }
        QUEUE_READY => common.get(Field::QUEUE_ENABLE),
        INTERRUPT_STATUS => return Read::Pending,
        STATUS => common.get(Field::DEVICE_STATUS),
        // There is no shared memory: lengths and addresses are all ones.
        SHM_LEN_LOW | SHM_LEN_HIGH | SHM_BASE_LOW | SHM_BASE_HIGH => u32::MAX.into(),
        CONFIG_GENERATION => generation.into(),
        _ => 0,
    };
    Read::Value(value)
}

pub(super) fn write(fixed: &Fixed, common: &mut CommonConfig, offset: u64, bytes: &[u8]) -> Wrote {
    if let Some(offset) = offset.checked_sub(MMIO_CONFIG) {
        return fixed.config(offset, bytes.len()).map_or(Wrote::Nothing, Wrote::Config);
    }
    let Ok(bytes) = <[u8; 4]>::try_from(bytes) else { return Wrote::Nothing };
    let value = u32::from_le_bytes(bytes);
    let set = |common: &mut CommonConfig, field, value: u32| {
        common.set(field, value.into());
        Wrote::Nothing
    };
    let half = |common: &mut CommonConfig, field, high| {
        common.set_half(field, high, value);
        Wrote::Nothing
    };
    match offset {
        DEVICE_FEATURES_SEL => set(common, Field::DEVICE_FEATURE_SELECT, value),
        DRIVER_FEATURES => set(common, Field::DRIVER_FEATURE, value),
        DRIVER_FEATURES_SEL => set(common, Field::DRIVER_FEATURE_SELECT, value),
        // Fields of 16 bits: what does not fit is no queue, and no size.
        QUEUE_SEL => set(common, Field::QUEUE_SELECT, value.min(u16::MAX.into())),
        QUEUE_NUM if value <= u16::MAX.into() => set(common, Field::QUEUE_SIZE, value),
        QUEUE_READY if value == 0 => common.disable_queue().map_or(Wrote::Nothing, Wrote::Disabled),
        QUEUE_READY if value == 1 => write_common(common, |common| {
            common.set(Field::QUEUE_ENABLE, 1);
        }),
        QUEUE_NOTIFY => notify(common, value.into()),
        INTERRUPT_ACK => Wrote::Acknowledge(value as u8),
        // Only a write of 0 resets the device, and not one of bits that there are none of.
        STATUS if value == 0 || value as u8 != 0 => write_common(common, |common| {
            common.set(Field::DEVICE_STATUS, value.into());
        }),
        QUEUE_DESC_LOW => half(common, Field::QUEUE_DESC, false),
        QUEUE_DESC_HIGH => half(common, Field::QUEUE_DESC, true),
        QUEUE_DRIVER_LOW => half(common, Field::QUEUE_DRIVER, false),
        QUEUE_DRIVER_HIGH => half(common, Field::QUEUE_DRIVER, true),
        QUEUE_DEVICE_LOW => half(common, Field::QUEUE_DEVICE, false),
        QUEUE_DEVICE_HIGH => half(common, Field::QUEUE_DEVICE, true),
        _ => Wrote::Nothing,
    }
}
