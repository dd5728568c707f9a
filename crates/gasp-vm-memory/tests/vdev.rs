//! A virtio queue in a device of `gasp-vdev`, which borrows its context for each piece of work.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use core::sync::atomic::{AtomicU64, Ordering};

use gasp::{Access, GuestPhys};
use gasp_vdev::testbus::{Options, until};
use gasp_vdev::{Bar, Class, Device, DeviceContext, Identity, Model, Register};
use gasp_vm_memory::DeviceMemory;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemory, Permissions};

const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFERS: u64 = 0x4000;

/// Doubles the byte of each chain. Its register is the number of chains that it has used.
#[derive(Default)]
struct Doubler(AtomicU64);

impl Doubler {
    fn serve(&self, context: &DeviceContext) -> Result<(), Box<dyn std::error::Error>> {
        let memory = DeviceMemory::new(context);
        let burst = memory.burst();
        let mut queue = Queue::new(16)?;
        queue.try_set_desc_table_address(GuestAddress(DESCRIPTORS))?;
        queue.try_set_avail_ring_address(GuestAddress(AVAILABLE))?;
        queue.try_set_used_ring_address(GuestAddress(USED))?;
        queue.set_ready(true);
        assert!(queue.is_valid(&burst));
        assert!(!burst.check_range(GuestAddress(BUFFERS), 0x1001, Permissions::Read));
        while let Some(chain) = queue.pop_descriptor_chain(&burst) {
            let head = chain.head_index();
            let byte: u8 = chain.clone().reader(&burst)?.read_obj()?;
            chain.writer(&burst)?.write_obj(2 * byte)?;
            queue.add_used(&burst, head, 1)?;
            self.0.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }
}

impl Device for Doubler {
    fn model(&self) -> Model {
        let class = Class { base: 0xff, sub: 0, interface: 0 };
        let (vendor, device, subsystem_vendor, subsystem, revision) = (0x1234, 1, 0, 0, 0);
        let identity = Identity { vendor, device, subsystem_vendor, subsystem, revision, class };
        Model::new(identity).bar(Bar::memory(0, 4096)).pin()
    }

    fn read(&self, _: &DeviceContext, at: Register) -> u64 {
        at.part_of(0, self.0.load(Ordering::Acquire))
    }

    fn write(&self, context: &DeviceContext, _: Register, _: u64) {
        context.ring();
    }

    fn work(&self, context: &DeviceContext) {
        self.serve(context).unwrap();
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[test]
fn a_device_of_gasp_vdev_serves_a_queue_through_its_borrowed_context() {
    let bus = Options::default().iommu().attach(Doubler::default()).unwrap();
    let (pages, len) = (GuestPhys(DESCRIPTORS), BUFFERS + 0x1000 - DESCRIPTORS);
    bus.domain().unwrap().grant_identity(pages, len, Access::RW).unwrap();
    // A byte to read, and one to write: address, length, flags, next.
    for (index, flags, next) in [(0, 1_u16, 1_u16), (1, 2, 0)] {
        let at = DESCRIPTORS + index * 16;
        bus.store(at, &(BUFFERS + index).to_le_bytes()).unwrap();
        bus.store(at + 8, &1_u32.to_le_bytes()).unwrap();
        bus.store(at + 12, &flags.to_le_bytes()).unwrap();
        bus.store(at + 14, &next.to_le_bytes()).unwrap();
    }
    bus.store(BUFFERS, &[21]).unwrap();
    bus.store(AVAILABLE + 2, &1_u16.to_le_bytes()).unwrap();
    bus.write32(0, 0, 1).unwrap();
    until(|| (bus.read32(0, 0).unwrap() == 1).then_some(())).unwrap();
    let mut byte = [0];
    bus.load(BUFFERS + 1, &mut byte).unwrap();
    assert_eq!(byte, [42]);
    assert!(bus.guest().take_faults().records.is_empty(), "a question is no fault");
}
