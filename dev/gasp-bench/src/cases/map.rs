//! Map and unmap: with and without an IOMMU, one thread and two.

use std::hint::black_box;
use std::sync::Arc;

use gasp::{DeviceAddr, GRANULE, MapFlags, Vdev};

use super::recipe::{Contestant, Recipe, contestant, pair, recipe};
use crate::peers::{Floor, PerRequest, VmMemory};
use crate::peers::{Order, Setup, addresses, addresses_of};

const GRANTS: [u64; 5] = [1, 64, 1024, 65_536, 1_048_576];
const LEN: u64 = 64;

pub(super) fn recipes() -> Vec<Recipe> {
    let mut all = vec![recipe("map+unmap, bypass, random".into(), bypass)];
    for grants in GRANTS {
        for order in Order::ALL.into_iter().filter(|&order| order.makes_sense(grants)) {
            all.push(recipe(format!("map+unmap, {}, {order}", granted(grants)), move || {
                one_thread(grants, order)
            }));
        }
    }
    for grants in GRANTS {
        let order = if grants == 1 { Order::Same } else { Order::Random };
        let name = format!("map+unmap, {}, {order}, 2 threads", granted(grants));
        all.push(recipe(name, move || two_threads(grants, order)));
    }
    for grants in GRANTS {
        let order = if grants == 1 { Order::Same } else { Order::Random };
        let name = format!("host-contiguous, {}, {order}", granted(grants));
        all.push(recipe(name, move || host_contig(grants, order)));
    }
    all
}

/// The number of grants, in words.
pub(super) fn granted(grants: u64) -> String {
    if grants == 1 { "1 grant".into() } else { format!("{grants} grants") }
}

pub(super) fn map(vdev: &Vdev, addr: u64) {
    if let Ok(mapping) = vdev.map(DeviceAddr(addr), LEN, MapFlags::RW) {
        black_box(mapping.as_ptr());
    }
}

fn map_contig(vdev: &Vdev, addr: u64) {
    if let Ok(mapping) = vdev.map_host_contig(DeviceAddr(addr), LEN, MapFlags::RW) {
        black_box((mapping.as_ptr(), mapping.run()));
    }
}

fn bypass() -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::without_iommu()?;
    let addresses = addresses(Setup::RAM / GRANULE, Order::Random);
    let peer = VmMemory::without_iommu(&setup)?;
    let (a, b, vdev) = (addresses.clone(), addresses, setup.vdev);
    Ok(vec![
        contestant("gasp", move |i| map(&vdev, a.at(i))),
        contestant("vm-memory GuestMemoryMmap", move |i| {
            peer.get_slice(b.at(i), LEN);
        }),
    ])
}

fn one_thread(grants: u64, order: Order) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(grants)?;
    let vm = VmMemory::with_grants(&setup, grants)?;
    let floor = Floor::new(&setup, grants);
    let a = addresses(grants, order);
    let (b, c) = (a.clone(), a.clone());
    let mut all = Vec::new();
    let vdev = setup.vdev.clone();
    all.push(contestant("gasp", move |i| map(&vdev, a.at(i))));
    all.push(contestant("vm-memory IommuMemory, RwLock", move |i| {
        vm.get_slices(b.at(i), LEN);
    }));
    all.push(contestant("array look-up, the floor", move |i| floor.look_up(c.at(i))));
    if grants == 1 {
        let mut per_request = PerRequest::new()?;
        all.push(contestant("mmap+munmap each time", move |_| per_request.map()));
    }
    Ok(all)
}

fn two_threads(grants: u64, order: Order) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(grants)?;
    let vm = Arc::new(VmMemory::with_grants(&setup, grants)?);
    let of = |thread| Arc::new(addresses_of(thread, grants, order));
    let a = [of(0), of(1)];
    let b = a.clone();
    let vdev = setup.vdev;
    Ok(vec![
        pair("gasp", move |thread| {
            let (a, vdev) = (Arc::clone(&a[thread % 2]), vdev.clone());
            move |i| map(&vdev, a.at(i))
        }),
        pair("vm-memory IommuMemory, RwLock", move |thread| {
            let (b, vm) = (Arc::clone(&b[thread % 2]), Arc::clone(&vm));
            move |i| vm.get_slices(b.at(i), LEN)
        }),
    ])
}

fn host_contig(grants: u64, order: Order) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(grants)?;
    let a = addresses(grants, order);
    let b = a.clone();
    let (contig, plain) = (setup.vdev.clone(), setup.vdev);
    Ok(vec![
        contestant("gasp", move |i| map_contig(&contig, a.at(i))),
        contestant("gasp, plain map", move |i| map(&plain, b.at(i))),
    ])
}
