//! A chain of descriptors, walked once and kept as plain data.

use core::ops::Deref;

use virtio_queue::DescriptorChain;
use vm_memory::GuestMemory;

use super::broken::Broken;
use super::segments::Segments;

/// A request of the driver: what the device reads, and what it writes.
///
/// It was read from the guest's memory once. What the guest writes to its descriptors afterwards
/// changes nothing, and nothing of the guest's memory is held for it.
#[derive(Clone, Debug)]
pub struct Chain {
    head: u16,
    /// What the device reads.
    pub readable: Segments,
    /// What the device writes.
    pub writable: Segments,
}

impl Chain {
    /// The index of its first descriptor, by which it is used.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Walks the descriptors: at most `limit`, the size of the queue (virtio 1.2, 2.7.5.2).
    pub(super) fn walk<M>(descriptors: DescriptorChain<M>, limit: u16) -> Result<Self, Broken>
    where
        M: Deref + Clone,
        M::Target: GuestMemory,
    {
        let head = descriptors.head_index();
        let mut chain = Self { head, readable: Segments::default(), writable: Segments::default() };
        // The iterator ends without a word at whatever it cannot follow, so its last descriptor
        // must be one that ends a chain.
        let (mut ended, mut writes) = (false, false);
        for (count, descriptor) in descriptors.enumerate() {
            if count >= usize::from(limit) {
                return Err(Broken::Chain { head });
            }
            let (addr, len) = (descriptor.addr().0, descriptor.len());
            match descriptor.is_write_only() {
                true => chain.writable.push(addr, len),
                false if writes => return Err(Broken::Order { head }),
                false => chain.readable.push(addr, len),
            }
            writes = descriptor.is_write_only();
            ended = !descriptor.has_next();
        }
        if ended { Ok(chain) } else { Err(Broken::Chain { head }) }
    }
}
