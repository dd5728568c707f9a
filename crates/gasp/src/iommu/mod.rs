//! The guest's IOMMU: domains, and what each makes of the guest's memory.
//!
//! A domain is a set of rules that all devices attached to it share. Its rules are kept
//! in one place only, the table of its view, which is at once what the
//! control path edits and what maps read: there is nothing to get out of step.

mod domain;
mod refresh;
mod rules;

pub use domain::{DomainKind, DomainOptions};

pub(crate) use domain::DomainInner;
pub(crate) use refresh::refresh;
