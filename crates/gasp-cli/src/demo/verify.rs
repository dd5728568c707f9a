//! Checking a mapping against a second, independent mapping of the same memory.

use gasp::{Mapping, Result};

/// How many bytes at each end of a long mapping are written and read back.
const END: usize = 1 << 20;

/// Writes a pattern through the mapping, and returns whether it can be read back through
/// another mapping of the same memory.
pub(super) fn write_and_find(mapping: &Mapping, seed: u8) -> Result<bool> {
    for (at, len) in ends(mapping.len()) {
        mapping.write_at(at, &pattern(seed, at, len))?;
    }
    matches(mapping, |at, len| pattern(seed, at, len))
}

/// Whether the bytes read through the mapping and through another one of the same memory are
/// `expected`.
pub(super) fn read_and_compare(
    mapping: &Mapping,
    expected: impl Fn(usize, usize) -> Vec<u8>,
) -> Result<bool> {
    for (at, len) in ends(mapping.len()) {
        let mut seen = vec![0; len];
        mapping.read_at(at, &mut seen)?;
        if seen != expected(at, len) {
            return Ok(false);
        }
    }
    matches(mapping, expected)
}

/// The `len` bytes from `at` on of the pattern for `seed`. No two pages are alike, so that a
/// mapping of the wrong page is detected.
pub(super) fn pattern(seed: u8, at: usize, len: usize) -> Vec<u8> {
    let byte = |at: usize| {
        let mixed = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        (mixed as u8).wrapping_add(seed)
    };
    (at..at + len).map(byte).collect()
}

fn matches(mapping: &Mapping, expected: impl Fn(usize, usize) -> Vec<u8>) -> Result<bool> {
    let alias = mapping.object().alias()?;
    for (at, len) in ends(mapping.len()) {
        let mut found = vec![0; len];
        alias.read_at(mapping.object_offset() + at as u64, &mut found)?;
        if found != expected(at, len) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The parts of a mapping of `len` bytes that are checked: all of it, or both ends.
fn ends(len: usize) -> Vec<(usize, usize)> {
    match len.checked_sub(2 * END) {
        None => vec![(0, len)],
        Some(_) => vec![(0, END), (len - END, END)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_mapping_are_inside_it_and_do_not_overlap() {
        for len in [1, END, 2 * END - 1, 2 * END, 5 * END] {
            let parts = ends(len);
            let total: usize = parts.iter().map(|part| part.1).sum();
            assert!(parts.iter().all(|&(at, part)| at + part <= len), "{len:#x}");
            assert!(total == len || total == 2 * END);
        }
    }

    #[test]
    fn patterns_of_other_pages_and_other_seeds_differ() {
        assert_ne!(pattern(1, 0, 64), pattern(1, 4096, 64));
        assert_ne!(pattern(1, 0, 64), pattern(2, 0, 64));
        assert_eq!(pattern(1, 0, 64)[32..], pattern(1, 32, 32)[..]);
    }
}
