//! What all bursts of a device share.

/// What gives the device its memory, and the dirty bitmap.
#[derive(Debug)]
pub(crate) struct Shared<D, B> {
    pub(crate) dma: D,
    pub(crate) bitmap: B,
}
