//! Addresses: one type for each kind, never a bare `u64` in an interface.
//!
//! Three address spaces meet in this crate, and confusing them is the classic fault of
//! device code. Each has its own type, and the only conversions are those that really exist:
//! without an IOMMU that translates, a device address is the same number as the
//! guest-physical one ([`DeviceAddr::identity`]).

use core::fmt;

/// Size of the IOMMU granule, the unit of every table in this crate: 4 KiB (decision 11).
///
/// It does not depend on the host's page size, which can be larger.
pub const GRANULE: u64 = 4096;

/// The operations that all address types have.
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
            /// The address that is `len` bytes higher; `None` if that is past 2^64 - 1.
            #[inline]
            pub fn checked_add(self, len: u64) -> Option<Self> {
                self.0.checked_add(len).map(Self)
            }

            /// Whether the address is a multiple of `align`; always true for an `align` of 0.
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
    /// An address that a device uses for DMA: the input of the guest's IOMMU (IOVA).
    DeviceAddr
}
address! {
    /// An address in the guest's memory map: the output of the guest's IOMMU.
    GuestPhys
}
address! {
    /// An address of the host's physical memory, with which real hardware is programmed.
    ///
    /// If the host is a virtual machine, it is a guest-physical address of that machine.
    HostPhys
}

impl DeviceAddr {
    /// The device address of a guest-physical address if no IOMMU translates.
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
