//! A virtio queue: a chain of two descriptors is popped, its buffers are touched, and it is
//! given back as used, by virtio-queue over each kind of memory.

use std::hint::black_box;

use gasp::{GRANULE, Location, Operation, Reason};
use gasp_vm_memory::DeviceMemory;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::recipe::{Contestant, Recipe, contestant, recipe};
use crate::peers::{Order, Setup, VmMemory, addresses};

const GRANTS: u64 = 1024;
const SIZE: u16 = 256;
/// Two descriptors each.
const CHAINS: u16 = SIZE / 2;

const DESCRIPTORS: GuestAddress = GuestAddress(0);
const AVAILABLE: GuestAddress = GuestAddress(GRANULE);
const USED: GuestAddress = GuestAddress(2 * GRANULE);
/// Pages from here on are buffers.
const BUFFERS: u64 = 3;

pub(super) fn recipes() -> Vec<Recipe> {
    let mut all = Vec::new();
    for chains in [1, 16] {
        let turn = match chains {
            1 => "a chain a turn".to_owned(),
            chains => format!("{chains} chains a turn"),
        };
        all.push(recipe(format!("virtio queue, 1024 grants, {turn}"), move || {
            let setup = Setup::with_grants(GRANTS)?;
            let vm = VmMemory::with_grants(&setup, GRANTS)?;
            let ours = DeviceMemory::new(setup.vdev);
            Ok(vec![
                turns("gasp", move || ours.burst(), chains)?,
                turns("vm-memory IommuMemory, RwLock", move || vm.iommu.clone(), chains)?,
            ])
        }));
        all.push(recipe(format!("virtio queue, no IOMMU, {turn}"), move || {
            let setup = Setup::without_iommu()?;
            let vm = VmMemory::without_iommu(&setup)?;
            let ours = DeviceMemory::new(setup.vdev);
            Ok(vec![
                turns("gasp", move || ours.burst(), chains)?,
                turns("vm-memory GuestMemoryMmap", move || vm.plain.clone(), chains)?,
            ])
        }));
    }
    all
}

/// A device that takes `chains` chains in each turn, through memory that `begin` returns for it.
fn turns<M: GuestMemory + 'static>(
    name: &'static str,
    begin: impl Fn() -> M + 'static,
    chains: usize,
) -> gasp::Result<Contestant> {
    let what = Reason::Invalid("the queue cannot be laid out");
    let failed = || gasp::Error::new(Operation::Access, Location::Offset(0), GRANULE, what);
    lay_out(&begin()).map_err(|_| failed())?;
    let mut queue = ready().map_err(|_| failed())?;
    let mut memory = begin();
    Ok(contestant(name, move |i| {
        if i % chains == 0 {
            memory = begin();
        }
        let next = (i % usize::from(CHAINS)) as u16;
        queue.set_next_avail(next);
        queue.set_next_used(next);
        black_box(take(&mut queue, &memory).is_some());
    }))
}

/// Takes one chain, reads from its first buffer, writes to its second.
fn take(queue: &mut Queue, memory: &impl GuestMemory) -> Option<()> {
    let mut chain = queue.pop_descriptor_chain(memory)?;
    let head = chain.head_index();
    let (first, second) = (chain.next()?, chain.next()?);
    let request: u64 = memory.read_obj(first.addr()).ok()?;
    memory.write_obj(request, second.addr()).ok()?;
    queue.add_used(memory, head, second.len()).ok()
}

/// All chains are available, with buffers in random pages.
fn lay_out(memory: &impl GuestMemory) -> Result<(), vm_memory::GuestMemoryError> {
    let pages = addresses(GRANTS - BUFFERS, Order::Random);
    for index in 0..SIZE {
        let buffer = pages.at(usize::from(index)) + BUFFERS * GRANULE;
        let is_first = index % 2 == 0;
        let (flags, next) = if is_first { (1, index + 1) } else { (2, 0) };
        let descriptor = Descriptor::new(buffer, 512, flags, next);
        let at = DESCRIPTORS.0 + u64::from(index) * 16;
        memory.write_obj(descriptor, GuestAddress(at))?;
    }
    for chain in 0..CHAINS {
        memory.write_obj(2 * chain, GuestAddress(AVAILABLE.0 + 4 + 2 * u64::from(chain)))?;
    }
    memory.write_obj(CHAINS, GuestAddress(AVAILABLE.0 + 2))
}

fn ready() -> Result<Queue, virtio_queue::Error> {
    let mut queue = Queue::new(SIZE)?;
    queue.try_set_desc_table_address(DESCRIPTORS)?;
    queue.try_set_avail_ring_address(AVAILABLE)?;
    queue.try_set_used_ring_address(USED)?;
    queue.set_ready(true);
    Ok(queue)
}
