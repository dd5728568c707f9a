//! The interrupt of a device.

use core::fmt;

use crate::config::size::number;

/// The interrupt of a device: an input of an interrupt controller.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Interrupt {
    /// The name of the controller: that of a device before this one, or one that the host knows.
    pub controller: String,
    /// The input; `None` for a controller that has only one.
    pub line: Option<u32>,
}

impl Interrupt {
    /// Parses `CONTROLLER:LINE` or `CONTROLLER`.
    pub(in crate::config) fn parse(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "expected `CONTROLLER:LINE`, such as `ioapic:4`, with a line below 2^32; not \
                 `{text}`"
            )
        };
        let (controller, line) = match text.split_once(':') {
            Some((controller, line)) => {
                let line = number(line).and_then(|line| u32::try_from(line).ok());
                (controller, Some(line.ok_or_else(expected)?))
            }
            None => (text, None),
        };
        // A number alone is most likely a line without its controller.
        let first = controller.chars().next();
        let is_name = first.is_some_and(|first| line.is_some() || first.is_alphabetic());
        match is_name && !controller.contains(|letter: char| letter.is_control() || letter == ',') {
            true => Ok(Self { controller: controller.into(), line }),
            false => Err(expected()),
        }
    }
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.controller),
            None => f.write_str(&self.controller),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_is_a_controller_and_a_line() {
        let interrupt = |controller: &str, line| Interrupt { controller: controller.into(), line };
        assert_eq!(Interrupt::parse("ioapic:4"), Ok(interrupt("ioapic", Some(4))));
        assert_eq!(Interrupt::parse("gic:0xffffffff"), Ok(interrupt("gic", Some(u32::MAX))));
        assert_eq!(Interrupt::parse("apic"), Ok(interrupt("apic", None)));
        assert_eq!(Interrupt::parse("8259:1"), Ok(interrupt("8259", Some(1))));
        for text in ["", "4", ":4", "gic:", "gic:x", "gic:0x100000000", "gic:4:5", "a,u", "gic:4,u"]
        {
            assert!(Interrupt::parse(text).unwrap_err().contains("ioapic:4"), "{text}");
        }
    }
}
