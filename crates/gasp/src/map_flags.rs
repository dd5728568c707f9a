//! The flags of a map.

use crate::access::Access;
use crate::error::Reason;

/// The access that a map requests, and whether it accepts memory other than system RAM.
///
/// A value of this type is always a valid combination (decision 4): at least one kind of
/// access, no unknown bit. The numbers are those of the `GMF_*` constants of `<qvm/gasp.h>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MapFlags {
    access: Access,
    any: bool,
}

impl MapFlags {
    /// Read access to system RAM.
    pub const READ: Self = Self { access: Access::READ, any: false };
    /// Write access to system RAM; the memory need not be readable (decision 4).
    pub const WRITE: Self = Self { access: Access::WRITE, any: false };
    /// Read and write access to system RAM.
    pub const RW: Self = Self { access: Access::RW, any: false };
    /// The bit that stands for [`any`](Self::any) in [`bits`](Self::bits).
    pub const ANY_BIT: u32 = 0x100;

    /// Flags for `access` to system RAM.
    ///
    /// # Errors
    /// [`Reason::BadFlags`] if `access` is empty (decision 4).
    pub fn new(access: Access) -> Result<Self, Reason> {
        if access.is_empty() {
            return Err(Reason::BadFlags(0));
        }
        Ok(Self { access, any: false })
    }

    /// The same access, to ROM, pass-through windows and shared windows as well as to system
    /// RAM (decision 5). It never widens what the guest's IOMMU allows.
    #[inline]
    #[must_use]
    pub const fn any(self) -> Self {
        Self { any: true, ..self }
    }

    /// The flags from their number, as passed by a caller in C.
    ///
    /// # Errors
    /// [`Reason::BadFlags`] if no access bit is set, or an unknown bit is (decision 4).
    pub fn from_bits(bits: u32) -> Result<Self, Reason> {
        let bad = Reason::BadFlags(bits);
        let access = u8::try_from(bits & !Self::ANY_BIT).map_err(|_| bad)?;
        let access = Access::from_bits(access).filter(|access| !access.is_empty()).ok_or(bad)?;
        Ok(Self { access, any: bits & Self::ANY_BIT != 0 })
    }

    /// The flags as a number.
    pub fn bits(self) -> u32 {
        u32::from(self.access.bits()) | if self.any { Self::ANY_BIT } else { 0 }
    }

    /// The kinds of access requested.
    #[inline]
    pub fn access(self) -> Access {
        self.access
    }

    /// Whether memory other than system RAM is accepted.
    #[inline]
    pub fn accepts_any(self) -> bool {
        self.any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decision_4_valid_flag_combinations() {
        for bits in 0..=0xffff_u32 {
            let access = bits & 7;
            let valid = access != 0 && bits & !(7 | MapFlags::ANY_BIT) == 0;
            let got = MapFlags::from_bits(bits);
            assert_eq!(got.is_ok(), valid, "{bits:#x}");
            if let Ok(flags) = got {
                assert_eq!(flags.bits(), bits);
            }
        }
        assert_eq!(MapFlags::from_bits(1 << 31 | 1), Err(Reason::BadFlags(1 << 31 | 1)));
        assert_eq!(MapFlags::new(Access::empty()), Err(Reason::BadFlags(0)));
    }
}
