//! Numbers in a configuration file: bytes, addresses and counts.

use core::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

pub(super) use crate::bytes::Bytes;
use crate::memory::Contiguity;

/// Parses a number of the qvm language: decimal, with or without the prefix `0d`, or hexadecimal
/// with `0x`, and with or without one of the units K, M, G, T.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0d") {
        Some(decimal) if decimal.starts_with("0x") => None,
        Some(decimal) => Bytes::parse(decimal),
        None => Bytes::parse(text),
    }
    .map(|bytes| bytes.0)
}

/// A number of something other than bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Number(pub(super) u64);

/// The required contiguity of RAM: `"at least 16M"` or `"if possible 16M"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Contiguous(pub(super) Contiguity);

impl Contiguous {
    fn parse(text: &str) -> Option<Self> {
        let form = |prefix, form: fn(u64) -> Contiguity| {
            let Bytes(bytes) = Bytes::parse(text.strip_prefix(prefix)?)?;
            (bytes > 0).then(|| Self(form(bytes)))
        };
        form("at least ", Contiguity::AtLeast)
            .or_else(|| form("if possible ", Contiguity::IfPossible))
    }
}

impl<'de> Deserialize<'de> for Contiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ContiguousVisitor)
    }
}

struct ContiguousVisitor;

impl Visitor<'_> for ContiguousVisitor {
    type Value = Contiguous;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"at least SIZE\" or \"if possible SIZE\", such as \"at least 16M\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Contiguous, E> {
        Contiguous::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
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
            "bytes below 2^64: a number, or a string such as \"16M\" or \"0x1000\" (K, M, G, T)",
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

    #[test]
    fn contiguity_is_a_demand_or_a_wish() {
        let (least, wish) = (Contiguity::AtLeast(16 << 20), Contiguity::IfPossible(1 << 30));
        assert_eq!(Contiguous::parse("at least 16M"), Some(Contiguous(least)));
        assert_eq!(Contiguous::parse("if possible 1G"), Some(Contiguous(wish)));
        for text in ["16M", "at least", "at least  16M", "at least 0", "at most 16M", ""] {
            assert_eq!(Contiguous::parse(text), None, "{text}");
        }
    }
}
