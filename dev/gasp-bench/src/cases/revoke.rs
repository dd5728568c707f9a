//! The control path: a grant and its revoke, with and without a holder.

use std::hint::black_box;

use gasp::{Access, DeviceAddr, GRANULE, GuestPhys, MapFlags};

use super::map::granted;
use super::recipe::{Contestant, Recipe, contestant, recipe};
use crate::peers::{Setup, VmMemory};

pub(super) fn recipes() -> Vec<Recipe> {
    let mut all = Vec::new();
    for grants in [1, 1024, 65_536, 1_048_576] {
        let name = format!("grant+revoke, no holder, {} more", granted(grants));
        all.push(recipe(name, move || no_holder(grants)));
    }
    for grants in [1, 1024, 65_536, 1_048_576] {
        let name = format!("grant+revoke, a holder, {} more", granted(grants));
        all.push(recipe(name, move || holder(grants)));
    }
    all
}

fn no_holder(grants: u64) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(grants)?;
    let vm = VmMemory::with_grants(&setup, grants)?;
    // The page in the middle, whose grant has been revoked.
    let (addr, domain) = (setup.gap_among(grants)?, setup.domain);
    let page = GuestPhys(GRANULE);
    Ok(vec![
        contestant("gasp", move |_| {
            let granted = domain.grant(DeviceAddr(addr), page, GRANULE, Access::RW);
            let revoked = domain.revoke(DeviceAddr(addr), GRANULE);
            black_box((granted.is_ok(), revoked.map(gasp::Drain::wait).is_ok()));
        }),
        contestant("vm-memory Iotlb (waits for nobody)", move |_| {
            vm.set_and_invalidate(addr);
        }),
    ])
}

/// The holder unmaps once the revoke has taken effect, and then the drain ends.
fn holder(grants: u64) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(grants)?;
    let (addr, domain, vdev) = (setup.gap_among(grants)?, setup.domain, setup.vdev);
    let page = GuestPhys(GRANULE);
    Ok(vec![contestant("gasp", move |_| {
        let granted = domain.grant(DeviceAddr(addr), page, GRANULE, Access::RW);
        let mapping = vdev.map(DeviceAddr(addr), 64, MapFlags::RW);
        let drain = domain.revoke(DeviceAddr(addr), GRANULE);
        drop(mapping);
        black_box((granted.is_ok(), drain.map(gasp::Drain::wait).is_ok()));
    })])
}
