//! Sizes in the notation of people.

use core::fmt;

/// A number of bytes, or an address, in the notation of configuration files, arguments and
/// messages.
///
/// Prints in the largest unit that fits: exactly if one decimal or a smaller unit is enough
/// (`1.5 GiB`, `2052 KiB`, `5000 bytes`), else rounded (`about 2.3 GiB`), with the exact
/// number before it in the alternate form (`{:#}`).
///
/// ```
/// use gasp::Bytes;
/// assert_eq!(Bytes(3 << 29).to_string(), "1.5 GiB");
/// assert_eq!(format!("{:#}", Bytes(500_000_001)), "500000001 bytes (about 476.8 MiB)");
/// assert_eq!(Bytes::parse("0x10K"), Some(Bytes(0x4000)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Bytes(pub u64);

/// The units, smallest first: letter, name, and the number of bits to shift by.
const UNITS: [(char, &str, u32); 4] =
    [('K', "KiB", 10), ('M', "MiB", 20), ('G', "GiB", 30), ('T', "TiB", 40)];

/// Below this, a number that is not round in any unit is printed in bytes.
const FEW: u64 = 64 << 10;
/// The largest number of a smaller unit that is easily read.
const READABLE: u64 = 99_999;

impl Bytes {
    /// Parses `4096`, `0x1000`, `16M`, `0x10k`, `1GiB`, `1_000`: decimal or hexadecimal, with
    /// or without one of the units K, M, G, T, which are powers of 1024. Returns `None` if the
    /// text is no such number, or the number is 2^64 or more.
    pub fn parse(text: &str) -> Option<Self> {
        let short = text.strip_suffix("iB").unwrap_or(text);
        let unit = |&(letter, _, shift): &(char, &str, u32)| {
            let number = short.strip_suffix([letter, letter.to_ascii_lowercase()])?;
            Some((number, shift))
        };
        // "iB" is a suffix only after a unit.
        let (number, shift) = UNITS.iter().find_map(unit).unwrap_or((text, 0));
        let (digits, radix) = match number.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None => (number, 10),
        };
        // The standard library would also accept a sign.
        if !digits.starts_with(|first: char| first.is_digit(radix)) {
            return None;
        }
        let digits = digits.replace('_', "");
        u64::from_str_radix(&digits, radix).ok()?.checked_mul(1 << shift).map(Self)
    }

    /// The number in tenths of a unit, if that is whole.
    fn tenths(self, shift: u32) -> Option<u128> {
        let tenths = u128::from(self.0) * 10;
        (tenths.trailing_zeros() >= shift).then_some(tenths >> shift)
    }

    /// The exact text, if one is easily read.
    fn exact(self) -> Option<String> {
        let fits = UNITS.iter().rev().find(|(.., shift)| self.0 >> shift != 0);
        let Some(&(_, name, shift)) = fits else {
            return Some(if self.0 == 1 { "1 byte".into() } else { format!("{} bytes", self.0) });
        };
        if let Some(tenths) = self.tenths(shift) {
            return Some(in_tenths(tenths, name));
        }
        let smaller = UNITS.iter().rev().filter(|&&(.., smaller)| smaller < shift);
        let mut whole = smaller.filter(|(.., shift)| self.0.trailing_zeros() >= *shift);
        match whole.next() {
            Some((_, name, shift)) if self.0 >> shift <= READABLE => {
                Some(format!("{} {name}", self.0 >> shift))
            }
            _ if self.0 < FEW => Some(format!("{} bytes", self.0)),
            _ => None,
        }
    }

    /// The text rounded to a tenth of the largest unit that fits.
    fn rounded(self) -> String {
        let tenths = |shift: u32| (u128::from(self.0) * 10 + (1 << (shift - 1))) >> shift;
        let [(_, name, smallest), ..] = UNITS;
        // A number that rounds to 1024 of a unit is 1 of the next.
        let fits = UNITS.iter().rev().find(|(.., shift)| tenths(*shift) >= 10);
        fits.map_or_else(
            || in_tenths(tenths(smallest), name),
            |(_, name, shift)| in_tenths(tenths(*shift), name),
        )
    }
}

fn in_tenths(tenths: u128, unit: &str) -> String {
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        rest => format!("{}.{rest} {unit}", tenths / 10),
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exact() {
            Some(exact) => f.pad(&exact),
            None if f.alternate() => write!(f, "{} bytes (about {})", self.0, self.rounded()),
            None => f.pad(&format!("about {}", self.rounded())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("0x1000", 4096),
            ("4k", 4096),
            ("0x10K", 0x4000),
            ("1_000", 1000),
            ("2M", 2 << 20),
            ("2MiB", 2 << 20),
            ("1G", 1 << 30),
            ("3T", 3 << 40),
            ("0xffffffffffffffff", u64::MAX),
        ] {
            assert_eq!(Bytes::parse(text), Some(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "K",
            "iB",
            "1iB",
            "-1",
            "+1",
            " 1",
            "1 K",
            "1GB",
            "1.5G",
            "0x",
            "x10",
            "_1",
            "1Z",
            "0b1",
            "18446744073709551616",
            "16777216T",
            "0X10",
            "١",
        ] {
            assert_eq!(Bytes::parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_printed_exactly_where_that_is_short_and_rounded_otherwise() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (512, "512 bytes"),
            (4096, "4 KiB"),
            (5000, "5000 bytes"),
            (1280, "1280 bytes"),
            (1536, "1.5 KiB"),
            (1 << 20, "1 MiB"),
            ((2 << 20) + 4096, "2052 KiB"),
            (3 << 29, "1.5 GiB"),
            (1 << 40, "1 TiB"),
            (500 << 30, "500 GiB"),
            ((512 << 20) + 1, "about 512 MiB"),
            ((1 << 30) - 1, "about 1 GiB"),
            ((1 << 20) - 1, "about 1 MiB"),
            (u64::MAX, "about 16777216 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text, "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn every_number_reads_back(value: u64, unit in 0..5usize) {
            let (letter, shift) =
                UNITS.get(unit).map_or((String::new(), 0), |&(l, _, s)| (l.to_string(), s));
            let want = value.checked_mul(1 << shift).map(Bytes);
            prop_assert_eq!(Bytes::parse(&format!("{value}{letter}")), want);
            prop_assert_eq!(Bytes::parse(&format!("{value:#x}{letter}")), want);
        }

        #[test]
        fn what_is_printed_as_exact_is(value: u64, shift in 0..64u32) {
            let bytes = Bytes(value >> shift);
            let text = bytes.to_string();
            let Some((number, unit)) = text.split_once(' ') else { return Ok(()) };
            prop_assume!(number != "about" && !number.contains('.'));
            let shift = UNITS.iter().find(|(_, name, _)| *name == unit).map_or(0, |unit| unit.2);
            prop_assert_eq!(number.parse::<u64>().unwrap() << shift, bytes.0);
        }
    }
}
