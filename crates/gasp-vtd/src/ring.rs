//! The ring of the invalidation queue: its registers.

use gasp::GuestPhys;

use crate::registers::with_half;

/// The bits of IQA: address, and QS. The unit's descriptors have one width, so DW is 0.
const IQA: u64 = !0xfff | 7;
/// The bits of IQT.
const INDEX: u32 = 0x7_fff0;

/// The registers of the invalidation queue.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    /// GSTS.QIES.
    pub(crate) is_enabled: bool,
    address: u64,
    /// The next descriptor, and the one after the last, counted from the beginning.
    head: u32,
    tail: u32,
}

impl Ring {
    /// The number of descriptors that it has room for.
    fn size(&self) -> u32 {
        256 << (self.address & 7)
    }

    /// IQH.
    pub(crate) fn read_head(&self) -> u64 {
        u64::from(self.head) << 4
    }

    /// IQT.
    pub(crate) fn read_tail(&self) -> u64 {
        u64::from(self.tail) << 4
    }

    /// IQA.
    pub(crate) fn read_address(&self) -> u64 {
        self.address
    }

    /// Writes half of IQA. The queue does not move while it is enabled.
    pub(crate) fn write_address(&mut self, offset: u64, value: u32) {
        if !self.is_enabled {
            self.address = with_half(self.address, offset, value) & IQA;
        }
    }

    /// Writes the lower half of IQT; the upper one is reserved.
    pub(crate) fn write_tail(&mut self, value: u32) {
        self.tail = (value & INDEX) >> 4;
    }

    /// Enables or disables the queue, which begins again at its first descriptor.
    pub(crate) fn enable(&mut self, is_enabled: bool) {
        self.is_enabled = is_enabled;
        self.head = 0;
    }

    /// Whether there are no descriptors to be processed.
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Whether the tail is past the end.
    pub(crate) fn is_tail_outside(&self) -> bool {
        self.tail >= self.size()
    }

    /// Where the 8 bytes at `offset` in the descriptor at the head are.
    pub(crate) fn at_head(&self, offset: u64) -> Option<GuestPhys> {
        GuestPhys(self.address & !0xfff).checked_add(self.read_head() + offset)
    }

    pub(crate) fn advance(&mut self) {
        self.head = (self.head + 1) % self.size();
    }
}
