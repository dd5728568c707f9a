//! Guest memory mapped once more, at other addresses.

use rustix::param::page_size;

use crate::access::Access;
use crate::error::Reason;
use crate::memory::MemoryObject;
use crate::memory::window::Window;

/// A range of a memory object: the object, the offset and the length in bytes.
pub(super) type ObjectRange<'a> = (&'a MemoryObject, u64, usize);

/// Ranges of memory objects, mapped side by side between two inaccessible guard pages. The memory
/// is the guest's, not a copy.
pub(super) struct Remap {
    window: Window,
    /// The offset of the first byte in the window.
    start: usize,
}

impl Remap {
    /// Maps the ranges, at least one, with `access` as the protection of their pages. Each guard
    /// page is as large as the largest page of a range.
    pub(super) fn new(ranges: &[ObjectRange<'_>], access: Access) -> Result<Self, Reason> {
        let unit = ranges.iter().map(|(object, ..)| object.page_size()).max();
        let unit = unit.unwrap_or(page_size());
        let head = ranges.first().map_or(0, |(_, offset, _)| offset % unit as u64) as usize;
        let len = ranges.iter().try_fold(head, |sum, &(.., len)| sum.checked_add(len));
        let total = len.and_then(|len| len.checked_next_multiple_of(unit)?.checked_add(2 * unit));
        let mut window = Window::reserve(total.ok_or(Reason::Wraps)?, unit)?;
        let mut window_offset = unit;
        let last = ranges.len().saturating_sub(1);
        for (index, &(object, offset, len)) in ranges.iter().enumerate() {
            let skip = offset % unit as u64;
            let len = len + skip as usize;
            if (index > 0 && skip != 0) || (index < last && !len.is_multiple_of(unit)) {
                return Err(Reason::Invalid(
                    "pieces can be mapped side by side only in whole pages of their backing",
                ));
            }
            let len = len.next_multiple_of(unit);
            // The last range may end inside a page that is larger than its object's.
            let start = offset - skip;
            let pages = (start, (len as u64).min(object.len() - start));
            object.map_into(&mut window, window_offset, pages, access)?;
            window_offset += len;
        }
        Ok(Self { window, start: unit + head })
    }

    /// The address of the first byte.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.window.base().wrapping_add(self.start)
    }
}
