//! Which device.

/// A number that no other device of this process has or had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Id(pub(super) u64);
