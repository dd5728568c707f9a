//! Where a device is in its guest.

use core::fmt;

use crate::addr::GuestPhys;
use crate::config::near::nearest;
use crate::config::size::number;

/// Where a device is, or wants to be, in its guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Location {
    /// A number without a space: in the space that the device's type has by default, memory or
    /// ports.
    Default(u64),
    /// `mem:ADDRESS`: registers in memory.
    Memory(GuestPhys),
    /// `io:PORT`: an x86 port.
    Port(u16),
    /// `pci:BUS:DEVICE[.FUNCTION]`: a PCI function.
    Pci {
        /// The bus.
        bus: u8,
        /// The device, 0 to 31.
        device: u8,
        /// The function, 0 to 7.
        function: u8,
    },
    /// `pci:VENDOR/DEVICE`: any place on the PCI bus, with these identifiers.
    PciId {
        /// The vendor identifier.
        vendor: u16,
        /// The device identifier.
        device: u16,
    },
}

impl Location {
    /// Parses a location. Without a prefix it is a number, or a place on the PCI bus.
    pub(in crate::config) fn parse(text: &str) -> Result<Self, String> {
        let (space, rest) = match text.split_once(':') {
            Some((space, rest)) if !space.starts_with(|first: char| first.is_ascii_digit()) => {
                (space, rest)
            }
            _ if text.contains([':', '/']) => ("pci", text),
            _ => ("", text),
        };
        if let Some((_, more)) = rest.split_once(',') {
            return Err(format!(
                "a device's location is an address alone: leave `,{more}` out; its type knows how \
                 much it occupies"
            ));
        }
        let numeric = |what| move || format!("expected {what}, not `{rest}`");
        match space {
            "" => number(rest).map(Self::Default).ok_or_else(numeric(
                "a location: `mem:ADDRESS`, `io:PORT`, `pci:BUS:DEVICE.FUNCTION` or a number",
            )),
            "mem" => number(rest)
                .map(|address| Self::Memory(GuestPhys(address)))
                .ok_or_else(numeric("an address below 2^64")),
            "io" => number(rest)
                .and_then(|port| u16::try_from(port).ok())
                .map(Self::Port)
                .ok_or_else(numeric("a port, 0 to 0xffff")),
            "pci" => pci(rest).ok_or_else(numeric(
                "`BUS:DEVICE[.FUNCTION]`, up to 255:31.7, or `VENDOR/DEVICE`, up to 0xffff each",
            )),
            unknown => Err(match nearest(unknown, ["mem", "io", "pci"]) {
                Some(near) => format!("unknown space `{unknown}`; did you mean `{near}`?"),
                None => format!("unknown space `{unknown}`; there are `mem`, `io`, `pci`"),
            }),
        }
    }
}

fn pci(text: &str) -> Option<Location> {
    if let Some((vendor, device)) = text.split_once('/') {
        let id = |text| number(text).and_then(|id| u16::try_from(id).ok());
        return Some(Location::PciId { vendor: id(vendor)?, device: id(device)? });
    }
    let (bus, rest) = text.split_once(':')?;
    let (device, function) = rest.split_once('.').unwrap_or((rest, "0"));
    let below = |text, end| number(text).filter(|&number| number < end).map(|number| number as u8);
    Some(Location::Pci {
        bus: below(bus, 256)?,
        device: below(device, 32)?,
        function: below(function, 8)?,
    })
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default(number) => write!(f, "{number:#x}"),
            Self::Memory(address) => write!(f, "mem:{:#x}", address.0),
            Self::Port(port) => write!(f, "io:{port:#x}"),
            Self::Pci { bus, device, function } => write!(f, "pci:{bus}:{device}.{function}"),
            Self::PciId { vendor, device } => write!(f, "pci:{vendor:#x}/{device:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_and_prints_as_what_reads_the_same() {
        for (text, location) in [
            ("0xfa000000", Location::Default(0xfa00_0000)),
            ("mem:0x1000", Location::Memory(GuestPhys(0x1000))),
            ("mem:4K", Location::Memory(GuestPhys(0x1000))),
            ("io:0x3f8", Location::Port(0x3f8)),
            ("io:0xffff", Location::Port(0xffff)),
            ("pci:0:3", Location::Pci { bus: 0, device: 3, function: 0 }),
            ("0:31.7", Location::Pci { bus: 0, device: 31, function: 7 }),
            ("pci:0x1c05/1", Location::PciId { vendor: 0x1c05, device: 1 }),
            ("0x1c05/0xffff", Location::PciId { vendor: 0x1c05, device: 0xffff }),
        ] {
            assert_eq!(Location::parse(text), Ok(location), "{text}");
            assert_eq!(Location::parse(&location.to_string()), Ok(location), "{location}");
        }
    }

    #[test]
    fn what_is_no_location_says_what_is_expected() {
        for (text, part) in [
            ("", "expected a location"),
            ("here", "expected a location"),
            ("mem:", "an address"),
            ("io:0x10000", "0 to 0xffff"),
            ("pci:0:32", "up to 255:31.7"),
            ("pci:256:0", "up to 255:31.7"),
            ("pci:0:0.8", "up to 255:31.7"),
            ("pci:0x10000/0", "up to 0xffff"),
            ("pci:3", "BUS:DEVICE"),
            ("mmem:0", "did you mean `mem`?"),
            ("usb:0", "there are `mem`, `io`, `pci`"),
            ("mem:0x1000,0x1000", "leave `,0x1000` out"),
        ] {
            let message = Location::parse(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
