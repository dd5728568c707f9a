//! The part of a buffer that is in use.

use core::ops::Range;

/// The part of a buffer that is in use: `[begin, end)` of `size` bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Window {
    pub(crate) size: usize,
    pub(crate) begin: usize,
    pub(crate) end: usize,
}

impl Window {
    /// An empty one.
    pub(crate) fn new(size: usize) -> Self {
        Self { size, begin: 0, end: 0 }
    }

    /// The bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.end.saturating_sub(self.begin)
    }

    /// The bytes that are free, before and after the part in use.
    pub(crate) fn free(&self) -> usize {
        self.size.saturating_sub(self.used())
    }

    /// The range in use.
    pub(crate) fn taken(&self) -> Range<usize> {
        self.begin..self.begin + self.used()
    }

    /// The range after the part in use.
    pub(crate) fn room(&self) -> Range<usize> {
        self.end.min(self.size)..self.size
    }

    /// What has to be moved to the start of the buffer so that `wanted` bytes fit after it, as far
    /// as they can fit at all; empty if they do already.
    pub(crate) fn compact(&mut self, wanted: usize) -> Range<usize> {
        let before = self.taken();
        if self.room().len() >= wanted.min(self.free()) {
            return 0..0;
        }
        *self = Self { size: self.size, begin: 0, end: before.len() };
        before
    }

    /// Adds bytes after those in use, as far as there is room.
    pub(crate) fn added(&mut self, bytes: usize) {
        self.end = self.end.saturating_add(bytes).min(self.size);
    }

    /// Removes the first bytes of those in use.
    pub(crate) fn removed(&mut self, bytes: usize) {
        self.begin += bytes.min(self.used());
        if self.begin >= self.end {
            (self.begin, self.end) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_moved_only_if_those_to_come_do_not_fit_after_them() {
        let mut window = Window { size: 8, begin: 3, end: 6 };
        assert_eq!((window.used(), window.free(), window.room()), (3, 5, 6..8));
        assert_eq!(window.compact(2), 0..0);
        assert_eq!(window.compact(3), 3..6);
        assert_eq!(window, Window { size: 8, begin: 0, end: 3 });
        // More than ever fit: what there is of room is at the end already.
        assert_eq!(window.compact(usize::MAX), 0..0);
        assert_eq!(window.room(), 3..8);
    }

    #[test]
    fn an_empty_window_begins_at_the_start_again() {
        let mut window = Window { size: 8, begin: 3, end: 6 };
        window.removed(2);
        assert_eq!(window.taken(), 5..6);
        window.removed(9);
        assert_eq!(window, Window::new(8));
    }

    #[test]
    fn it_never_exceeds_its_buffer() {
        let mut window = Window::new(4);
        window.added(usize::MAX);
        assert_eq!((window.used(), window.free(), window.room()), (4, 0, 4..4));
        assert_eq!(window.compact(1), 0..0);
        let mut none = Window::new(0);
        none.added(3);
        assert_eq!((none.used(), none.free(), none.compact(3)), (0, 0, 0..0));
    }
}
