//! The guest's IOMMU: domains and their grants.
//!
//! A domain is a set of grants shared by all devices that are attached to it. The only record
//! of its grants is the table of its view, which the control path edits and maps read, so there
//! is no copy that could be out of date.
//!
//! * `grant`, `revoke`: adding grants, and revoking them.
//! * `refresh`: following a change of the guest's regions.
//! * `chunks`: the loop of all three, which holds the locks for a bounded time.
//! * `project`: what is behind device addresses, and how many table entries that takes.

mod chunks;
mod domain;
mod grant;
mod project;
mod refresh;
mod revoke;
mod unattached;

pub use domain::{DomainKind, DomainOptions};
pub use unattached::Unattached;

pub(crate) use chunks::{GuestMemory, free, in_chunks};
pub(crate) use domain::DomainInner;
pub(crate) use refresh::{Reached, identity, refresh};
