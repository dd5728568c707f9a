//! A map that the guest's IOMMU refuses.

use std::hint::black_box;

use gasp::{DeviceAddr, MapFlags};

use super::recipe::{Contestant, Recipe, contestant, recipe};
use crate::peers::{Order, Setup, VmMemory, addresses};

const GRANTS: u64 = 1024;
const LEN: u64 = 64;

pub(super) fn recipes() -> Vec<Recipe> {
    vec![recipe(format!("refused map, {GRANTS} grants, random"), refused)]
}

/// Maps of pages after the last grant. The fault log is soon full, and then counts.
fn refused() -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(GRANTS)?;
    let vm = VmMemory::with_grants(&setup, GRANTS)?;
    let after = setup.free_page(GRANTS);
    let (a, b) = (addresses(GRANTS, Order::Random), addresses(GRANTS, Order::Random));
    let vdev = setup.vdev;
    Ok(vec![
        contestant("gasp", move |i| {
            let refused = vdev.map(DeviceAddr(after + a.at(i)), LEN, MapFlags::RW);
            black_box(refused.is_err());
        }),
        contestant("vm-memory IommuMemory (no record)", move |i| {
            vm.get_slices(after + b.at(i), LEN);
        }),
    ])
}
