//! The text of a thread's last failure.
//!
//! It is in a buffer that belongs to the thread and has no destructor: a pointer to it is valid
//! as long as the thread exists, even while the thread ends and its other thread-local data is
//! destroyed. A later failure overwrites the text in place: a pointer that is kept leads to a
//! later text at worst.

use core::cell::Cell;
use core::ffi::c_char;
use core::fmt::{self, Write as _};

/// The size of the buffer: the longest text and its NUL.
pub(crate) const TEXT_MAX: usize = 1024;
/// The end of a text that was cut.
const CUT: &str = "...";

thread_local! {
    // Without a destructor, thread-local data is not destroyed before its thread has ended.
    static TEXT: [Cell<u8>; TEXT_MAX] = const { [const { Cell::new(0) }; TEXT_MAX] };
}

/// Sets the text for [`pointer()`].
pub(crate) fn set(text: &dyn fmt::Display) {
    TEXT.with(|bytes| {
        let mut writer = Writer { bytes, len: 0, cut: false };
        // An error means that the text was cut, or that its own `Display` has failed.
        let _ = write!(writer, "{text}");
        writer.finish();
    });
}

/// The text, with a NUL at its end; empty before the first failure.
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

/// Writes as many whole characters into the buffer as fit.
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
        // All of the rest, so that nothing of an older text remains.
        self.bytes.iter().skip(self.len).for_each(|place| place.set(0));
    }
}

impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            // A NUL would end the text for C.
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
