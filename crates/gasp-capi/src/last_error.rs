//! The text of a thread's last failure.
//!
//! It is written into a buffer that belongs to the thread and has no destructor: a pointer
//! to it is good for as long as the thread lives, also while the thread ends and its other
//! thread-local data are gone. A later failure overwrites the text in place, so whoever keeps
//! the pointer reads a later text at worst.

use core::cell::Cell;
use core::ffi::c_char;
use core::fmt::{self, Write as _};

/// How long a text can be, with its NUL.
pub(crate) const TEXT_MAX: usize = 1024;
/// What a text ends in that was longer.
const CUT: &str = "...";

thread_local! {
    // Bytes that are dropped in no way: such data is never destroyed before its thread is.
    static TEXT: [Cell<u8>; TEXT_MAX] = const { [const { Cell::new(0) }; TEXT_MAX] };
}

/// Keeps a text for [`pointer()`].
pub(crate) fn set(text: &dyn fmt::Display) {
    TEXT.with(|bytes| {
        let mut writer = Writer { bytes, len: 0, cut: false };
        // An error is a text that is cut, or one that does not know what it says.
        let _ = write!(writer, "{text}");
        writer.finish();
    });
}

/// The text, which ends in a NUL; empty before the first failure.
pub(crate) fn pointer() -> *const c_char {
    TEXT.with(|bytes| bytes.as_ptr().cast())
}

/// A copy of the text.
pub(crate) fn copy() -> String {
    TEXT.with(|bytes| {
        let text = bytes.iter().map(Cell::get).take_while(|&byte| byte != 0);
        String::from_utf8_lossy(&text.collect::<Vec<u8>>()).into_owned()
    })
}

/// Fills the buffer with as many whole characters as fit.
struct Writer<'text> {
    bytes: &'text [Cell<u8>; TEXT_MAX],
    len: usize,
    cut: bool,
}

impl Writer<'_> {
    fn put(&mut self, text: &str) {
        let places = self.bytes.iter().skip(self.len);
        places.zip(text.bytes()).for_each(|(place, byte)| place.set(byte));
        self.len += text.len();
    }

    fn finish(mut self) {
        if self.cut {
            self.put(CUT);
        }
        // Everything behind the text, so that no old text shows.
        self.bytes.iter().skip(self.len).for_each(|place| place.set(0));
    }
}

impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            // C would take a NUL for the end.
            let char = if char == '\0' { ' ' } else { char };
            if self.len + char.len_utf8() + CUT.len() >= TEXT_MAX {
                self.cut = true;
                return Err(fmt::Error);
            }
            self.put(char.encode_utf8(&mut [0; 4]));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_replaces_a_longer_one_in_its_place() {
        let there = pointer();
        set(&"a longer text");
        set(&"short\0er");
        assert_eq!((copy().as_str(), pointer()), ("short er", there));
    }

    #[test]
    fn a_text_that_does_not_fit_is_cut_between_characters_and_says_so() {
        for long in ["e".repeat(TEXT_MAX), "é".repeat(TEXT_MAX), "e\u{1f600}".repeat(TEXT_MAX)] {
            set(&long);
            let text = copy();
            let kept = text.strip_suffix(CUT).unwrap();
            assert!(long.starts_with(kept));
            assert!((TEXT_MAX - CUT.len() - 4..TEXT_MAX).contains(&text.len()), "{}", text.len());
        }
        set(&"e".repeat(TEXT_MAX - CUT.len() - 1));
        assert_eq!(copy().len(), TEXT_MAX - CUT.len() - 1, "what fits is not cut");
    }
}
