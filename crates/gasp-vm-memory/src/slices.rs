//! The slices of a range.
#![allow(unsafe_code, reason = "lends guest memory as vm-memory's slices")]

use core::iter::FusedIterator;

use gasp::{Mapping, Scatter};
use vm_memory::VolatileSlice;
use vm_memory::bitmap::{BS, Bitmap};
use vm_memory::guest_memory::{GuestMemorySliceIterator, Result};

/// The [slices](VolatileSlice) of a range, in order of address: one for each piece that is
/// consecutive in this process. They borrow from a [`Burst`](crate::Burst), which holds the
/// pieces.
pub(crate) struct Slices<'a, B: Bitmap> {
    /// What the next slice is of.
    next: Next<'a>,
    bitmap: &'a B,
}

/// What is left of a range.
enum Next<'a> {
    /// A part of one page.
    Page {
        mapping: &'a Mapping,
        offset: usize,
        len: usize,
    },
    /// The pieces of a longer range, from an index on.
    Pieces {
        scatter: &'a Scatter,
        index: usize,
    },
    Nothing,
}

impl<'a, B: Bitmap> Slices<'a, B> {
    /// Of an empty range.
    pub(crate) fn none(bitmap: &'a B) -> Self {
        Self { next: Next::Nothing, bitmap }
    }

    /// Of `len` bytes at `offset` of a mapping, at least one, which lie in it.
    #[inline]
    pub(crate) fn of_page(mapping: &'a Mapping, offset: usize, len: usize, bitmap: &'a B) -> Self {
        debug_assert!(offset + len <= mapping.len());
        Self { next: Next::Page { mapping, offset, len }, bitmap }
    }

    /// Of a whole scatter map.
    pub(crate) fn of_range(scatter: &'a Scatter, bitmap: &'a B) -> Self {
        Self { next: Next::Pieces { scatter, index: 0 }, bitmap }
    }

    /// The next piece of a scatter map.
    fn next_piece(
        &mut self,
        scatter: &'a Scatter,
        index: usize,
    ) -> Option<VolatileSlice<'a, BS<'a, B>>> {
        let Some(piece) = scatter.pieces().nth(index) else {
            self.next = Next::Nothing;
            return None;
        };
        self.next = Next::Pieces { scatter, index: index + 1 };
        let dirty = self.bitmap.slice_at(piece.device_addr().0 as usize);
        let pointer = piece.as_ptr().cast_mut();
        // SAFETY: `with_bitmap` asks that the memory is that long, and a piece has `len` bytes
        // from its pointer on; that it is available for the slice's lifetime, for which the
        // scatter map is borrowed, which keeps its pieces mapped while it lives; and that all
        // other users use volatile accesses: as for a page.
        Some(unsafe { VolatileSlice::with_bitmap(pointer, piece.len(), dirty, None) })
    }

    #[inline]
    fn next_slice(&mut self) -> Option<VolatileSlice<'a, BS<'a, B>>> {
        let (mapping, offset, len) = match self.next {
            Next::Page { mapping, offset, len } => (mapping, offset, len),
            Next::Pieces { scatter, index } => return self.next_piece(scatter, index),
            Next::Nothing => return None,
        };
        self.next = Next::Nothing;
        let dirty = self.bitmap.slice_at((mapping.device_addr().0 as usize).wrapping_add(offset));
        let pointer = mapping.as_ptr().wrapping_add(offset).cast_mut();
        // SAFETY: `with_bitmap` asks that the memory is `len` bytes long, which the mapping has
        // from `offset` on; that it is available for the slice's lifetime, in which the mapping
        // is borrowed, and a mapping keeps its memory mapped while it lives; and that all other
        // users of it use volatile accesses: this process reaches guest memory only by the
        // engine's atomic and volatile copies, and the guest is outside of it.
        Some(unsafe { VolatileSlice::with_bitmap(pointer, len, dirty, None) })
    }
}

impl<'a, B: Bitmap> Iterator for Slices<'a, B> {
    type Item = Result<VolatileSlice<'a, BS<'a, B>>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.next_slice().map(Ok)
    }
}

impl<B: Bitmap> FusedIterator for Slices<'_, B> {}

impl<'a, B: Bitmap> GuestMemorySliceIterator<'a, BS<'a, B>> for Slices<'a, B> {
    /// The slices alone: whatever is refused is refused before there are any.
    #[inline]
    fn stop_on_error(mut self) -> Result<impl Iterator<Item = VolatileSlice<'a, BS<'a, B>>>> {
        Ok(core::iter::from_fn(move || self.next_slice()))
    }
}
