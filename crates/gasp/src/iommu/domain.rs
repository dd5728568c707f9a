//! A domain: one IOMMU configuration that several devices can share.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use super::asking::Asking;
use super::translator::Translator;
use crate::addr::DeviceAddr;
use crate::mapping::DrainPolicy;
use crate::span::Span;
use crate::view::View;

/// The translation that a domain applies to device addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DomainKind {
    /// Every device address is the guest-physical address, with every access.
    Bypass,
    /// Every address is refused.
    Deny,
    /// A device address covered by a grant is the guest-physical address, with the grant's
    /// access; others are refused.
    Identity,
    /// A device address covered by a grant is translated to the guest-physical address that the
    /// grant gives, with the grant's access; others are refused.
    Translate,
    /// A device address is translated as the domain's [`Translator`] answers, which is asked when
    /// a map meets an address for the first time. The answers are kept until they are
    /// [invalidated](crate::Domain::invalidate), or others need their place.
    Ask,
}

impl DomainKind {
    /// The kinds that need no translator, in the order of their names: those that a
    /// configuration can name.
    pub const ALL: [Self; 4] = [Self::Bypass, Self::Deny, Self::Identity, Self::Translate];

    /// The name in configuration files and reports, such as `"translate"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Deny => "deny",
            Self::Identity => "identity",
            Self::Translate => "translate",
            Self::Ask => "ask",
        }
    }
}

impl fmt::Display for DomainKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The options of a new domain; see [`Guest::domain`](crate::Guest::domain).
#[derive(Clone)]
pub struct DomainOptions {
    /// The translation of device addresses.
    pub kind: DomainKind,
    /// Who is asked, in a domain of the kind [`DomainKind::Ask`]; `None` for all others.
    pub translator: Option<Arc<dyn Translator>>,
    /// The name of who configures the domain. A device that is attached to a domain of one owner
    /// cannot be attached to one of another.
    pub owner: Arc<str>,
    /// The most table entries: one for each 4 KiB, or for each aligned 2 MiB or 1 GiB that a
    /// grant covers whole. Revoking a part of a large entry, or changing the memory behind a part
    /// of it, cuts it, into 1,023 entries at most. A revoke that would cut an entry past the limit
    /// is refused; one of whole entries never is. Grants that a change of memory would cut past
    /// the limit are revoked (docs/decisions.md).
    ///
    /// In a domain that asks, answers take the place of others when the limit is reached; from 1,024
    /// on a little before, so that threads do not wait for room. A map of more pages than the limit,
    /// less those that are held, is refused with `ENOSPC`.
    pub limit: u64,
    /// How its drains wait; `None` for the guest's own policy.
    pub drain: Option<DrainPolicy>,
}

impl DomainOptions {
    /// The default limit: 1,048,576 entries.
    pub const LIMIT: u64 = 1 << 20;

    /// Options for a domain of this kind: the owner `"guest"`, the default limit, and the drain
    /// policy of the guest.
    pub fn new(kind: DomainKind) -> Self {
        let (translator, drain) = (None, None);
        Self { kind, translator, owner: Arc::from("guest"), limit: Self::LIMIT, drain }
    }

    /// Options for a domain that asks `translator`; otherwise as [`new`](Self::new).
    pub fn ask(translator: Arc<dyn Translator>) -> Self {
        Self { translator: Some(translator), ..Self::new(DomainKind::Ask) }
    }
}

impl fmt::Debug for DomainOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, owner, limit, drain, .. } = self;
        f.debug_struct("DomainOptions")
            .field("kind", kind)
            .field("owner", owner)
            .field("limit", limit)
            .field("drain", drain)
            .finish_non_exhaustive()
    }
}

/// A domain, behind its handles.
pub(crate) struct DomainInner {
    pub(crate) name: Arc<str>,
    pub(crate) kind: DomainKind,
    pub(crate) owner: Arc<str>,
    pub(crate) limit: u64,
    pub(crate) policy: DrainPolicy,
    /// The guest's address width in bits.
    pub(crate) width: u32,
    /// The domain's own view, or the one that all domains of a kind without grants share.
    pub(crate) view: Arc<View>,
    /// Who is asked on a miss, in a domain that asks.
    pub(crate) asking: Option<Asking>,
    /// Serialises the changes of the grants. A change is processed in chunks, and this is the only
    /// lock that it holds for all of them.
    pub(crate) changes: Mutex<()>,
    /// Whether the domain was removed from the guest; set under the guest's lock of devices.
    pub(crate) removed: AtomicBool,
}

impl DomainInner {
    /// Whether the domain is told its grants.
    pub(crate) fn takes_grants(&self) -> bool {
        matches!(self.kind, DomainKind::Identity | DomainKind::Translate)
    }

    /// Whether the domain has a table of its own: of grants, or of answers.
    pub(crate) fn has_table(&self) -> bool {
        self.takes_grants() || self.kind == DomainKind::Ask
    }

    /// All device addresses of the guest's width.
    pub(crate) fn addresses(&self) -> Span<DeviceAddr> {
        let last = DeviceAddr((1 << self.width) - 1);
        Span::inclusive(DeviceAddr(0), last)
            .unwrap_or_else(|| unreachable!("the width is at most 52 bits"))
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }
}
