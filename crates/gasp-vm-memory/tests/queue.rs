//! virtio-queue, unchanged, over bursts of a device behind a translating domain whose pages are
//! scattered.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use gasp::{Access, DeviceAddr, Domain, Guest, Vdev};
use gasp_vm_memory::{Burst, DeviceMemory};
use support::{PAGE, PAGES, guest, scattered, target};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const SIZE: u16 = 16;

fn raw(addr: u64, len: u32, flags: u16, next: u16) -> RawDescriptor {
    RawDescriptor::from(Descriptor::new(addr, len, flags, next))
}

/// The buffers of a chain: address, length, whether the device writes.
fn buffers<M>(chain: DescriptorChain<M>) -> Vec<(u64, u32, bool)>
where
    M: std::ops::Deref + Clone,
    M::Target: GuestMemory,
{
    chain.map(|desc| (desc.addr().0, desc.len(), desc.is_write_only())).collect()
}

struct Driver {
    memory: DeviceMemory,
    guest: Guest,
    domain: Domain,
    queue: Queue,
}

impl Driver {
    /// A queue of 16 whose rings begin at the end of a page and go on in another one, and chains
    /// that `descriptors` makes available.
    fn new(descriptors: &[RawDescriptor]) -> Self {
        let guest = guest();
        let (vdev, domain) = scattered(&guest);
        let memory = DeviceMemory::new(vdev);
        let burst = memory.burst();
        let mock = MockSplitQueue::create(&burst, GuestAddress(PAGE - 64), SIZE);
        mock.build_multiple_desc_chains(descriptors).unwrap();
        let queue: Queue = mock.create_queue().unwrap();
        assert!(queue.is_valid(&burst));
        drop(burst);
        Self { memory, guest, domain, queue }
    }

    fn burst(&self) -> Burst<Vdev> {
        self.memory.burst()
    }
}

#[test]
fn a_request_is_read_answered_and_used() {
    let mut driver = Driver::new(&[
        raw(4 * PAGE + 4000, 500, NEXT, 1),
        raw(6 * PAGE - 8, 16, WRITE, 0),
        raw(9 * PAGE, 1, 0, 0),
    ]);
    let burst = driver.burst();
    let request: Vec<u8> = (0..500).map(|byte| (byte % 256) as u8).collect();
    burst.write_slice(&request, GuestAddress(4 * PAGE + 4000)).unwrap();

    let chain = driver.queue.pop_descriptor_chain(&burst).unwrap();
    let head = chain.head_index();
    let mut reader = chain.clone().reader(&burst).unwrap();
    let mut writer = chain.writer(&burst).unwrap();
    let mut read = vec![0; 500];
    std::io::Read::read_exact(&mut reader, &mut read).unwrap();
    assert_eq!(read, request);
    std::io::Write::write_all(&mut writer, &[7; 16]).unwrap();
    driver.queue.add_used(&burst, head, 16).unwrap();
    let mut answer = [0; 16];
    burst.read_slice(&mut answer, GuestAddress(6 * PAGE - 8)).unwrap();
    assert_eq!(answer, [7; 16]);

    let second = driver.queue.pop_descriptor_chain(&burst).unwrap();
    assert_eq!(buffers(second), [(9 * PAGE, 1, false)]);
    assert!(driver.queue.pop_descriptor_chain(&burst).is_none());
    let used = GuestAddress(driver.queue.used_ring());
    let entry = |offset| burst.read_obj::<u32>(GuestAddress(used.0 + offset)).unwrap();
    assert_eq!((entry(0) >> 16, entry(4), entry(8)), (1, u32::from(head), 16));
}

#[test]
fn an_indirect_table_may_be_in_another_page_than_its_queue() {
    let mut driver = Driver::new(&[raw(20 * PAGE - 16, 3 * 16, INDIRECT, 0)]);
    let burst = driver.burst();
    let table = [
        raw(30 * PAGE, 10, NEXT, 1),
        raw(31 * PAGE, 20, NEXT | WRITE, 2),
        raw(32 * PAGE, 30, WRITE, 0),
    ];
    for (index, descriptor) in table.iter().enumerate() {
        let addr = GuestAddress(20 * PAGE - 16 + 16 * index as u64);
        burst.write_obj(Descriptor::from(*descriptor), addr).unwrap();
    }
    let chain = driver.queue.pop_descriptor_chain(&burst).unwrap();
    let expected = [(30 * PAGE, 10, false), (31 * PAGE, 20, true), (32 * PAGE, 30, true)];
    assert_eq!(buffers(chain), expected);
}

#[test]
fn the_event_index_suppresses_notifications() {
    let mut driver = Driver::new(&[raw(5 * PAGE, 8, 0, 0), raw(6 * PAGE, 8, 0, 0)]);
    driver.queue.set_event_idx(true);
    // The mock's used ring begins where the event index of the available ring is.
    driver.queue.set_used_ring_address(Some(40 * PAGE as u32), Some(0));
    let burst = driver.burst();
    // The driver asks for an interrupt after the second used entry: used_event is 1.
    let used_event = driver.queue.avail_ring() + 4 + 2 * u64::from(SIZE);
    burst.write_obj(1_u16, GuestAddress(used_event)).unwrap();
    let mut needed = Vec::new();
    for _ in 0..2 {
        let head = driver.queue.pop_descriptor_chain(&burst).unwrap().head_index();
        driver.queue.add_used(&burst, head, 0).unwrap();
        needed.push(driver.queue.needs_notification(&burst).unwrap());
    }
    assert_eq!(needed, [false, true]);
    assert!(!driver.queue.enable_notification(&burst).unwrap(), "nothing new is available");
    let avail_event = driver.queue.used_ring() + 4 + 8 * u64::from(SIZE);
    assert_eq!(burst.read_obj::<u16>(GuestAddress(avail_event)).unwrap(), 2);
}

#[test]
fn a_queue_whose_rings_are_not_granted_is_not_valid() {
    let driver = Driver::new(&[raw(5 * PAGE, 8, 0, 0)]);
    let rings = [driver.queue.desc_table(), driver.queue.avail_ring(), driver.queue.used_ring()];
    for ring in rings {
        let page = ring / PAGE;
        driver.domain.revoke(DeviceAddr(page * PAGE), PAGE).unwrap().wait();
        assert!(!driver.queue.is_valid(&driver.burst()), "{ring:#x}");
        driver.domain.grant(DeviceAddr(page * PAGE), target(page), PAGE, Access::RW).unwrap();
        assert!(driver.queue.is_valid(&driver.burst()));
    }
    // The device writes to the used ring.
    let page = rings[2] / PAGE;
    driver.domain.revoke(DeviceAddr(page * PAGE), PAGE).unwrap().wait();
    driver.domain.grant(DeviceAddr(page * PAGE), target(page), PAGE, Access::READ).unwrap();
    assert!(!driver.queue.is_valid(&driver.burst()));
    assert!(driver.guest.take_faults().records.is_empty(), "a question is no fault");
}

#[test]
fn a_descriptor_outside_of_what_is_granted_ends_the_chain_or_its_buffer() {
    let outside = PAGES * PAGE;
    let mut driver = Driver::new(&[
        raw(outside - 4, 8, 0, 0),
        raw(u64::MAX - 4, 64, 0, 0),
        raw(outside, 16, INDIRECT, 0),
        raw(3 * PAGE, 0, 0, 0),
    ]);
    let burst = driver.burst();
    let mut chains = Vec::new();
    while let Some(chain) = driver.queue.pop_descriptor_chain(&burst) {
        chains.push(chain);
    }
    let readable = |chain: DescriptorChain<&Burst<Vdev>>| chain.reader(&burst).is_ok();
    assert_eq!(chains.into_iter().map(readable).collect::<Vec<_>>(), [false, false, true, true]);
}

#[test]
fn what_is_revoked_while_a_burst_holds_it_stays_until_the_burst_ends() {
    let mut driver = Driver::new(&[raw(4 * PAGE, 512, NEXT, 1), raw(5 * PAGE, 512, WRITE, 0)]);
    let burst = driver.memory.burst();
    let chain = driver.queue.pop_descriptor_chain(&burst).unwrap();
    let head = chain.head_index();
    let buffer = burst.get_slices(GuestAddress(5 * PAGE), 512, Permissions::Write).unwrap();
    let buffer = buffer.map(Result::unwrap).next().unwrap();
    // The guest takes back the buffer, and one that has not been touched.
    let mut held = driver.domain.revoke(DeviceAddr(5 * PAGE), PAGE).unwrap();
    assert!(driver.domain.revoke(DeviceAddr(4 * PAGE), PAGE).unwrap().wait().completed());
    assert!(chain.reader(&burst).is_err(), "new slices are refused");
    buffer.write_slice(&[3; 512], 0).unwrap();
    assert_eq!(held.poll(), None);
    driver.queue.add_used(&burst, head, 512).unwrap();
    drop(burst);
    assert!(held.wait().completed());
}
