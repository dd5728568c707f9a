//! The guest that all contestants use, and the addresses that they map.

use core::fmt;

use gasp::{
    Access, Backing, DeviceAddr, Domain, DomainKind, DomainOptions, GRANULE, Guest, GuestPhys,
    MemoryObject, Unattached, Vdev,
};

/// The order of the addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Same,
    Sequential,
    Random,
}

impl Order {
    pub(crate) const ALL: [Self; 3] = [Self::Same, Self::Sequential, Self::Random];

    /// Whether the order is distinct for this many pages: one page has only [`Order::Same`].
    pub(crate) fn makes_sense(self, grants: u64) -> bool {
        grants > 1 || self == Self::Same
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "same page",
            Self::Sequential => "sequential",
            Self::Random => "random",
        })
    }
}

/// Device addresses, in the order in which they are mapped.
#[derive(Clone)]
pub(crate) struct Addresses(Vec<u64>);

impl Addresses {
    /// As many as the grants of the largest case, and many more than a branch predictor
    /// learns; a power of two.
    const COUNT: usize = 1 << 20;

    /// The address for a running number, at next to no cost for the loop.
    #[inline]
    pub(crate) fn at(&self, index: usize) -> u64 {
        self.0.get(index % Self::COUNT).copied().unwrap_or(0)
    }
}

/// Device addresses inside the first `pages` pages.
pub(crate) fn addresses(pages: u64, order: Order) -> Addresses {
    addresses_of(0, pages, order)
}

/// Device addresses for one of several threads, each with a random order of its own.
pub(crate) fn addresses_of(thread: u64, pages: u64, order: Order) -> Addresses {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * thread + 1);
    let page = |index: u64, random: u64| match order {
        Order::Same => 0,
        Order::Sequential => index % pages,
        Order::Random => random % pages,
    };
    let all = (0..Addresses::COUNT as u64).map(|index| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        page(index, state >> 20) * GRANULE
    });
    Addresses(all.collect())
}

/// The guest-physical target of a page's grant: those of neighbours are not consecutive.
pub(crate) fn target(page: u64) -> u64 {
    (page.wrapping_mul(7919) % (Setup::RAM / GRANULE)) * GRANULE
}

/// A guest with RAM, a device, and the domain that the device is attached to.
pub(crate) struct Setup {
    pub(crate) vdev: Vdev,
    pub(crate) domain: Domain,
    pub(crate) memory: MemoryObject,
}

impl Setup {
    /// The guest's RAM, in bytes. With more grants than pages, several lead to one page.
    pub(crate) const RAM: u64 = 256 << 20;

    pub(crate) fn without_iommu() -> gasp::Result<Self> {
        Self::new(DomainKind::Bypass)
    }

    /// A translating domain with a grant for each of the first `grants` pages.
    pub(crate) fn with_grants(grants: u64) -> gasp::Result<Self> {
        let setup = Self::new(DomainKind::Translate)?;
        for page in 0..grants {
            let (device, guest) = (DeviceAddr(page * GRANULE), GuestPhys(target(page)));
            setup.domain.grant(device, guest, GRANULE, Access::RW)?;
        }
        Ok(setup)
    }

    fn new(kind: DomainKind) -> gasp::Result<Self> {
        let guest = Guest::builder().iommu(Unattached::Deny).build()?;
        let memory = MemoryObject::ram(Self::RAM)
            .prefer(&[Backing::Huge2M, Backing::Thp, Backing::Base])
            .create()?;
        guest.space().add_ram(None, &memory)?;
        let options = DomainOptions { limit: 1 << 21, ..DomainOptions::new(kind) };
        let domain = guest.domain("bench", options)?;
        let vdev = guest.vdev("bench")?;
        vdev.attach(&domain)?.wait();
        Ok(Self { vdev, domain, memory })
    }

    /// Revokes the page in the middle of the grants; returns its device address.
    pub(crate) fn gap_among(&self, grants: u64) -> gasp::Result<u64> {
        let addr = grants / 2 * GRANULE;
        self.domain.revoke(DeviceAddr(addr), GRANULE)?.wait();
        Ok(addr)
    }

    /// A device address after all grants.
    pub(crate) fn free_page(&self, grants: u64) -> u64 {
        (grants + 1) * GRANULE
    }
}
