//! The cells of a domain's column.

use gasp::Access;

use super::scale::Part;

/// Guest memory that the devices of a domain reach.
pub(super) struct Cell {
    pub(super) part: Part,
    pub(super) access: Access,
    pub(super) device: Device,
}

/// Where a device reaches a cell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    /// At its guest-physical address.
    Same,
    /// From another address on.
    From(u64),
    /// The cell stands for several mappings, and may be larger than they are together.
    Several,
}

/// What a domain does with memory that is in none of its cells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Denied,
    /// It holds no answer: its devices would ask, and may be allowed.
    Unasked,
}
