//! Descriptors of the invalidation queue, of 16 bytes.

use gasp::GuestPhys;

use crate::capabilities::Capabilities;
use crate::faults::QueueError;
use crate::invalidation::{Granularity, Invalidation, Pages};

/// What a descriptor asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Descriptor {
    Invalidate(Invalidation),
    Wait(Wait),
}

/// What is done when the descriptors before this one are complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wait {
    /// Four bytes to write, and where: a multiple of 4.
    pub(crate) status: Option<(GuestPhys, u32)>,
    /// Whether to raise the invalidation completion event.
    pub(crate) interrupts: bool,
}

/// The type: bits 3 to 0, and 11 to 9, which are 0 in all that the unit has.
const TYPE: u64 = 0xe0f;
const CONTEXT_CACHE: u64 = 1;
const IOTLB: u64 = 2;
const WAIT: u64 = 5;

/// Reads a descriptor.
pub(crate) fn decode(
    [low, high]: [u64; 2],
    capabilities: &Capabilities,
) -> Result<Descriptor, QueueError> {
    let reserved = |low_bits: u64, high_bits: u64| {
        let is_clear = low & low_bits == 0 && high & high_bits == 0;
        is_clear.then_some(()).ok_or(QueueError::Reserved)
    };
    let granularity = (low >> 4 & 3) as u8;
    let domain = (low >> 16) as u16;
    let invalidation = match low & TYPE {
        CONTEXT_CACHE => {
            reserved(!0 << 50 | 0x1c0 | 0xf000, !0)?;
            let (source, mask) = ((low >> 32) as u16, (low >> 48) as u8);
            Granularity::of(granularity)
                .map(|granularity| Invalidation::context_cache(granularity, source, mask))
        }
        IOTLB => {
            reserved(!0 << 32 | 0x100 | 0xf000, 0xf80)?;
            let pages = Pages::new(high, capabilities);
            Granularity::of(granularity)
                .and_then(|granularity| Invalidation::iotlb(granularity, domain, pages))
        }
        WAIT => {
            reserved(0xffff_f180, 3)?;
            let has = |bit: u32| low >> bit & 1 != 0;
            let status = has(5).then_some((GuestPhys(high), (low >> 32) as u32));
            // All descriptors are processed in order, as the fence flag (bit 6) asks for.
            return Ok(Descriptor::Wait(Wait { status, interrupts: has(4) }));
        }
        _ => return Err(QueueError::Type),
    };
    invalidation.map(Descriptor::Invalidate).ok_or(QueueError::Reserved)
}
