//! A queue of a started device: requests on their way to the vdev and back.

use core::num::Wrapping;
use core::sync::atomic::{Ordering, fence};
use std::collections::HashMap;
use std::sync::Arc;

use gasp_virtio::Broken;
use gasp_vm_memory::{Burst, DeviceMemory};
use parking_lot::Mutex;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::chain::{Chain, Descriptor, rings};
use super::memory::RingMemory;

/// The most descriptors of all requests in progress of one queue: 24 MiB of the process's own
/// memory. An indirect table can be shared by all requests, so a guest could have 2^30.
const DESCRIPTORS_MAX: usize = 1 << 20;
/// How often the available index is read again after the driver was asked to notify.
const LOOKS: usize = 4;
/// VRING_AVAIL_F_NO_INTERRUPT (virtio 1.2, 2.7.6).
const NO_INTERRUPT: u16 = 1;

/// A descriptor's number for C: its index in the queue's table, or, in an indirect table, this bit
/// with the position in the chain and the chain's head.
const INDIRECT: u32 = 1 << 31;

/// A queue.
#[derive(Debug)]
pub(super) struct ActiveQueue {
    memory: DeviceMemory<RingMemory>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    queue: Queue,
    /// Requests that the vdev has taken, by head.
    taken: HashMap<u16, Arc<Chain>>,
    /// How many descriptors these have.
    descriptors: usize,
    /// Of which chain an entry of the table is: its head, and the position in it.
    places: Vec<(u16, u16)>,
    /// It was reset, or the driver has broken it.
    stopped: bool,
}

/// One descriptor of a request in progress.
pub(super) struct Found {
    chain: Arc<Chain>,
    position: usize,
    head: u16,
}

impl Found {
    pub(super) fn descriptor(&self) -> Option<Descriptor> {
        self.chain.descriptors.get(self.position).copied()
    }

    /// It, and those after it.
    pub(super) fn rest(&self) -> &[Descriptor] {
        self.chain.descriptors.get(self.position..).unwrap_or_default()
    }

    /// The number of the next descriptor.
    pub(super) fn next(&self) -> Option<u32> {
        let position = self.position + 1;
        let next = self.chain.descriptors.get(position)?;
        Some(match next.index {
            Some(index) => index.into(),
            // A chain has at most 2^15 descriptors, and a head is less than that.
            None => INDIRECT | (position as u32) << 16 | u32::from(self.head),
        })
    }
}

impl ActiveQueue {
    /// A queue that its driver has set up.
    pub(super) fn new(memory: DeviceMemory<RingMemory>, queue: Queue) -> Self {
        let places = vec![(0, 0); usize::from(queue.size())];
        let inner = Inner { queue, taken: HashMap::new(), descriptors: 0, places, stopped: false };
        Self { memory, inner: Mutex::new(inner) }
    }

    /// Takes the next request; its head. Once there is none, the driver notifies of the next one.
    pub(super) fn take(&self) -> Result<Option<u16>, Broken> {
        let mut inner = self.inner.lock();
        if inner.stopped {
            return Ok(None);
        }
        let taken = inner.take(&self.memory);
        inner.stop_if_broken(taken)
    }

    /// The descriptor of a number that [`take`](Self::take) or [`Found::next`] has returned, if its
    /// request is in progress.
    pub(super) fn find(&self, number: u32) -> Option<Found> {
        let inner = self.inner.lock();
        let (head, position) = match number & INDIRECT {
            0 => *inner.places.get(usize::try_from(number).ok()?)?,
            _ => (number as u16, ((number & !INDIRECT) >> 16) as u16),
        };
        let chain = inner.taken.get(&head)?;
        let position = usize::from(position);
        let descriptor = chain.descriptors.get(position)?;
        // Not an entry that another chain has, or had.
        let is_it = match (number & INDIRECT, position) {
            (0, 0) => number == u32::from(head),
            (0, _) => descriptor.index.is_some_and(|index| number == u32::from(index)),
            (_, _) => descriptor.index.is_none(),
        };
        is_it.then(|| Found { chain: Arc::clone(chain), position, head })
    }

    /// Returns a request to the driver, with the number of bytes written. Returns `None` if there is
    /// no such request; otherwise, if `notify`, whether the driver is to be interrupted.
    pub(super) fn put(&self, id: u32, written: u32, notify: bool) -> Result<Option<bool>, Broken> {
        let mut inner = self.inner.lock();
        if inner.stopped {
            // Nobody waits for it.
            return Ok(Some(false));
        }
        let Ok(head) = u16::try_from(id) else { return Ok(None) };
        let Some(chain) = inner.taken.remove(&head) else { return Ok(None) };
        inner.descriptors -= chain.descriptors.len();
        let put = inner.put(&self.memory, head, written, notify);
        inner.stop_if_broken(put).map(Some)
    }

    /// Ends it: after this nothing of it is written any more.
    pub(super) fn stop(&self) {
        self.inner.lock().stop();
    }
}

impl Inner {
    fn stop(&mut self) {
        self.stopped = true;
        self.taken.clear();
        self.descriptors = 0;
    }

    fn stop_if_broken<T>(&mut self, outcome: Result<T, Broken>) -> Result<T, Broken> {
        outcome.inspect_err(|_| self.stop())
    }

    fn take(&mut self, memory: &DeviceMemory<RingMemory>) -> Result<Option<u16>, Broken> {
        for _ in 0..LOOKS {
            let burst = memory.burst();
            let available = self.queue.avail_idx(&burst, Ordering::Acquire).map_err(rings)?;
            if available != Wrapping(self.queue.next_avail()) {
                return self.take_available(&burst).map(Some);
            }
            if !self.queue.enable_notification(&burst).map_err(rings)? {
                break;
            }
        }
        Ok(None)
    }

    fn take_available(&mut self, burst: &Burst<RingMemory>) -> Result<u16, Broken> {
        let next = self.queue.iter(burst).map_err(rings)?.next();
        let lost = || Broken::Rings("the available ring has an entry that cannot be read".into());
        let head = next.ok_or_else(lost)?.head_index();
        let chain = Chain::read(burst, self.queue.desc_table(), self.queue.size(), head)?;
        if self.taken.contains_key(&head) {
            let why = "it is made available a second time, before it is used";
            return Err(Broken::Rings(format!("the chain of descriptor {head}: {why}")));
        }
        let descriptors = self.descriptors.saturating_add(chain.descriptors.len());
        if descriptors > DESCRIPTORS_MAX {
            let why = format!("more than {DESCRIPTORS_MAX} descriptors are in progress");
            return Err(Broken::Rings(why));
        }
        self.descriptors = descriptors;
        // Of an indirect table the first descriptor has the number of the head.
        let indexes = chain.descriptors.iter().map(|descriptor| descriptor.index);
        for (position, index) in (0..).zip(indexes) {
            let index = if position == 0 { Some(head) } else { index };
            let place = index.and_then(|index| self.places.get_mut(usize::from(index)));
            if let Some(place) = place {
                *place = (head, position);
            }
        }
        self.taken.insert(head, Arc::new(chain));
        Ok(head)
    }

    fn put(
        &mut self,
        memory: &DeviceMemory<RingMemory>,
        head: u16,
        written: u32,
        notify: bool,
    ) -> Result<bool, Broken> {
        let burst = memory.burst();
        self.queue.add_used(&burst, head, written).map_err(rings)?;
        if !notify {
            return Ok(false);
        }
        if !self.queue.event_idx_enabled() {
            // The used index is written before the flags are read (2.7.7.2).
            fence(Ordering::SeqCst);
            let flags = GuestAddress(self.queue.avail_ring());
            let flags: u16 = burst.load(flags, Ordering::Relaxed).map_err(rings)?;
            return Ok(u16::from_le(flags) & NO_INTERRUPT == 0);
        }
        self.queue.needs_notification(&burst).map_err(rings)
    }
}
