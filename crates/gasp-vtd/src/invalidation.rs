//! Invalidations, however the guest has asked for them, and what they take out of which domains.

use std::collections::BTreeMap;
use std::sync::Arc;

use gasp::{DeviceAddr, Domain, Drain, Result, Span};
use smallvec::SmallVec;

use crate::capabilities::Capabilities;
use crate::context_cache::ContextCache;
use crate::requester::RequesterId;
use crate::translator::Remapping;

/// A requester's domain, and its translator.
pub(crate) struct Requester {
    pub(crate) domain: Domain,
    pub(crate) remapping: Arc<Remapping>,
}

/// The requesters that are connected.
pub(crate) type Requesters = BTreeMap<RequesterId, Requester>;

/// What the guest asks for, as it is coded in descriptors and registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Granularity {
    Global,
    Domain,
    /// A device of the context cache, or pages of the IOTLB.
    Selective,
}

impl Granularity {
    /// `None` for the value that is reserved.
    pub(crate) fn of(field: u8) -> Option<Self> {
        match field {
            1 => Some(Self::Global),
            2 => Some(Self::Domain),
            3 => Some(Self::Selective),
            _ => None,
        }
    }
}

/// The pages of an invalidation: address in bits 63 to 12, address mask in bits 5 to 0, as in a
/// descriptor and in IVA. Bit 6, the hint that only leaf entries have changed, needs no care: nothing
/// but leaf entries is cached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pages(Option<Span<DeviceAddr>>);

impl Pages {
    /// None if the mask is larger than the unit's largest.
    pub(crate) fn new(word: u64, capabilities: &Capabilities) -> Self {
        let mask = (word & 0x3f) as u32;
        if mask > capabilities.most_mask() {
            return Self(None);
        }
        let size = 1 << (12 + mask);
        Self(Span::new(DeviceAddr(word & !(size - 1)), size).ok())
    }
}

/// An invalidation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Invalidation {
    /// Everything of every requester.
    All,
    /// Everything of requesters whose id is this one, but for the bits of the mask.
    Requesters { id: u16, mask: u16 },
    /// All translations.
    Iotlb,
    /// Those of a domain of the guest.
    Domain(u16),
    /// Those of pages of a domain of the guest.
    Pages(u16, Span<DeviceAddr>),
}

impl Invalidation {
    /// An invalidation of the context cache; of all of it, unless it is for a device. The translations
    /// that were read with a context entry go with it.
    pub(crate) fn context_cache(granularity: Granularity, id: u16, mask: u8) -> Self {
        match granularity {
            Granularity::Global | Granularity::Domain => Self::All,
            Granularity::Selective => {
                // Function bit 2, bits 2 and 1, or all three.
                let mask = match mask & 3 {
                    0 => 0,
                    1 => 4,
                    2 => 6,
                    _ => 7,
                };
                Self::Requesters { id, mask }
            }
        }
    }

    /// An invalidation of the IOTLB; `None` if the pages are not valid.
    pub(crate) fn iotlb(granularity: Granularity, domain: u16, pages: Pages) -> Option<Self> {
        match granularity {
            Granularity::Global => Some(Self::Iotlb),
            Granularity::Domain => Some(Self::Domain(domain)),
            Granularity::Selective => Some(Self::Pages(domain, pages.0?)),
        }
    }

    fn reach(self, id: RequesterId, context: &ContextCache) -> Reach {
        match self {
            Self::All => Reach::Context,
            Self::Requesters { id: other, mask } if (id.0 ^ other) & !mask == 0 => Reach::Context,
            Self::Iotlb if context.domain().is_some() => Reach::Translations,
            Self::Domain(domain) if context.domain() == Some(domain) => Reach::Translations,
            Self::Pages(domain, pages) if context.domain() == Some(domain) => Reach::Pages(pages),
            _ => Reach::Nothing,
        }
    }
}

/// What an invalidation takes from one requester.
enum Reach {
    Nothing,
    Pages(Span<DeviceAddr>),
    /// All translations.
    Translations,
    /// The context entry, and all translations.
    Context,
}

/// Makes invalidations, of each domain those that concern it at once. Joins what has to be
/// waited for to `drain`.
pub(crate) fn invalidate(
    requesters: &Requesters,
    invalidations: &[Invalidation],
    drain: &mut Option<Drain>,
) -> Result<()> {
    ContextCache::look();
    for (&id, Requester { domain, remapping }) in requesters {
        let mut pages = SmallVec::<[Span<DeviceAddr>; 4]>::new();
        let mut all = false;
        for invalidation in invalidations {
            match invalidation.reach(id, &remapping.context) {
                Reach::Nothing => {}
                Reach::Pages(span) => pages.push(span),
                Reach::Translations => all = true,
                Reach::Context => {
                    all = true;
                    remapping.context.clear();
                }
            }
        }
        let revoked = if all {
            domain.invalidate_all()
        } else if pages.is_empty() {
            continue;
        } else {
            domain.invalidate_ranges(&pages)
        };
        let mut revoked = revoked?;
        if revoked.poll().is_none() {
            *drain = Some(match drain.take() {
                Some(before) => before.joined(revoked),
                None => revoked,
            });
        }
    }
    Ok(())
}
