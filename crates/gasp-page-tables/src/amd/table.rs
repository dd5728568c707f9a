//! The tables of a domain: where they are, how many levels they have, and for what access.

use gasp::{Access, GuestPhys};

/// The tables of a domain, as an entry of the device table describes them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Table {
    /// The address of the table of the highest level; its low 12 bits are ignored.
    pub root: GuestPhys,
    /// The number of levels.
    pub levels: Levels,
    /// What the device table allows (its bits IR and IW).
    pub access: Access,
}

/// A number of levels, from 1 to 6.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Levels(pub(super) u8);

impl Levels {
    /// The levels of this paging mode of the device table; `None` for 0, which translates nothing,
    /// and for 7, which is reserved.
    pub fn from_mode(mode: u8) -> Option<Self> {
        matches!(mode, 1..=6).then_some(Self(mode))
    }
}
