//! Primary fault logging: fault status, fault recording registers, the fault event.

use crate::message::{Event, Message};
use crate::registers::{fault_status as bits, half};
use crate::requester::RequesterId;

/// The number of fault recording registers.
pub(crate) const RECORDS: usize = 8;

/// Whether the register is in use: bit 127 of it.
const F: u64 = 1 << 63;
/// The type of the request, a read: bit 126.
const READ: u64 = 1 << 62;
const REASON: u32 = 32;

/// A fault to be recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) requester: RequesterId,
    /// The device address; its page is recorded.
    pub(crate) addr: u64,
    pub(crate) is_write: bool,
    /// The fault reason of the specification.
    pub(crate) reason: u8,
}

/// What is wrong with the invalidation queue (IQERCD.IQEI).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum QueueError {
    /// None of the others.
    Unknown = 0,
    /// The tail is past the end of the queue.
    Tail = 1,
    /// The descriptor cannot be read: it is not in system RAM.
    Fetch = 2,
    /// The unit has no descriptors of this type.
    Type = 3,
    /// A field has a reserved value.
    Reserved = 4,
}

/// The registers from FSTS to FEUADDR, IQERCD, and the fault recording registers.
#[derive(Debug)]
pub(crate) struct Faults {
    records: [[u64; 2]; RECORDS],
    /// Where the next fault goes.
    next: usize,
    /// Where the first pending one went.
    first: usize,
    has_overflown: bool,
    queue_error: Option<QueueError>,
    pub(crate) event: Event,
}

impl Faults {
    /// As after a reset.
    pub(crate) fn new() -> Self {
        Self {
            records: [[0; 2]; RECORDS],
            next: 0,
            first: 0,
            has_overflown: false,
            queue_error: None,
            event: Event::new(),
        }
    }

    /// Records a fault, if there is room; else sets the overflow, which software has to clear before
    /// anything is recorded again. Returns the fault event's message, if it is due.
    #[must_use]
    pub(crate) fn record(&mut self, fault: Fault) -> Option<Message> {
        if self.has_overflown {
            return None;
        }
        let Fault { requester, addr, is_write, reason } = fault;
        let is_pending = self.is_pending();
        let is_new = !self.has_status();
        let next = self.next;
        match self.records.get_mut(next) {
            Some(record) if record[1] & F == 0 => {
                let kind = if is_write { 0 } else { READ };
                let source = u64::from(requester.0);
                *record = [addr & !0xfff, F | kind | u64::from(reason) << REASON | source];
            }
            _ => {
                self.has_overflown = true;
                return None;
            }
        }
        self.next = (next + 1) % RECORDS;
        if !is_pending {
            self.first = next;
        }
        if is_new { self.event.raise() } else { None }
    }

    /// Records that the invalidation queue has stopped. Returns the fault event's message, if it is
    /// due.
    #[must_use]
    pub(crate) fn stop_queue(&mut self, error: QueueError) -> Option<Message> {
        let is_new = !self.has_status();
        self.queue_error = Some(error);
        if is_new { self.event.raise() } else { None }
    }

    /// Whether the invalidation queue has stopped because of an error (IQE).
    pub(crate) fn is_queue_stopped(&self) -> bool {
        self.queue_error.is_some()
    }

    /// FSTS.
    pub(crate) fn status(&self) -> u32 {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        bit(self.has_overflown, bits::PFO)
            | bit(self.is_pending(), bits::PPF)
            | bit(self.queue_error.is_some(), bits::IQE)
            | (self.first as u32) << bits::FRI
    }

    /// Writes FSTS: ones clear PFO and IQE.
    pub(crate) fn write_status(&mut self, value: u32) {
        if value & bits::PFO != 0 {
            self.has_overflown = false;
        }
        if value & bits::IQE != 0 {
            self.queue_error = None;
        }
        self.serve();
    }

    /// IQERCD.
    pub(crate) fn queue_error(&self) -> u64 {
        self.queue_error.map_or(0, |error| error as u64)
    }

    /// Half of a fault recording register; `offset` in bytes from the first of them. 0 past the last.
    pub(crate) fn read(&self, offset: u64) -> u64 {
        let record = self.records.get(offset as usize / 16);
        record.map_or(0, |&[low, high]| if offset % 16 < 8 { low } else { high })
    }

    /// Writes a quarter of a fault recording register: a one clears F.
    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        if let Some([_, high]) = self.records.get_mut(offset as usize / 16)
            && offset % 16 == 12
            && value & half(F, 4) != 0
        {
            *high &= !F;
            self.serve();
        }
    }

    /// No message is due any more, if software has cleared everything.
    fn serve(&mut self) {
        if !self.has_status() {
            self.event.serve();
        }
    }

    fn is_pending(&self) -> bool {
        self.records.iter().any(|[_, high]| high & F != 0)
    }

    fn has_status(&self) -> bool {
        self.has_overflown || self.queue_error.is_some() || self.is_pending()
    }
}
