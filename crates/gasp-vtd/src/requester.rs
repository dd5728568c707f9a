//! Requester ids.

use core::fmt;

/// The source of DMA as a remapping unit sees it: a PCI function, bus in bits 15 to 8, device in bits
/// 7 to 3, function in bits 2 to 0.
///
/// ```
/// use gasp_vtd::RequesterId;
/// assert_eq!(RequesterId(0x0021).to_string(), "00:04.1");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequesterId(pub u16);

impl RequesterId {
    pub(crate) fn bus(self) -> u64 {
        u64::from(self.0 >> 8)
    }

    pub(crate) fn device_and_function(self) -> u64 {
        u64::from(self.0 & 0xff)
    }
}

impl fmt::Display for RequesterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.0 >> 8, self.0 >> 3 & 0x1f, self.0 & 7)
    }
}
