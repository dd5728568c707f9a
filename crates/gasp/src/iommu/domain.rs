//! One IOMMU configuration that several devices can share.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::addr::DeviceAddr;
use crate::mapping::DrainPolicy;
use crate::span::Span;
use crate::view::View;

/// What a domain does with device addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DomainKind {
    /// Every address goes through unchanged, with every access.
    Bypass,
    /// No address goes through.
    Deny,
    /// Addresses that a grant names go through unchanged, with the grant's access.
    Identity,
    /// Addresses that a grant names go to the guest-physical address it gives.
    Translate,
}

impl DomainKind {
    /// All kinds, by their names in configuration files.
    pub const ALL: [Self; 4] = [Self::Bypass, Self::Deny, Self::Identity, Self::Translate];

    /// The name in configuration files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Deny => "deny",
            Self::Identity => "identity",
            Self::Translate => "translate",
        }
    }
}

impl fmt::Display for DomainKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a domain is made; see [`Guest::domain`](crate::Guest::domain).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainOptions {
    /// What it does with device addresses.
    pub kind: DomainKind,
    /// Who configures it. A device of one owner's domain cannot be attached to
    /// another's.
    pub owner: Arc<str>,
    /// The most table entries that it may have: one for each 4 KiB, or for each aligned
    /// 2 MiB or 1 GiB that a grant covers whole. Taking back a part of a large entry, or
    /// changing the memory behind a part of it, cuts it, into 1,023 at most. A revoke that
    /// cuts past the limit is refused; one that takes back whole entries never is. Grants
    /// that a change of memory would cut past the limit are taken back.
    pub limit: u64,
    /// How its revokes wait; the guest's own policy where it has none.
    pub drain: Option<DrainPolicy>,
}

impl DomainOptions {
    /// The limit of a domain that sets none: 1,048,576 entries.
    pub const LIMIT: u64 = 1 << 20;

    /// A domain of this kind, of the owner `"guest"`, with the usual limit.
    pub fn new(kind: DomainKind) -> Self {
        Self { kind, owner: Arc::from("guest"), limit: Self::LIMIT, drain: None }
    }
}

/// A domain, as the guest keeps it.
#[derive(Debug)]
pub(crate) struct DomainInner {
    pub(crate) name: Arc<str>,
    pub(crate) kind: DomainKind,
    pub(crate) owner: Arc<str>,
    pub(crate) limit: u64,
    pub(crate) policy: DrainPolicy,
    /// The guest's address width in bits.
    pub(crate) width: u32,
    /// The domain's own, or one that it shares with others of its kind.
    pub(crate) view: Arc<View>,
    /// Held for one change of grants after the other, by nobody but those who make them:
    /// a change is made in chunks, and holds no other lock for all of them.
    pub(crate) changes: Mutex<()>,
    /// Whether the guest no longer has it; set under the guest's lock of devices.
    pub(crate) removed: AtomicBool,
}

impl DomainInner {
    /// Whether the domain has grants of its own.
    pub(crate) fn takes_grants(&self) -> bool {
        matches!(self.kind, DomainKind::Identity | DomainKind::Translate)
    }

    /// All device addresses there are.
    pub(crate) fn addresses(&self) -> Span<DeviceAddr> {
        let last = DeviceAddr((1 << self.width) - 1);
        Span::inclusive(DeviceAddr(0), last)
            .unwrap_or_else(|| unreachable!("the width is at most 52 bits"))
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }
}
