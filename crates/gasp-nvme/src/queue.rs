//! Submission and completion queues (NVMe 1.4, 4.1): rings in the guest's memory.
//!
//! The memory is mapped for each entry only, so a guest that revokes it never waits; the next
//! access then fails, which is fatal to the controller until the guest resets it, as it is to a
//! real one.

use core::sync::atomic::Ordering;

use gasp::{DeviceAddr, Dma, MapFlags};
use gasp_vdev::{DeviceContext, DmaError};
use zerocopy::{IntoBytes, transmute};

use super::command::{COMPLETION, Command, Completion};
use super::doorbell_buffers::Known;
use super::status::Status;

/// The location and the size of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    base: u64,
    size: u32,
    entry: u64,
}

impl Ring {
    /// A ring of `size` entries of `entry` bytes; `None` if it would extend past the end of the
    /// address space.
    pub(super) fn new(base: u64, size: u32, entry: u64) -> Option<Self> {
        base.checked_add(u64::from(size) * entry)?;
        Some(Self { base, size, entry })
    }

    /// The address of an entry; `index` is below the size.
    fn addr(&self, index: u32) -> DeviceAddr {
        DeviceAddr(self.base + u64::from(index) * self.entry)
    }

    fn next(&self, index: u32) -> u32 {
        if index + 1 == self.size { 0 } else { index + 1 }
    }

    /// The number of entries from `from` to `to`.
    fn distance(&self, from: u32, to: u32) -> u32 {
        if to >= from { to - from } else { self.size - from + to }
    }
}

/// An invalid value that the guest wrote to a doorbell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BadValue;

/// A submission queue.
#[derive(Debug)]
pub(super) struct SubmissionQueue {
    ring: Ring,
    head: u32,
    tail: u32,
    /// The queue that its completions go to.
    pub(super) completes_to: u16,
    /// Of its tail.
    pub(super) shadow: Known,
}

impl SubmissionQueue {
    pub(super) fn new(ring: Ring, completes_to: u16) -> Self {
        Self { ring, head: 0, tail: 0, completes_to, shadow: Known::default() }
    }

    /// The index after the last entry that the guest has submitted.
    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// The index of the entry that is fetched next, for completions (4.6: SQHD).
    pub(super) fn head(&self) -> u16 {
        self.head as u16
    }

    /// Sets the tail, which the guest has written to the doorbell (3.1.24).
    pub(super) fn set_tail(&mut self, tail: u32) -> Result<(), BadValue> {
        if tail >= self.ring.size {
            return Err(BadValue);
        }
        self.tail = tail;
        Ok(())
    }

    /// Fetches the next command; the queue is not empty.
    pub(super) fn fetch(&mut self, device: &DeviceContext) -> Result<Command, DmaError> {
        let command = device.read_obj(self.ring.addr(self.head))?;
        self.head = self.ring.next(self.head);
        Ok(command)
    }
}

/// A completion queue.
#[derive(Debug)]
pub(super) struct CompletionQueue {
    ring: Ring,
    /// The first entry that the guest has not consumed.
    head: u32,
    tail: u32,
    /// The phase tag of the next completion.
    pub(super) phase: bool,
    /// The interrupt vector of completions, if any.
    pub(super) vector: Option<u16>,
    /// Of its head.
    pub(super) shadow: Known,
}

impl CompletionQueue {
    pub(super) fn new(ring: Ring, vector: Option<u16>) -> Self {
        Self { ring, head: 0, tail: 0, phase: true, vector, shadow: Known::default() }
    }

    /// The index of the first entry that the guest has not consumed.
    pub(super) fn head(&self) -> u32 {
        self.head
    }

    pub(super) fn is_full(&self) -> bool {
        self.ring.next(self.tail) == self.head
    }

    /// Whether the guest has completions to consume.
    pub(super) fn is_waiting(&self) -> bool {
        self.head != self.tail
    }

    /// Sets the head, which the guest has written to the doorbell (3.1.25). It cannot pass the
    /// tail.
    pub(super) fn set_head(&mut self, head: u32) -> Result<(), BadValue> {
        let ring = self.ring;
        if head >= ring.size || ring.distance(self.head, head) > ring.distance(self.head, self.tail)
        {
            return Err(BadValue);
        }
        self.head = head;
        Ok(())
    }

    /// Posts a completion; the queue is not full.
    pub(super) fn post(
        &mut self,
        device: &DeviceContext,
        result: u32,
        submitted: (u16, u16),
        command: u16,
        status: Status,
    ) -> Result<(), DmaError> {
        let at = self.ring.addr(self.tail);
        let completion = Completion::new(result, submitted, command, status, self.phase);
        let [low, high]: [u64; 2] = transmute!(completion);
        match device.map(at, COMPLETION, MapFlags::WRITE) {
            Ok(entry) => {
                entry.store(0, low, Ordering::Relaxed)?;
                // The phase tag is stored last, after the rest of the entry and the data of the
                // command.
                entry.store(8, high, Ordering::Release)?;
            }
            Err(DmaError::NoDescriptor { .. }) => {
                device.write(at, low.as_bytes())?;
                device.write(DeviceAddr(at.0 + 8), high.as_bytes())?;
            }
            Err(error) => return Err(error),
        }
        self.tail = self.ring.next(self.tail);
        self.phase ^= self.tail == 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doorbell_values_outside_the_ring_or_ahead_of_the_controller_are_refused() {
        let ring = Ring::new(0x1000, 4, 16).unwrap();
        let mut submission = SubmissionQueue::new(ring, 1);
        assert_eq!(submission.set_tail(4), Err(BadValue));
        assert_eq!(submission.set_tail(3), Ok(()));
        assert!(!submission.is_empty());
        let mut completion = CompletionQueue::new(ring, None);
        assert_eq!(completion.set_head(1), Err(BadValue), "nothing was posted");
        (completion.head, completion.tail) = (3, 1);
        assert_eq!(completion.set_head(2), Err(BadValue));
        assert_eq!(completion.set_head(0), Ok(()));
        assert!(completion.is_waiting());
        assert_eq!(completion.set_head(1), Ok(()));
        completion.tail = 0;
        assert!(completion.is_full());
    }

    #[test]
    fn a_ring_past_the_end_of_all_addresses_is_refused() {
        assert!(Ring::new(u64::MAX - 4095, 64, 64).is_none());
        assert!(Ring::new(u64::MAX - 8191, 64, 64).is_some());
    }
}
