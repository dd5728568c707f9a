//! Message-signalled interrupts, and the two events that send them.

use crate::registers::{event_control, half, pair};

/// A message-signalled interrupt: a write of 4 bytes to the interrupt controllers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Message {
    /// The address, as the guest has programmed it. Those of interrupts have 0xfee in bits 31 to 20.
    pub address: u64,
    /// What is written there.
    pub data: u32,
}

/// Four registers in a row that make an event's interrupt: control, data, address, upper address.
#[derive(Debug)]
pub(crate) struct Event {
    masked: bool,
    pending: bool,
    data: u32,
    address: u64,
}

impl Event {
    /// As after a reset: masked.
    pub(crate) fn new() -> Self {
        Self { masked: true, pending: false, data: 0, address: 0 }
    }

    /// A new interrupt condition: the message to be sent, or nothing while the event is masked.
    #[must_use]
    pub(crate) fn raise(&mut self) -> Option<Message> {
        self.pending = true;
        self.deliver()
    }

    /// Software has served all conditions, so that no message is due for them.
    pub(crate) fn serve(&mut self) {
        self.pending = false;
    }

    /// The four registers, as two quads; `offset` is from the first of them.
    pub(crate) fn read(&self, offset: u64) -> u64 {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        let control = bit(self.masked, event_control::IM) | bit(self.pending, event_control::IP);
        if offset < 8 { pair(control, self.data) } else { self.address }
    }

    /// Writes one of the registers. Returns the message that was held back by the mask.
    #[must_use]
    pub(crate) fn write(&mut self, offset: u64, value: u32) -> Option<Message> {
        match offset {
            0 => {
                self.masked = value & event_control::IM != 0;
                return self.deliver();
            }
            4 => self.data = value,
            8 => self.address = pair(value & !3, half(self.address, 4)),
            _ => self.address = pair(half(self.address, 0), value),
        }
        None
    }

    fn deliver(&mut self) -> Option<Message> {
        if self.masked || !core::mem::take(&mut self.pending) {
            return None;
        }
        Some(Message { address: self.address, data: self.data })
    }
}
