//! The interrupt of a device.

use core::fmt;

use crate::config::size::number;

/// The interrupt of a device: an input of an interrupt controller.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Interrupt {
    /// The name of the controller: that of a device before this one, or one that the host knows.
    pub controller: String,
    /// The input, as the controller names its inputs: mostly a number, for which there is
    /// [`line`](Self::line). `None` for a controller that has only one.
    pub input: Option<String>,
}

impl Interrupt {
    /// Parses `CONTROLLER:INPUT` or `CONTROLLER`.
    pub(in crate::config) fn parse(text: &str) -> Result<Self, String> {
        let (controller, input) = match text.split_once(':') {
            Some((controller, input)) => (controller, Some(input)),
            None => (text, None),
        };
        // A number alone is most likely an input without its controller.
        let first = controller.chars().next();
        let is_name = first.is_some_and(|first| input.is_some() || first.is_alphabetic());
        let is_clean = !text.contains(|letter: char| letter.is_control() || letter == ',');
        match is_name && is_clean && input != Some("") {
            true => Ok(Self { controller: controller.into(), input: input.map(str::to_owned) }),
            false => Err(format!(
                "expected `CONTROLLER:INPUT`, such as `ioapic:4`, or `CONTROLLER`; not `{text}`"
            )),
        }
    }

    /// The input as a number, if it is one below 2^32.
    pub fn line(&self) -> Option<u32> {
        self.input.as_deref().and_then(number).and_then(|line| u32::try_from(line).ok())
    }
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.input {
            Some(input) => write!(f, "{}:{input}", self.controller),
            None => f.write_str(&self.controller),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_is_a_controller_and_an_input() {
        for (text, controller, input, line) in [
            ("ioapic:4", "ioapic", Some("4"), Some(4)),
            ("gic:0xffffffff", "gic", Some("0xffffffff"), Some(u32::MAX)),
            ("gic:0x100000000", "gic", Some("0x100000000"), None),
            ("gic:spi:4", "gic", Some("spi:4"), None),
            ("8259:1", "8259", Some("1"), Some(1)),
            ("apic", "apic", None, None),
        ] {
            let found = Interrupt::parse(text).unwrap();
            assert_eq!((found.controller.as_str(), found.input.as_deref()), (controller, input));
            assert_eq!(found.line(), line, "{text}");
            assert_eq!(found.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_interrupt_says_what_is_expected() {
        for text in ["", "4", ":4", "gic:", "a,u", "gic:4,u", "gic:4\n"] {
            assert!(Interrupt::parse(text).unwrap_err().contains("`ioapic:4`"), "{text}");
        }
    }
}
