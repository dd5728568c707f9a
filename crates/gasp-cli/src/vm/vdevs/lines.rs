//! The lines of the I/O APIC, and who has each.

use std::collections::BTreeMap;

use gasp_vm::LINES;

/// The name of the interrupt controller in a configuration.
pub(super) const CONTROLLER: &str = "ioapic";

/// Lines that are given to vdevs that do not care: those that no PC has used for its timer, its
/// keyboard, its clock or a serial port first.
const ANY: [u32; 10] = [5, 6, 7, 10, 11, 12, 13, 14, 15, 3];

/// The holders of lines, by what they are called.
#[derive(Debug)]
pub(super) struct Lines(BTreeMap<u32, String>);

impl Lines {
    /// The lines of a machine without vdevs.
    pub(super) fn new() -> Self {
        let pins = (16..LINES).map(|line| (line, "the pins of PCI devices".to_owned()));
        let fixed =
            [(4, "the serial port".to_owned()), (9, "the generic event device (ACPI)".to_owned())];
        Self(fixed.into_iter().chain(pins).collect())
    }

    /// Gives a line to the vdev `name`.
    pub(super) fn take(&mut self, line: u32, name: &str) -> Result<(), String> {
        if line >= LINES {
            return Err(format!(
                "`intr {CONTROLLER}:{line}`: there is no such line; use one of 5 to 15 but 9"
            ));
        }
        if let Some(holder) = self.0.get(&line) {
            return Err(format!(
                "`intr {CONTROLLER}:{line}`: {holder} has the line; use another, or leave `intr` out"
            ));
        }
        self.0.insert(line, format!("the vdev `{name}`"));
        Ok(())
    }

    /// Gives a line that is free to the vdev `name`.
    pub(super) fn any(&mut self, name: &str) -> Result<u32, String> {
        let free = ANY.into_iter().find(|line| !self.0.contains_key(line));
        let line = free.ok_or_else(|| {
            format!("no line of `{CONTROLLER}` is free for it: there are {}; use fewer", ANY.len())
        })?;
        self.take(line, name)?;
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_one_holder_who_is_named() {
        let mut lines = Lines::new();
        lines.take(5, "a").unwrap();
        for (line, holder) in [
            (4, "the serial port"),
            (9, "the generic event device"),
            (16, "the pins of PCI"),
            (23, "the pins of PCI"),
            (5, "the vdev `a`"),
            (24, "no such line"),
            (u32::MAX, "no such line"),
        ] {
            let error = lines.take(line, "b").unwrap_err();
            assert!(error.contains(holder) && error.contains(&format!("ioapic:{line}")), "{error}");
        }
        let given: Vec<_> = core::iter::from_fn(|| lines.any("c").ok()).collect();
        assert_eq!(given, [6, 7, 10, 11, 12, 13, 14, 15, 3]);
        assert!(lines.any("d").unwrap_err().contains("no line of `ioapic` is free"));
    }
}
