//! Ranges of addresses that are never empty and never wrap.

use core::fmt;
use core::num::NonZeroU64;

use crate::addr::{Address, GRANULE};
use crate::error::Reason;

/// A range `[start, start + len)` of addresses of one kind.
///
/// It has at least one byte, and its last byte has an address: both are checked once, when
/// it is created, so that no later code has to. The range can end exactly at 2^64.
///
/// ```
/// use gasp::{GuestPhys, Span};
/// let page = Span::new(GuestPhys(0x1000), 0x1000)?;
/// assert_eq!(page.last(), GuestPhys(0x1fff));
/// assert!(Span::new(GuestPhys(0), 0).is_err());
/// assert!(Span::new(GuestPhys(u64::MAX), 2).is_err());
/// # Ok::<(), gasp::Reason>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span<A> {
    start: A,
    len: NonZeroU64,
}

impl<A: Address> Span<A> {
    /// The range of `len` bytes from `start` on.
    ///
    /// # Errors
    /// [`Reason::ZeroLength`] if `len` is 0 (decision 2), [`Reason::Wraps`] if the range would
    /// extend past 2^64 (decision 3).
    #[inline]
    pub fn new(start: A, len: u64) -> Result<Self, Reason> {
        let len = NonZeroU64::new(len).ok_or(Reason::ZeroLength)?;
        if start.raw().checked_add(len.get() - 1).is_none() {
            return Err(Reason::Wraps);
        }
        Ok(Self { start, len })
    }

    /// The range from `start` to `last`, both inclusive; `None` if `last` is below `start`, or
    /// if the range is all of the 2^64 addresses.
    #[inline]
    pub fn inclusive(start: A, last: A) -> Option<Self> {
        let len = last.raw().checked_sub(start.raw())?.checked_add(1)?;
        NonZeroU64::new(len).map(|len| Self { start, len })
    }

    /// The first address.
    #[inline]
    pub fn start(&self) -> A {
        self.start
    }

    /// The last address, which is in the range.
    #[inline]
    pub fn last(&self) -> A {
        A::new(self.start.raw() + (self.len.get() - 1))
    }

    /// Length in bytes; never 0.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a span is never empty")]
    pub fn len(&self) -> u64 {
        self.len.get()
    }

    /// Whether `addr` is in the range.
    #[inline]
    pub fn contains(&self, addr: A) -> bool {
        self.start <= addr && addr <= self.last()
    }

    /// The smallest range that covers both; `self` if that is the whole 64-bit space.
    pub(crate) fn hull(&self, other: &Self) -> Self {
        let (start, last) = (self.start.min(other.start), self.last().max(other.last()));
        Self::inclusive(start, last).unwrap_or(*self)
    }

    /// Whether all of `other` is in the range.
    #[inline]
    pub fn covers(&self, other: &Self) -> bool {
        self.start <= other.start && other.last() <= self.last()
    }

    /// The intersection of the two ranges; `None` if they do not overlap.
    #[inline]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        Self::inclusive(self.start.max(other.start), self.last().min(other.last()))
    }

    /// Whether the two have an address in common.
    #[inline]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.last() && other.start <= self.last()
    }

    /// The smallest range of whole 4 KiB granules that covers this one (decision 11); `None`
    /// if that is all of the 2^64 addresses.
    #[inline]
    pub fn rounded_out(&self) -> Option<Self> {
        let start = self.start.raw() & !(GRANULE - 1);
        let last = self.last().raw() | (GRANULE - 1);
        Self::inclusive(A::new(start), A::new(last))
    }

    /// Whether start and length are multiples of 4 KiB.
    #[inline]
    pub fn is_granular(&self) -> bool {
        (self.start.raw() | self.len.get()) & (GRANULE - 1) == 0
    }
}

impl<A: Address> fmt::Display for Span<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.start, self.last())
    }
}

impl<A: Address> fmt::Debug for Span<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span[{}, {}]", self.start, self.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::DeviceAddr;
    use proptest::prelude::*;

    fn span(start: u64, len: u64) -> Span<DeviceAddr> {
        Span::new(DeviceAddr(start), len).unwrap()
    }

    #[test]
    fn a_span_may_end_at_the_end_of_the_address_space_but_not_behind_it() {
        assert_eq!(span(u64::MAX - 4095, 4096).last().0, u64::MAX);
        assert_eq!(Span::new(DeviceAddr(u64::MAX - 4094), 4096), Err(Reason::Wraps));
        assert_eq!(Span::new(DeviceAddr(0), 0), Err(Reason::ZeroLength));
        assert_eq!(Span::inclusive(DeviceAddr(0), DeviceAddr(u64::MAX)), None);
    }

    #[test]
    fn rounding_out_covers_whole_granules_and_never_wraps() {
        assert_eq!(span(0x1fff, 2).rounded_out(), Some(span(0x1000, 0x2000)));
        assert_eq!(span(u64::MAX, 1).rounded_out(), Some(span(u64::MAX - 4095, 4096)));
        assert_eq!(span(1, u64::MAX).rounded_out(), None);
    }

    proptest! {
        #[test]
        fn intersection_is_what_both_contain(a in 0u64..64, al in 1u64..64, b in 0u64..64, bl in 1u64..64) {
            let (x, y) = (span(a, al), span(b, bl));
            let both: Vec<u64> =
                (0..256).filter(|&i| x.contains(DeviceAddr(i)) && y.contains(DeviceAddr(i))).collect();
            let got = x.intersection(&y);
            prop_assert_eq!(got.map(|s| s.start().0), both.first().copied());
            prop_assert_eq!(got.map(|s| s.last().0), both.last().copied());
            prop_assert_eq!(x.overlaps(&y), got.is_some());
            prop_assert_eq!(x.covers(&y), got == Some(y));
        }
    }
}
