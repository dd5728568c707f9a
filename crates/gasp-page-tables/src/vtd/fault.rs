//! Why a walk ends without a page.

use gasp::TranslationFault;

/// Why a walk refuses an access. The number is the fault reason that a unit in legacy mode records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[repr(u8)]
pub enum Fault {
    /// The device address is wider than the unit or the domain's tables.
    #[error("the address is beyond the domain's width (4h)")]
    BeyondWidth = 0x4,
    /// The access writes, and an entry does not allow it.
    #[error("an entry does not allow to write (5h)")]
    WriteDenied = 0x5,
    /// The access reads, and an entry does not allow it.
    #[error("an entry does not allow to read (6h)")]
    ReadDenied = 0x6,
    /// A table is not in system RAM.
    #[error("a table cannot be read (7h)")]
    TableInaccessible = 0x7,
    /// An entry that allows the access has a reserved bit that is set.
    #[error("a reserved bit of an entry is set (Ch)")]
    Reserved = 0xc,
}

impl Fault {
    /// The fault reason of the specification.
    #[inline]
    pub fn reason(self) -> u8 {
        self as u8
    }
}

impl From<Fault> for TranslationFault {
    #[inline]
    fn from(fault: Fault) -> Self {
        Self { reason: fault.reason().into(), keep: false }
    }
}
