//! The tables of a domain: where they are, and how many levels they have.

use gasp::GuestPhys;

/// The number of levels of a domain's tables, which is also its address width.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Levels {
    /// 39 bits.
    Three = 3,
    /// 48 bits.
    Four = 4,
    /// 57 bits.
    Five = 5,
}

impl Levels {
    /// The levels that the address-width field (AW) of a context entry asks for; `None` for its
    /// reserved values.
    pub fn from_aw(field: u8) -> Option<Self> {
        match field {
            1 => Some(Self::Three),
            2 => Some(Self::Four),
            3 => Some(Self::Five),
            _ => None,
        }
    }

    /// The width in bits of the addresses that the tables translate (AGAW).
    #[inline]
    pub fn address_width(self) -> u32 {
        12 + 9 * self as u32
    }
}

/// The tables of a domain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Table {
    /// The address of the table of the highest level. Its low 12 bits are ignored, as a context
    /// entry has none.
    pub root: GuestPhys,
    /// The number of levels.
    pub levels: Levels,
}
