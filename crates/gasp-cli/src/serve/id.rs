//! Device identifiers.

/// An identifier that is unique among all devices that this process has ever had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Id(pub(super) u64);
