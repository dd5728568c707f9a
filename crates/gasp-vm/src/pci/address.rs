//! Where a function is.

use core::fmt;

/// The bus, device and function number of a PCI function. Shown as "00:03.0".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf(u16);

impl Bdf {
    /// A function's number, if there can be one: devices are 0 to 31, functions 0 to 7.
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        match device < 32 && function < 8 {
            true => Some(Self((bus as u16) << 8 | (device as u16) << 3 | function as u16)),
            false => None,
        }
    }

    /// A function by the number that IOMMUs know it by.
    pub const fn from_requester_id(id: u16) -> Self {
        Self(id)
    }

    /// The number that the function's requests have on the bus, and that IOMMUs know it by: the bus
    /// in bits 8 to 15, the device in bits 3 to 7, the function in bits 0 to 2.
    pub const fn requester_id(self) -> u16 {
        self.0
    }

    /// The bus.
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The device on its bus, 0 to 31.
    pub const fn device(self) -> u8 {
        (self.0 >> 3) as u8 & 0x1f
    }

    /// The function of its device, 0 to 7.
    pub const fn function(self) -> u8 {
        self.0 as u8 & 7
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus(), self.device(), self.function())
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_number_are_where_a_request_has_them() {
        let bdf = Bdf::new(0x12, 0x1f, 3).unwrap();
        assert_eq!((bdf.requester_id(), bdf.to_string()), (0x12fb, "12:1f.3".into()));
        assert_eq!((bdf.bus(), bdf.device(), bdf.function()), (0x12, 0x1f, 3));
        assert_eq!(Bdf::from_requester_id(0x12fb), bdf);
        assert!(Bdf::new(0, 32, 0).is_none() && Bdf::new(0, 0, 8).is_none());
    }
}
