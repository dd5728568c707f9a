//! A virtio queue: a chain of two descriptors is popped, its buffers are touched, and in some cases
//! it is given back as used, by virtio-queue over each kind of memory.
//!
//! Each contestant begins a turn as its own documentation says: gasp with a burst, vm-memory with
//! a clone of an `Arc` of the memory.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use gasp::{GRANULE, Location, Operation, Reason};
use gasp_vm_memory::DeviceMemory;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::recipe::{Contestant, Recipe, recipe};
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
    for (chains, turn) in [(1, "a chain a turn"), (16, "16 chains a turn")] {
        for (give_back, what) in [(false, "pop and touch"), (true, "pop, touch and give back")] {
            let run = Run { chains, give_back };
            all.push(recipe(format!("virtio queue: {what}, 1024 grants, {turn}"), move || {
                let setup = Setup::with_grants(GRANTS)?;
                let theirs = Arc::new(VmMemory::with_grants(&setup, GRANTS)?.iommu);
                let ours = DeviceMemory::new(setup.vdev);
                Ok(vec![
                    run.contestant("gasp", move || ours.burst(), |burst| burst)?,
                    run.contestant(
                        "vm-memory IommuMemory, RwLock",
                        move || Arc::clone(&theirs),
                        |memory| &**memory,
                    )?,
                ])
            }));
            all.push(recipe(format!("virtio queue: {what}, no IOMMU, {turn}"), move || {
                let setup = Setup::without_iommu()?;
                let theirs = Arc::new(VmMemory::without_iommu(&setup)?.plain);
                let ours = DeviceMemory::new(setup.vdev);
                Ok(vec![
                    run.contestant("gasp", move || ours.burst(), |burst| burst)?,
                    run.contestant(
                        "vm-memory GuestMemoryMmap",
                        move || Arc::clone(&theirs),
                        |memory| &**memory,
                    )?,
                ])
            }));
        }
    }
    all
}

/// What a device does.
#[derive(Clone, Copy)]
struct Run {
    /// How many chains it takes in each turn.
    chains: u32,
    /// Whether it marks them as used.
    give_back: bool,
}

impl Run {
    /// A device that takes chains through memory that `begin` returns for each turn.
    fn contestant<T: 'static, M: GuestMemory>(
        self,
        name: &'static str,
        begin: impl Fn() -> T + 'static,
        memory_of: impl Fn(&T) -> &M + 'static,
    ) -> gasp::Result<Contestant> {
        let what = Reason::Invalid("the queue cannot be laid out");
        let failed = || gasp::Error::new(Operation::Access, Location::Offset(0), GRANULE, what);
        lay_out(memory_of(&begin())).map_err(|_| failed())?;
        let mut queue = ready().map_err(|_| failed())?;
        let mut next = 0;
        let work = move |count: u32| {
            let start = Instant::now();
            let mut left = count;
            while left > 0 {
                let turn = begin();
                let memory = memory_of(&turn);
                for _ in 0..self.chains.min(left) {
                    queue.set_next_avail(next);
                    queue.set_next_used(next);
                    black_box(self.take(&mut queue, memory).is_some());
                    next = (next + 1) % CHAINS;
                }
                left = left.saturating_sub(self.chains);
            }
            start.elapsed()
        };
        Ok(Contestant { name, work: Box::new(work) })
    }

    /// Takes one chain, reads from its first buffer, writes to its second.
    fn take(self, queue: &mut Queue, memory: &impl GuestMemory) -> Option<()> {
        let mut chain = queue.pop_descriptor_chain(memory)?;
        let head = chain.head_index();
        let (first, second) = (chain.next()?, chain.next()?);
        let request: u64 = memory.read_obj(first.addr()).ok()?;
        memory.write_obj(request, second.addr()).ok()?;
        match self.give_back {
            true => queue.add_used(memory, head, second.len()).ok(),
            false => Some(()),
        }
    }
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
