//! Access to memory: a scattered request, an 8-byte read, a 4 KiB copy.

use std::hint::black_box;

use gasp::{DeviceAddr, GRANULE, MapFlags};

use super::recipe::{Contestant, Recipe, contestant, recipe};
use crate::peers::{Addresses, Order, Setup, VmMemory, addresses};

const GRANTS: u64 = 1024;
const PAGES: u64 = 64;

pub(super) fn recipes() -> Vec<Recipe> {
    vec![
        recipe("scatter map+unmap over 64 pages".into(), scatter),
        recipe("8-byte read, 1024 grants, random".into(), read_word),
        recipe("4 KiB copy, 1024 grants, random".into(), copy_page),
    ]
}

fn scatter() -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(GRANTS)?;
    let vm = VmMemory::with_grants(&setup, GRANTS)?;
    let (a, b) = (first_pages(), first_pages());
    let vdev = setup.vdev;
    Ok(vec![
        contestant("gasp", move |i| {
            let addr = DeviceAddr(a.at(i));
            if let Ok(scatter) = vdev.map_scatter(addr, PAGES * GRANULE, MapFlags::RW) {
                scatter.pieces().for_each(|piece| {
                    black_box(piece.as_ptr());
                });
            }
        }),
        contestant("vm-memory IommuMemory, RwLock", move |i| {
            vm.get_slices(b.at(i), PAGES * GRANULE);
        }),
    ])
}

/// Addresses at which 64 consecutive pages are granted.
fn first_pages() -> Addresses {
    addresses(GRANTS - PAGES, Order::Random)
}

fn read_word() -> gasp::Result<Vec<Contestant>> {
    read(8)
}

fn copy_page() -> gasp::Result<Vec<Contestant>> {
    read(4096)
}

fn read(len: usize) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(GRANTS)?;
    let vm = VmMemory::with_grants(&setup, GRANTS)?;
    let (a, b) = (addresses(GRANTS, Order::Random), addresses(GRANTS, Order::Random));
    let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
    let vdev = setup.vdev;
    Ok(vec![
        contestant("gasp", move |i| {
            let done = vdev.read(DeviceAddr(a.at(i)), black_box(&mut ours));
            black_box(done.is_ok());
        }),
        contestant("vm-memory IommuMemory, RwLock", move |i| {
            vm.read(b.at(i), black_box(&mut theirs));
        }),
    ])
}
