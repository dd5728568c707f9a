//! Addresses: one type for each kind, never a bare `u64` in an interface.
//!
//! Three address spaces meet in this crate, and mixing them up is the classic fault of
//! device code. Each has its own type, and there is no conversion between them but the
//! ones that really exist (the identity of a device address and a guest-physical one
//! where there is no IOMMU, which [`DeviceAddr::identity`] spells out).

use core::fmt;

/// The IOMMU granule and the unit of every table in this crate: 4 KiB.
///
/// It is independent of the host's page size, which may be larger.
pub const GRANULE: u64 = 4096;

/// What the three address types have in common.
pub trait Address: Copy + Ord + fmt::Display + fmt::Debug + sealed::Sealed {
    /// The address from its number.
    fn new(raw: u64) -> Self;
    /// The address as a number.
    fn raw(self) -> u64;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl sealed::Sealed for $name {}

        impl Address for $name {
            #[inline]
            fn new(raw: u64) -> Self {
                Self(raw)
            }
            #[inline]
            fn raw(self) -> u64 {
                self.0
            }
        }

        impl $name {
            /// The address `len` bytes further on, or `None` if that is past 2^64 - 1.
            #[inline]
            pub fn checked_add(self, len: u64) -> Option<Self> {
                self.0.checked_add(len).map(Self)
            }

            /// Whether the address is a multiple of `align`; every address is one of 0.
            #[inline]
            pub fn is_aligned(self, align: u64) -> bool {
                self.0.checked_rem(align).is_none_or(|rest| rest == 0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

address! {
    /// What a device puts on its bus: the address before the guest's IOMMU.
    DeviceAddr
}
address! {
    /// An address in the guest's own memory map: the address behind the guest's IOMMU.
    GuestPhys
}
address! {
    /// An address of the host's memory bus: what real hardware is programmed with.
    ///
    /// Inside a virtual machine this is that machine's idea of physical memory.
    HostPhys
}

impl DeviceAddr {
    /// The device address of a guest-physical one where no IOMMU translates.
    #[inline]
    pub fn identity(guest: GuestPhys) -> Self {
        Self(guest.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_add_stops_at_the_end_of_the_address_space() {
        assert_eq!(GuestPhys(1).checked_add(2), Some(GuestPhys(3)));
        assert_eq!(GuestPhys(u64::MAX).checked_add(1), None);
    }

    #[test]
    fn alignment_of_zero_is_met_by_every_address() {
        assert!(HostPhys(3).is_aligned(0));
        assert!(HostPhys(0x2000).is_aligned(GRANULE));
        assert!(!HostPhys(0x2001).is_aligned(GRANULE));
    }

    #[test]
    fn addresses_print_as_hexadecimal() {
        assert_eq!(DeviceAddr(0x1000).to_string(), "0x1000");
        assert_eq!(format!("{:?}", HostPhys(0x1000)), "HostPhys(0x1000)");
    }
}
