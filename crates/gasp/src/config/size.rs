//! Numbers in a configuration file: bytes, addresses and counts.

use core::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use crate::memory::Contiguity;

/// A length or an address in bytes: a number, or a text with a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bytes(pub(super) u64);

/// A number of anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Number(pub(super) u64);

/// The units, as the number of bits to shift by.
const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

impl Bytes {
    /// Reads `4096`, `0x1000`, `16M`, `0x10k`; `None` where it is none, or is more than
    /// 64 bits hold.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let unit = |&(letter, shift): &(char, u32)| {
            let number = text.strip_suffix([letter, letter.to_ascii_lowercase()])?;
            Some((number, shift))
        };
        let (number, shift) = UNITS.iter().find_map(unit).unwrap_or((text, 0));
        let (digits, radix) = match number.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None => (number, 10),
        };
        // The standard library would take a sign, too.
        if !digits.starts_with(|first: char| first.is_digit(radix)) {
            return None;
        }
        let digits = digits.replace('_', "");
        u64::from_str_radix(&digits, radix).ok()?.checked_mul(1 << shift).map(Self)
    }
}

/// How host-contiguous memory is to be: `"at least 16M"` or `"if possible 16M"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted(pub(super) Contiguity);

impl Wanted {
    fn parse(text: &str) -> Option<Self> {
        let form = |prefix, form: fn(u64) -> Contiguity| {
            let Bytes(bytes) = Bytes::parse(text.strip_prefix(prefix)?)?;
            (bytes > 0).then(|| Self(form(bytes)))
        };
        form("at least ", Contiguity::AtLeast)
            .or_else(|| form("if possible ", Contiguity::IfPossible))
    }
}

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(WantedVisitor)
    }
}

struct WantedVisitor;

impl Visitor<'_> for WantedVisitor {
    type Value = Wanted;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"at least SIZE\" or \"if possible SIZE\", such as \"at least 16M\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Wanted, E> {
        Wanted::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "bytes below 2^64: a number, or a text such as \"16M\" or \"0x1000\" (K, M, G, T)",
        )
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Bytes, E> {
        Ok(Bytes(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Bytes, E> {
        let wrong = |_| E::invalid_value(Unexpected::Signed(value), &self);
        u64::try_from(value).map(Bytes).map_err(wrong)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
        Bytes::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0 on")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
        Ok(Number(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
        let wrong = |_| E::invalid_value(Unexpected::Signed(value), &self);
        u64::try_from(value).map(Number).map_err(wrong)
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
    fn contiguity_is_a_demand_or_a_wish() {
        let (least, wish) = (Contiguity::AtLeast(16 << 20), Contiguity::IfPossible(1 << 30));
        assert_eq!(Wanted::parse("at least 16M"), Some(Wanted(least)));
        assert_eq!(Wanted::parse("if possible 1G"), Some(Wanted(wish)));
        for text in ["16M", "at least", "at least  16M", "at least 0", "at most 16M", ""] {
            assert_eq!(Wanted::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_number_reads_back(value: u64, unit in 0..5usize) {
            let (letter, shift) =
                UNITS.get(unit).map_or((String::new(), 0), |&(l, s)| (l.to_string(), s));
            let want = value.checked_mul(1 << shift).map(Bytes);
            prop_assert_eq!(Bytes::parse(&format!("{value}{letter}")), want);
            prop_assert_eq!(Bytes::parse(&format!("{value:#x}{letter}")), want);
        }
    }
}
