//! The slices of a range.
#![allow(unsafe_code, reason = "lends guest memory as vm-memory's slices")]

use core::iter::FusedIterator;

use gasp::{Mapping, Piece};
use vm_memory::VolatileSlice;
use vm_memory::bitmap::{BS, Bitmap};
use vm_memory::guest_memory::{GuestMemorySliceIterator, Result};

/// The [slices](VolatileSlice) of a range, in order of address: one for each piece that is
/// consecutive in this process. They borrow from a [`Burst`](crate::Burst), which holds the
/// pieces. `P` is the iterator of a scatter map's pieces.
///
/// Its parts are words, of which none is borrowed: the compiler then keeps them in registers.
pub(crate) struct Slices<'a, B: Bitmap, P> {
    /// The start of the part of a page, and its length; 0 if it was returned, or there is none.
    pointer: *mut u8,
    len: usize,
    /// The pieces that are left of a longer range.
    pieces: Option<P>,
    /// The address of the next slice, in the requested range.
    addr: u64,
    bitmap: &'a B,
}

impl<'a, B: Bitmap, P: Iterator<Item = Piece<'a>>> Slices<'a, B, P> {
    /// Of `len` bytes at `addr`, at least one, which are at `offset` of a mapping and lie in it.
    #[inline]
    pub(crate) fn of_page(
        addr: u64,
        mapping: &'a Mapping,
        (offset, len): (usize, usize),
        bitmap: &'a B,
    ) -> Self {
        debug_assert!(offset + len <= mapping.len());
        let pointer = mapping.as_ptr().wrapping_add(offset).cast_mut();
        Self { pointer, len, pieces: None, addr, bitmap }
    }

    /// Of the pieces of a whole scatter map of the range at `addr`, if there are any.
    #[inline]
    pub(crate) fn of_range(addr: u64, pieces: Option<P>, bitmap: &'a B) -> Self {
        Self { pointer: core::ptr::null_mut(), len: 0, pieces, addr, bitmap }
    }

    #[inline]
    fn next_slice(&mut self) -> Option<VolatileSlice<'a, BS<'a, B>>> {
        let len = core::mem::take(&mut self.len);
        if len == 0 {
            let (slice, pieces) = Self::next_of(self.pieces.take()?, self.addr, self.bitmap)?;
            self.addr = self.addr.wrapping_add(slice.len() as u64);
            self.pieces = Some(pieces);
            return Some(slice);
        }
        let dirty = self.bitmap.slice_at(self.addr as usize);
        // SAFETY: `with_bitmap` asks that the memory is `len` bytes long, which the mapping has
        // from `offset` on: the range lies in its page, and `Burst::map_page` keeps only mappings
        // of whole pages; that it is available for the slice's lifetime, in which the mapping is
        // borrowed, and a mapping keeps its memory mapped, for reading and writing as
        // `check_lendable` found, while it lives; and that all other users of it use volatile
        // accesses: the engine's are atomic, and there is no reference to the memory. Those of
        // other slices are vm-memory's own, of which copies of more than 8 bytes are neither, as
        // over any of its memories: what two of them, or one and the guest, do to the same bytes
        // at once rests on what a machine's copy does, which is to move some bytes or others.
        Some(unsafe { VolatileSlice::with_bitmap(self.pointer, len, dirty, None) })
    }

    /// The slice of the next piece, and the pieces after it.
    #[cold]
    #[inline(never)]
    fn next_of(
        mut pieces: P,
        addr: u64,
        bitmap: &'a B,
    ) -> Option<(VolatileSlice<'a, BS<'a, B>>, P)> {
        let piece = pieces.next()?;
        let dirty = bitmap.slice_at(addr as usize);
        let pointer = piece.as_ptr().cast_mut();
        // SAFETY: `with_bitmap` asks that the memory is that long, and a piece has `len` bytes
        // from its pointer on; that it is available for the slice's lifetime, for which the
        // scatter map is borrowed, which keeps its pieces mapped while it lives; and that all
        // other users use volatile accesses: as for a page, and within the same limit.
        let slice = unsafe { VolatileSlice::with_bitmap(pointer, piece.len(), dirty, None) };
        Some((slice, pieces))
    }
}

impl<'a, B: Bitmap, P: Iterator<Item = Piece<'a>>> Iterator for Slices<'a, B, P> {
    type Item = Result<VolatileSlice<'a, BS<'a, B>>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.next_slice().map(Ok)
    }
}

impl<'a, B: Bitmap, P: Iterator<Item = Piece<'a>>> FusedIterator for Slices<'a, B, P> {}

impl<'a, B: Bitmap, P: Iterator<Item = Piece<'a>>> GuestMemorySliceIterator<'a, BS<'a, B>>
    for Slices<'a, B, P>
{
    /// The slices alone: whatever is refused is refused before there are any.
    #[inline]
    fn stop_on_error(mut self) -> Result<impl Iterator<Item = VolatileSlice<'a, BS<'a, B>>>> {
        Ok(core::iter::from_fn(move || self.next_slice()))
    }
}
