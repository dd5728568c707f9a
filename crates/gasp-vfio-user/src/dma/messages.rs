//! Memory reached by messages: each copy is a command to the client, and its reply.
//!
//! A window may be unmapped while a copy of it waits for the client. The copy is then
//! cancelled at once, because the client may well wait for the unmap before it answers
//! anything else. What was written by then was sent before the reply to the unmap, on the
//! same socket, so the client knows which came first.

use core::time::Duration;
use std::sync::Arc;

use gasp::{Access, DeviceAddr, Errno, Span};
use gasp_vdev::MessageMemory;

use super::windows::{Backing, Windows};
use crate::report::Counters;
use crate::socket::Inbox;
use crate::wire::{Fields, Header, Reply, command};

/// Size of the fields address and count, in bytes.
const FIELDS: usize = 16;

/// Access to this memory, for the device of one connection.
#[derive(Debug)]
pub(super) struct Messages {
    inbox: Arc<Inbox>,
    windows: Arc<Windows>,
    /// Maximum size of the data in one message, in bytes; never 0.
    max: usize,
    deadline: Duration,
    counters: Arc<Counters>,
}

impl Messages {
    pub(super) fn new(
        inbox: Arc<Inbox>,
        windows: Arc<Windows>,
        max: usize,
        deadline: Duration,
        counters: Arc<Counters>,
    ) -> Self {
        Self { inbox, windows, max: max.max(1), deadline, counters }
    }

    /// Whether the range is in windows of this kind, all with this access.
    fn allows(&self, span: Span<DeviceAddr>, access: Access) -> bool {
        let windows = self.windows.lock();
        let mut next = Some(span.start());
        while let Some(addr) = next {
            match windows.containing(addr) {
                Some((found, window))
                    if window.backing == Backing::Messages && window.access.contains(access) =>
                {
                    if found.last() >= span.last() {
                        return true;
                    }
                    next = found.last().checked_add(1);
                }
                _ => return false,
            }
        }
        false
    }

    /// Sends one command, and returns the data of its reply, which must be `want` bytes.
    fn ask(
        &self,
        command: u16,
        addr: DeviceAddr,
        count: usize,
        data: &[u8],
        want: usize,
    ) -> Result<Vec<u8>, Errno> {
        let span = Span::new(addr, count as u64).map_err(|reason| reason.errno())?;
        let access = if command == command::DMA_WRITE { Access::WRITE } else { Access::READ };
        let message = Reply::with_capacity(FIELDS + data.len()).put(&[addr.0, count as u64]);
        let message = message.put(data);
        let allowed = || self.allows(span, access);
        let reply = self.inbox.request(command, span, message, self.deadline, allowed)?;
        Counters::count(&self.counters.message_bytes, count as u64);
        if reply.header.flags & Header::ERROR != 0 {
            // A client may report an error without an errno.
            let errno = i32::try_from(reply.header.error).ok().filter(|errno| *errno > 0);
            return Err(errno.map_or(Errno::IO, Errno::from_raw_os_error));
        }
        let mut fields = Fields::new(&reply.payload);
        let told = fields.read::<u64>().ok();
        // The count has 8 bytes in one direction and 4 in the other, by the protocol.
        let counted = match command {
            command::DMA_WRITE => fields.read::<u32>().map(u64::from).ok(),
            _ => fields.read::<u64>().ok(),
        };
        if (told, counted) != (Some(addr.0), Some(count as u64)) {
            return Err(Errno::BADMSG);
        }
        let data = if want == 0 { &[] } else { fields.rest() };
        match data.len() == want {
            true => Ok(data.to_vec()),
            false => Err(Errno::BADMSG),
        }
    }
}

impl MessageMemory for Messages {
    fn extent(&self, addr: DeviceAddr) -> Option<u64> {
        let (span, window) = self.windows.lock().containing(addr)?;
        (window.backing == Backing::Messages).then(|| span.last().0 - addr.0 + 1)
    }

    fn read(&self, mut addr: DeviceAddr, into: &mut [u8]) -> Result<(), Errno> {
        for part in into.chunks_mut(self.max) {
            let data = self.ask(command::DMA_READ, addr, part.len(), &[], part.len())?;
            part.copy_from_slice(&data);
            addr = DeviceAddr(addr.0.wrapping_add(part.len() as u64));
        }
        Ok(())
    }

    fn pause(&self, paused: bool) {
        self.inbox.pause(paused);
    }

    fn write(&self, mut addr: DeviceAddr, from: &[u8]) -> Result<(), Errno> {
        for part in from.chunks(self.max) {
            self.ask(command::DMA_WRITE, addr, part.len(), part, 0)?;
            addr = DeviceAddr(addr.0.wrapping_add(part.len() as u64));
        }
        Ok(())
    }
}
