//! Why a walk ends without a page.

use gasp::TranslationFault;

/// Why a walk refuses an access.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Fault {
    /// An entry is not present.
    #[error("an entry is not present")]
    NotPresent,
    /// The device table or an entry does not allow the access.
    #[error("the access is not allowed")]
    Denied,
    /// The address has bits that no level translates.
    #[error("the address has bits that no level translates")]
    Untranslated,
    /// An entry has a reserved bit that is set, or a level or size that it cannot have.
    #[error("an entry has a reserved bit that is set, or an invalid level or size")]
    Reserved,
    /// A table is not in system RAM.
    #[error("a table cannot be read")]
    TableInaccessible,
}

impl Fault {
    /// The upper half of the event's first 8 bytes, without domain: IO_PAGE_FAULT with the flags PR
    /// (bit 20), PE (22) and RZ (23), or PAGE_TAB_HARDWARE_ERROR with a master abort. Whether the
    /// access writes (RW, 21) is up to who reports it.
    pub fn reason(self) -> u32 {
        const FAULT: u32 = 0x2 << 28;
        const PRESENT: u32 = 1 << 20;
        match self {
            Self::NotPresent => FAULT,
            Self::Denied => FAULT | PRESENT | 1 << 22,
            Self::Untranslated => FAULT | PRESENT,
            Self::Reserved => FAULT | PRESENT | 1 << 23,
            Self::TableInaccessible => 0x4 << 28 | 1 << 25,
        }
    }
}

impl From<Fault> for TranslationFault {
    fn from(fault: Fault) -> Self {
        Self { reason: fault.reason(), keep: false }
    }
}
