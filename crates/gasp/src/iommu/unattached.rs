//! Devices that are attached to no domain.

/// The treatment of devices that are attached to no domain, in a guest that has an IOMMU
/// (decision 14).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Unattached {
    /// Every access is refused.
    #[default]
    Deny,
    /// The device reaches all memory, as if there were no IOMMU.
    Bypass,
}
