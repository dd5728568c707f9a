//! Sizes and addresses as people write and read them.

/// The factors of 1024, largest first: suffix, unit, and how many bits.
const UNITS: [(char, &str, u32); 4] =
    [('T', "TiB", 40), ('G', "GiB", 30), ('M', "MiB", 20), ('K', "KiB", 10)];

/// A length: decimal or `0x` hexadecimal, with a suffix K, M, G or T for powers of 1024
/// (`64K`, `1G`, `1GiB`).
pub(crate) fn parse_length(text: &str) -> Result<u64, String> {
    let trimmed = text.trim_end_matches("iB");
    let unit = UNITS.iter().find(|unit| trimmed.to_ascii_uppercase().ends_with(unit.0));
    let (digits, bits) = match unit {
        Some(&(_, _, bits)) => (&trimmed[..trimmed.len() - 1], bits),
        None => (text, 0),
    };
    let number = parse_number(digits)?;
    let too_large = || format!("{text} is more than 64 bits can count");
    number.checked_mul(1 << bits).ok_or_else(too_large)
}

/// An address: `0x` hexadecimal or decimal, with the same suffixes as a length.
pub(crate) fn parse_address(text: &str) -> Result<u64, String> {
    parse_length(text)
}

fn parse_number(text: &str) -> Result<u64, String> {
    let text = text.replace('_', "");
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let number = match hex {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| {
        "expected a number such as 4096, 0x1000, 64K, 2M or 1G, of at most 64 bits".into()
    })
}

/// A length in the largest unit that it is long enough for: `2 MiB`, `1.5 GiB`.
pub(crate) fn length(bytes: u64) -> String {
    for (_, unit, bits) in UNITS {
        if bytes >> bits != 0 {
            #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
            let value = bytes as f64 / (1_u64 << bits) as f64;
            let exact = bytes.trailing_zeros() >= bits;
            return if exact { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") };
        }
    }
    format!("{bytes} B")
}

/// An address with all digits that a 40-bit one has, so that columns line up.
pub(crate) fn address(addr: u64) -> String {
    format!("{addr:#012x}")
}

/// A number with its thousands apart: `262,144`.
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
    fn lengths_are_read_in_decimal_and_hexadecimal_with_or_without_a_suffix() {
        for (text, value) in [
            ("0", 0),
            ("4096", 4096),
            ("0x1000", 4096),
            ("64K", 65536),
            ("64k", 65536),
            ("2M", 2 << 20),
            ("2MiB", 2 << 20),
            ("1G", 1 << 30),
            ("0x10K", 0x4000),
            ("1_000", 1000),
        ] {
            assert_eq!(parse_length(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for text in ["", "K", "1X", "-1", "0x", "1.5G", "99999999999G", "18446744073709551616"] {
            assert!(parse_length(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_are_shown_in_the_largest_unit_that_fits() {
        let shown = [0, 512, 4096, 1 << 20, 3 << 29, 1 << 40].map(length);
        assert_eq!(shown, ["0 B", "512 B", "4 KiB", "1 MiB", "1.5 GiB", "1 TiB"]);
        assert_eq!(count(1), "1");
        assert_eq!(count(262_144), "262,144");
    }
}
