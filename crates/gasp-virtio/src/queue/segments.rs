//! The buffers of a chain, as one sequence of bytes.

use gasp::DeviceAddr;
use gasp_disk::Part;
use gasp_vdev::{DeviceContext, DmaError};
use smallvec::SmallVec;
use thiserror::Error;

/// Buffers of a chain in order, as one sequence of bytes. A header may be split over several of
/// them in any way (virtio 1.2, 2.7.4: the framing of messages is the driver's choice).
#[derive(Clone, Debug, Default)]
pub struct Segments {
    parts: SmallVec<[Part; 4]>,
    len: u64,
}

/// Why bytes of a chain cannot be accessed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// There are fewer bytes.
    #[error("the buffers have {have} bytes, and {end} are needed")]
    Short {
        /// How many bytes there are.
        have: u64,
        /// How many are needed.
        end: u64,
    },
    /// The guest's IOMMU, or its memory, does not allow it.
    #[error(transparent)]
    Refused(#[from] DmaError),
}

impl Segments {
    /// Adds a buffer. An empty one adds nothing.
    pub(super) fn push(&mut self, addr: u64, len: u32) {
        if len > 0 {
            self.parts.push(Part { addr, len: len.into() });
            // At most 2^16 buffers of less than 2^32 bytes.
            self.len += u64::from(len);
        }
    }

    /// The number of bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts of `[offset, offset + len)`, as far as there are any.
    pub fn range(&self, offset: u64, len: u64) -> impl Iterator<Item = Part> {
        let (mut skip, mut left) = (offset, len);
        self.parts.iter().filter_map(move |part| {
            let skipped = skip.min(part.len);
            skip -= skipped;
            let len = (part.len - skipped).min(left);
            left -= len;
            // A range past the end of all addresses is refused where it is mapped.
            (len > 0).then_some(Part { addr: part.addr.wrapping_add(skipped), len })
        })
    }

    /// Copies bytes out of the guest, from `offset` on.
    ///
    /// # Errors
    /// If there are fewer, or the guest does not allow it.
    pub fn read(
        &self,
        context: &DeviceContext,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), SegmentError> {
        self.check(offset, into.len())?;
        let mut rest = into;
        for Part { addr, len } in self.range(offset, rest.len() as u64) {
            let part = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let (part, after) = core::mem::take(&mut rest).split_at_mut(part);
            context.read(DeviceAddr(addr), part)?;
            rest = after;
        }
        Ok(())
    }

    /// Copies bytes into the guest, from `offset` on.
    ///
    /// # Errors
    /// If there is room for fewer, or the guest does not allow it.
    pub fn write(
        &self,
        context: &DeviceContext,
        offset: u64,
        from: &[u8],
    ) -> Result<(), SegmentError> {
        self.check(offset, from.len())?;
        let mut rest = from;
        for Part { addr, len } in self.range(offset, rest.len() as u64) {
            let part = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let (part, after) = rest.split_at(part);
            context.write(DeviceAddr(addr), part)?;
            rest = after;
        }
        Ok(())
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), SegmentError> {
        let end = offset.saturating_add(len as u64);
        if end > self.len { Err(SegmentError::Short { have: self.len, end }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_out_of_the_buffers_that_it_touches() {
        let mut all = Segments::default();
        for (addr, len) in [(100, 4), (900, 0), (200, 8), (u64::MAX - 1, 8)] {
            all.push(addr, len);
        }
        assert_eq!((all.len(), all.is_empty()), (20, false));
        let range = |offset, len| {
            all.range(offset, len).map(|part| (part.addr, part.len)).collect::<Vec<_>>()
        };
        assert_eq!(range(0, 20), [(100, 4), (200, 8), (u64::MAX - 1, 8)]);
        assert_eq!(range(3, 2), [(103, 1), (200, 1)]);
        assert_eq!(range(4, 8), [(200, 8)]);
        assert_eq!(range(15, 100), [(1, 5)]);
        assert_eq!(range(20, 1), []);
        assert_eq!(range(u64::MAX, u64::MAX), []);
        assert_eq!(range(0, 0), []);
        assert_eq!(all.check(1, 20), Err(SegmentError::Short { have: 20, end: 21 }));
        assert!(all.check(u64::MAX, 2).is_err() && all.check(20, 0).is_ok());
    }
}
