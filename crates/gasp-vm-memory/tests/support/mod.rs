//! A device behind a translating domain whose pages are scattered.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use gasp::{
    Access, Backing, Deadline, DeviceAddr, Domain, DomainKind, DomainOptions, DrainPolicy, Guest,
    GuestPhys, MemoryObject, Residency, Unattached, Vdev,
};
use std::time::Duration;

pub(crate) const PAGE: u64 = 4096;

/// Guest-physical pages, so that no two consecutive device pages are consecutive there.
pub(crate) const PAGES: u64 = 64;

pub(crate) fn ram(len: u64) -> MemoryObject {
    let ram = MemoryObject::ram(len).prefer(&[Backing::Base]).residency(Residency::OnDemand);
    ram.create().unwrap()
}

/// Where a device page leads.
pub(crate) fn target(page: u64) -> GuestPhys {
    GuestPhys(page * 27 % PAGES * PAGE)
}

/// A guest with an IOMMU and [`PAGES`] pages of RAM.
pub(crate) fn guest() -> Guest {
    guest_with(DrainPolicy { deadline: Duration::from_secs(20), at_deadline: Deadline::Wait })
}

pub(crate) fn guest_with(policy: DrainPolicy) -> Guest {
    let guest = Guest::builder().iommu(Unattached::Deny).drain(policy).build().unwrap();
    guest.space().add_ram(None, &ram(PAGES * PAGE)).unwrap();
    guest
}

/// A device with all pages granted, scattered.
pub(crate) fn scattered(guest: &Guest) -> (Vdev, Domain) {
    let domain = guest.domain("dev", DomainOptions::new(DomainKind::Translate)).unwrap();
    let vdev = guest.vdev("dev").unwrap();
    vdev.attach(&domain).unwrap().wait();
    for page in 0..PAGES {
        domain.grant(DeviceAddr(page * PAGE), target(page), PAGE, Access::RW).unwrap();
    }
    (vdev, domain)
}
