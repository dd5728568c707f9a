//! The guest's IOMMU: domains, and what each makes of the guest's memory.
//!
//! A domain is a set of grants that all devices attached to it share. Its grants are kept
//! in one place only, the table of its view, which is at once what the
//! control path edits and what maps read: there is nothing to get out of step.
//!
//! * `grant`, `revoke`: grants are added and taken back.
//! * `refresh`: the guest's regions have changed.
//! * `chunks`: none of these holds a lock in proportion to what was asked for.
//! * `placed`: what is behind device addresses, and how many entries it takes.

mod chunks;
mod domain;
mod grant;
mod placed;
mod refresh;
mod revoke;
mod unattached;

pub use domain::{DomainKind, DomainOptions};
pub use unattached::Unattached;

pub(crate) use chunks::{GuestMemory, free, in_chunks};
pub(crate) use domain::DomainInner;
pub(crate) use refresh::{Reached, identity, refresh};
