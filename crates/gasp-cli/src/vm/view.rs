//! Counters as a table for people.

use core::fmt::Write;
use core::time::Duration;

use super::event::Totals;
use crate::quantity::count;

/// The table of `now`, with what has been added since `before`, which was `elapsed` ago.
pub(super) fn table(before: &Totals, now: &Totals, elapsed: Duration) -> String {
    let mut text = String::new();
    let mut line = |name: &str, [port, mmio, interrupted, other]: [String; 4]| {
        // A string takes everything.
        let _ = writeln!(text, "{name:16} {port:>14} {mmio:>14} {interrupted:>14} {other:>14}");
    };
    line("exits", ["port", "mmio", "interrupted", "other"].map(Into::into));
    let (was, is) = (before.exits, now.exits);
    line("  total", [is.port, is.mmio, is.interrupted, is.other].map(number));
    let rates = [
        (is.port, was.port),
        (is.mmio, was.mmio),
        (is.interrupted, was.interrupted),
        (is.other, was.other),
    ];
    line("  per second", rates.map(|(is, was)| rate(is, was, elapsed)));
    if !now.devices.is_empty() {
        line("devices", ["misses", "per second", "invalidations", "held"].map(Into::into));
    }
    for device in &now.devices {
        let earlier = before.devices.iter().find(|other| other.name == device.name);
        let earlier = earlier.and_then(|device| device.iommu).unwrap_or_default();
        let name = format!("  {} {}", device.at, device.name);
        let held = number(device.held);
        let Some(is) = device.iommu else {
            line(&name, ["-".into(), "-".into(), "-".into(), held]);
            continue;
        };
        let per_second = rate(is.misses, earlier.misses, elapsed);
        line(&name, [number(is.misses), per_second, number(is.invalidations), held]);
    }
    text
}

fn number(value: u64) -> String {
    count(usize::try_from(value).unwrap_or(usize::MAX))
}

fn rate(is: u64, was: u64, elapsed: Duration) -> String {
    let millis = elapsed.as_millis().max(1);
    let added = u128::from(is.saturating_sub(was)).saturating_mul(1000);
    number(u64::try_from(added / millis).unwrap_or(u64::MAX))
}

/// Lines for a terminal in raw mode, which does not return the carriage by itself.
pub(super) fn with_returns(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for &byte in text {
        if byte == b'\n' {
            bytes.push(b'\r');
        }
        bytes.push(byte);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::event::{DeviceTotals, ExitTotals, IommuTotals};

    #[test]
    fn a_table_has_totals_rates_and_what_devices_hold() {
        let device = |name: &str, misses| DeviceTotals {
            name: name.into(),
            at: "00:01.0".into(),
            held: 2,
            iommu: (misses > 0).then(|| IommuTotals {
                misses,
                invalidations: 7,
                ..IommuTotals::default()
            }),
            nvme: None,
        };
        let totals = |mmio, misses| Totals {
            exits: ExitTotals { mmio, ..ExitTotals::default() },
            devices: vec![device("disk", misses), device("rng", 0)],
        };
        let text = table(&totals(1000, 10), &totals(5000, 30), Duration::from_secs(2));
        let words: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1], ["total", "0", "5,000", "0", "0"]);
        assert_eq!(words[2], ["per", "second", "0", "2,000", "0", "0"]);
        assert_eq!(words[4], ["00:01.0", "disk", "30", "10", "7", "2"]);
        assert_eq!(words[5], ["00:01.0", "rng", "-", "-", "-", "2"]);
        assert_eq!(words.len(), 6, "{text}");
        assert_eq!(with_returns(b"a\nb\n"), b"a\r\nb\r\n");
        // All at once is no division by zero.
        assert_eq!(rate(5, 0, Duration::ZERO), "5,000");
    }
}
