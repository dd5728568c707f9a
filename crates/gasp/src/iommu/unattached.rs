//! Devices that are attached to no domain.

/// What becomes of a device that is attached to no domain, in a guest that has an IOMMU
/// (decision 14).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Unattached {
    /// It is denied everything.
    #[default]
    Deny,
    /// It reaches all memory, as if there were no IOMMU.
    Bypass,
}
