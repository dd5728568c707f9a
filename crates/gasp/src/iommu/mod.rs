//! The guest's IOMMU: domains and their grants.
//!
//! A domain is a set of grants shared by all devices that are attached to it. The only record
//! of its grants is the table of its view, which the control path edits and maps read, so there
//! is no copy that could be out of date.
//!
//! * `grant`, `revoke`: adding grants, and revoking them.
//! * `translator`, `asking`, `ask`, `questions`, `inside`, `enter`, `parts`, `evict`: domains whose
//!   table is a cache of the answers of a translator.
//! * `refresh`: following a change of the guest's regions.
//! * `chunks`: the loop of all three, which holds the locks for a bounded time.
//! * `project`: what is behind device addresses, and how many table entries that takes.

mod ask;
mod asking;
mod chunks;
mod domain;
mod enter;
mod evict;
mod grant;
mod inside;
mod parts;
mod project;
mod questions;
mod refresh;
mod revoke;
mod translator;
mod unattached;

pub use asking::AskCounts;
pub use domain::{DomainKind, DomainOptions};
pub use translator::{Following, Translation, TranslationFault, Translator};
pub use unattached::Unattached;

pub(crate) use ask::Fetched;
pub(crate) use asking::Asking;
pub(crate) use chunks::{GuestMemory, free, in_chunks};
pub(crate) use domain::DomainInner;
pub(crate) use refresh::{Reached, identity, refresh};
