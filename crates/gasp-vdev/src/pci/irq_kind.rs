//! Kinds of interrupts.

use core::fmt;

/// A kind of interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IrqKind {
    /// The interrupt pin (INTx).
    Pin,
    /// Message-signalled (MSI).
    Msi,
    /// Message-signalled, with a table (MSI-X).
    Msix,
    /// The device reports an error.
    Error,
    /// The device asks its VMM to release it.
    Request,
}

impl fmt::Display for IrqKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pin => "INTx",
            Self::Msi => "MSI",
            Self::Msix => "MSI-X",
            Self::Error => "error interrupt",
            Self::Request => "release request",
        })
    }
}
