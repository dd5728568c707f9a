//! The request path of a virtio block device, and a driver that sends it three requests.
//!
//! `cargo run -p gasp-vm-memory --example block`
//!
//! The device reads each request's header, moves data between the guest's pages and its disk, and
//! writes the status, all through slices of one burst. The guest's IOMMU allows it the pages that
//! the driver has granted, and no others.

use std::error::Error;
use std::io::{Read, Write};

use gasp::{
    Access, DeviceAddr, DomainKind, DomainOptions, Guest, GuestPhys, MemoryObject, Unattached, Vdev,
};
use gasp_vm_memory::{Burst, DeviceMemory};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

const SECTOR: usize = 512;

/// A block device whose disk is in its own memory.
struct Block {
    memory: DeviceMemory,
    disk: Vec<u8>,
}

impl Block {
    /// Carries out the requests that are available, in one burst, and returns how many: at most as
    /// many as the queue has entries, so that a driver that adds more meanwhile cannot keep the
    /// burst, for which revokes wait.
    fn serve(&mut self, queue: &mut Queue) -> Result<u32, Box<dyn Error>> {
        let burst = self.memory.burst();
        let mut served = 0;
        while served < u32::from(queue.size())
            && let Some(chain) = queue.pop_descriptor_chain(&burst)
        {
            let head = chain.head_index();
            // A chain that is no request is used with nothing written.
            let written = self.request(&burst, chain).unwrap_or(0);
            queue.add_used(&burst, head, written)?;
            served += 1;
        }
        Ok(served)
    }

    /// Carries out one request and returns how many bytes were written to the guest.
    fn request(
        &mut self,
        burst: &Burst<Vdev>,
        chain: DescriptorChain<&Burst<Vdev>>,
    ) -> Result<u32, Box<dyn Error>> {
        let mut reader = chain.clone().reader(burst)?;
        let mut writer = chain.writer(burst)?;
        let [kind, _reserved]: [u32; 2] = [reader.read_obj()?, reader.read_obj()?];
        let sector: u64 = reader.read_obj()?;
        // The status is the last byte that the device may write.
        let data = writer.available_bytes().checked_sub(1).ok_or("no room for the status")?;
        let mut status = writer.split_at(data)?;
        let done = match kind {
            VIRTIO_BLK_T_IN => self.sectors(sector, data).map(|disk| writer.write_all(disk)),
            VIRTIO_BLK_T_OUT => {
                let data = reader.available_bytes();
                self.sectors(sector, data).map(|disk| reader.read_exact(disk))
            }
            _ => {
                status.write_all(&[VIRTIO_BLK_S_UNSUPP as u8])?;
                return Ok(1);
            }
        };
        let is_done = matches!(done, Some(Ok(())));
        let code = if is_done { VIRTIO_BLK_S_OK } else { VIRTIO_BLK_S_IOERR };
        status.write_all(&[code as u8])?;
        Ok(u32::try_from(writer.bytes_written())? + 1)
    }

    /// `len` bytes of the disk from `sector` on, if they are whole sectors of it.
    fn sectors(&mut self, sector: u64, len: usize) -> Option<&mut [u8]> {
        let start = usize::try_from(sector).ok()?.checked_mul(SECTOR)?;
        let end = start.checked_add(len).filter(|_| len.is_multiple_of(SECTOR))?;
        self.disk.get_mut(start..end)
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let guest = Guest::builder().iommu(Unattached::Deny).build()?;
    guest.space().add_ram(None, &MemoryObject::ram(2 << 20).create()?)?;
    let domain = guest.domain("disk", DomainOptions::new(DomainKind::Translate))?;
    let vdev = guest.vdev("disk")?;
    vdev.attach(&domain)?.wait();
    // The driver's pages: device addresses from 1 MiB on, in reverse order in its memory.
    for page in 0..8 {
        let (device, physical) = (0x10_0000 + page * 0x1000, (8 - page) * 0x1000);
        domain.grant(DeviceAddr(device), GuestPhys(physical), 0x1000, Access::RW)?;
    }

    // The driver: rings in the first page, headers and statuses in the second, data after them.
    let memory = DeviceMemory::new(vdev);
    let driver = memory.burst();
    let ring = MockSplitQueue::create(&driver, GuestAddress(0x10_0000), 16);
    let header = |request: u64| 0x10_1000 + request * 16;
    let status = |request: u64| 0x10_1800 + request;
    // A write of one sector, a read of it across two pages, and a read past the end of the disk.
    let requests = [
        (VIRTIO_BLK_T_OUT, 3_u64, 0x10_2000, 0),
        (VIRTIO_BLK_T_IN, 3, 0x10_3f00, 2),
        (VIRTIO_BLK_T_IN, 1 << 40, 0x10_5000, 2),
    ];
    let mut descriptors = Vec::new();
    for (request, (kind, sector, data, direction)) in (0..).zip(requests) {
        driver.write_obj(kind, GuestAddress(header(request)))?;
        driver.write_obj(sector, GuestAddress(header(request) + 8))?;
        let next = descriptors.len() as u16 + 1;
        descriptors.push(RawDescriptor::from(Descriptor::new(header(request), 16, 1, next)));
        let data = Descriptor::new(data, SECTOR as u32, 1 | direction, next + 1);
        descriptors.push(RawDescriptor::from(data));
        descriptors.push(RawDescriptor::from(Descriptor::new(status(request), 1, 2, 0)));
    }
    driver.write_slice(&[0x5a; SECTOR], GuestAddress(0x10_2000))?;
    ring.build_multiple_desc_chains(&descriptors)?;
    let mut queue: Queue = ring.create_queue()?;

    let mut block = Block { memory: memory.clone(), disk: vec![0; 64 * SECTOR] };
    assert_eq!(block.serve(&mut queue)?, 3);
    let mut statuses = [0xff; 3];
    driver.read_slice(&mut statuses, GuestAddress(status(0)))?;
    assert_eq!(statuses, [0, 0, 1]);
    let mut read = [0; SECTOR];
    driver.read_slice(&mut read, GuestAddress(0x10_3f00))?;
    assert_eq!(read, [0x5a; SECTOR]);
    println!("3 requests: one written, one read back across two pages, one refused");
    Ok(())
}
