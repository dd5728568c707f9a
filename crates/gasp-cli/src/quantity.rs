//! Sizes, addresses, counts and times: parsing and formatting.

use std::time::Duration;

use gasp::{Access, Bytes};

/// Parses a length: decimal or `0x` hexadecimal, with a suffix K, M, G or T for powers of 1024
/// (`64K`, `1G`, `1GiB`).
pub(crate) fn parse_length(text: &str) -> Result<u64, String> {
    let expected = || {
        "expected a number such as 4096, 0x1000, 64K, 2M or 1G (powers of 1024), of at most 64 bits"
            .into()
    };
    Bytes::parse(text).map(|bytes| bytes.0).ok_or_else(expected)
}

/// Parses a length that is not 0.
pub(crate) fn parse_some_length(text: &str) -> Result<u64, String> {
    match parse_length(text)? {
        0 => Err("expected at least one byte".into()),
        len => Ok(len),
    }
}

/// Parses an address: `0x` hexadecimal or decimal, with the same suffixes as a length.
pub(crate) fn parse_address(text: &str) -> Result<u64, String> {
    parse_length(text)
}

/// Parses at least one kind of access: `r`, `w`, `x`, `rw`.
pub(crate) fn parse_access(text: &str) -> Result<Access, String> {
    let access = Access::parse(text).filter(|access| !access.is_empty());
    access.ok_or_else(|| "expected r, w, x or several of them, such as rw".into())
}

/// Parses a time in seconds, which may have a fraction.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "expected a number of seconds, such as 60 or 0.5".into())
}

/// Parses the interval between two rounds of work; it must leave the processor to others, too.
pub(crate) fn parse_pause(text: &str) -> Result<Duration, String> {
    let pause = parse_seconds(text)?;
    match pause >= Duration::from_millis(10) {
        true => Ok(pause),
        false => Err("expected at least 0.01 seconds".into()),
    }
}

/// Formats a length: `2 MiB`, `1.5 GiB`.
pub(crate) fn length(bytes: u64) -> String {
    Bytes(bytes).to_string()
}

/// Formats an address, as the engine's messages do. Columns of addresses are aligned right.
pub(crate) fn address(addr: u64) -> String {
    format!("{addr:#x}")
}

/// Formats a number of things: `1 run`, `1,024 runs`.
pub(crate) fn several(number: usize, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {one}{plural}", count(number))
}

/// Formats a number with separators of thousands: `262,144`.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators_of_thousands_and_nouns() {
        assert_eq!([1, 999, 1000, 262_144].map(count), ["1", "999", "1,000", "262,144"]);
        let runs = [0, 1, 1024].map(|number| several(number, "more run"));
        assert_eq!(runs, ["0 more runs", "1 more run", "1,024 more runs"]);
    }

    #[test]
    fn a_wrong_length_is_refused_with_what_was_expected() {
        assert_eq!(parse_length("64K"), Ok(65536));
        assert!(parse_some_length("0").is_err() && parse_some_length("1") == Ok(1));
        assert!(parse_length("1.5G").is_err_and(|why| why.contains("64K")));
    }

    #[test]
    fn wrong_access_and_seconds_are_refused() {
        assert_eq!(parse_access("rw"), Ok(Access::RW));
        assert!(["", "-", "q", "rwz"].into_iter().all(|text| parse_access(text).is_err()));
        let short = ["0", "1e-9", "0.009"];
        assert!(short.into_iter().all(|text| parse_pause(text).is_err()));
        assert_eq!(parse_pause("0.01"), Ok(Duration::from_millis(10)));
        let wrong = ["", "-1", "x", "NaN", "1e300"];
        assert!(wrong.into_iter().all(|text| parse_seconds(text).is_err()));
    }
}
