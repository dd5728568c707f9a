//! DMA_MAP and DMA_UNMAP, and the replies to unmaps that have waited.

use gasp::{DeviceAddr, Drained, Span};

use super::drains::Waiting;
use super::irqs::eventfds;
use super::state::{Answer, Connection};
use crate::report::{Counters, ServerEvent};
use crate::socket::Received;
use crate::wire::{Bitmap, DmaMap, DmaUnmap, Header, Refused, Reply};

impl Connection<'_> {
    pub(super) fn dma_map(&mut self, payload: &[u8], fds: Received) -> Result<Reply, Refused> {
        let map = DmaMap::decode(payload)?;
        let irqs = self.service.shell.interrupts();
        self.space.map(map, fds, || eventfds(irqs))?;
        Ok(Reply::new())
    }

    pub(super) fn dma_unmap(&mut self, header: Header, payload: &[u8]) -> Result<Answer, Refused> {
        let (unmap, bitmap) = DmaUnmap::decode(payload)?;
        if let Some(bitmap) = bitmap {
            self.check_bitmap(&unmap, bitmap)?;
        }
        // Before anything is taken: a client could map and unmap what is held for ever.
        self.drains.check_room()?;
        let taken = self.space.unmap(&unmap)?;
        let mut waiting = Waiting { taken, header, unmap, bitmap };
        if let Some(drained) = waiting.taken.poll() {
            return Ok(Answer::Now(self.settle(waiting, drained)));
        }
        Counters::count(&self.service.counters.drains, 1);
        for span in &waiting.taken.spans {
            self.service.shell.revoked(*span);
        }
        Ok(match waiting.spin() {
            Some(drained) => Answer::Now(self.settle(waiting, drained)),
            None => Answer::Later(Box::new(waiting)),
        })
    }

    /// Checks that a bitmap has a bit for each page, and that the client has room for the reply.
    fn check_bitmap(&self, unmap: &DmaUnmap, bitmap: Bitmap) -> Result<(), Refused> {
        let Bitmap { page_size, size } = bitmap;
        if unmap.flags & DmaUnmap::ALL != 0 {
            return Err(Refused::invalid("an unmap of everything has no bitmap"));
        }
        if !page_size.is_power_of_two() || page_size < gasp::GRANULE {
            return Err(Refused::invalid(format!("a bitmap of pages of {page_size:#x} bytes")));
        }
        let needed = unmap.size.div_ceil(page_size).div_ceil(8);
        let most = u64::from(self.service.options.max_data_xfer_size);
        if size < needed || size > most {
            let what =
                format!("a bitmap of {size:#x} bytes, where {needed:#x} to {most:#x} will do");
            return Err(Refused::invalid(what));
        }
        let whole = DmaUnmap::reply_size(bitmap);
        match u64::from(unmap.argsz) >= whole {
            true => Ok(()),
            false => Err(Refused::invalid(format!("argsz is less than the {whole} of the reply"))),
        }
    }
}

impl Connection<'_> {
    /// Replies to the unmaps whose drains have ended.
    pub(super) fn finish_drains(&mut self) {
        let ended = self.drains.ended();
        // Before the replies: a client that has one finds the numbers as they are then.
        Counters::set(&self.service.counters.draining, self.drains.len() as u64);
        for (waiting, drained) in ended {
            let header = waiting.header;
            let reply = self.settle(waiting, drained);
            self.reply(header, reply);
        }
    }

    /// Completes an unmap whose drain has ended, and returns its reply.
    fn settle(&mut self, waiting: Waiting, drained: Drained) -> Reply {
        let Waiting { taken, unmap, bitmap, .. } = waiting;
        for span in &taken.spans {
            self.service.counters.report(|| ServerEvent::Unmapped {
                addr: span.start().0,
                len: span.len(),
                waited: drained.waited,
                detached: drained.detached,
            });
        }
        let reply = unmap_reply(unmap, bitmap, &taken.writable);
        // Before the reply is sent: nothing is left of what only this unmap needed.
        self.space.settle(taken);
        reply
    }
}

/// The reply to an unmap: the command again, and the bitmap if one was requested.
fn unmap_reply(unmap: DmaUnmap, bitmap: Option<Bitmap>, writable: &[Span<DeviceAddr>]) -> Reply {
    let Some(bitmap) = bitmap else {
        return Reply::new().put(&DmaUnmap { argsz: DmaUnmap::SIZE, ..unmap });
    };
    // It was checked against the client's argsz, which has 32 bits.
    let argsz = u32::try_from(DmaUnmap::reply_size(bitmap)).unwrap_or(u32::MAX);
    let mut reply = Reply::new().put(&DmaUnmap { argsz, ..unmap }).put(&bitmap);
    let Bitmap { page_size, size } = bitmap;
    let bits = reply.space(usize::try_from(size).unwrap_or(0));
    for span in writable {
        // What the device could write, it may have written.
        let first = (span.start().0 - unmap.addr) / page_size;
        let last = (span.last().0 - unmap.addr) / page_size;
        for page in first..=last {
            let byte = usize::try_from(page / 8).ok().and_then(|byte| bits.get_mut(byte));
            if let Some(byte) = byte {
                *byte |= 1 << (page % 8);
            }
        }
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_has_the_bits_of_writable_windows() {
        let bitmap = Some(Bitmap { page_size: 8192, size: 8 });
        let unmap = DmaUnmap { argsz: 48, flags: 1, addr: 0x10000, size: 0x20000 };
        let span = |start, len| Span::new(DeviceAddr(start), len).unwrap();
        let writable = [span(0x11000, 0x2000), span(0x2f000, 0x1000)];
        let bytes = unmap_reply(unmap, bitmap, &writable).command(0, 0);
        assert_eq!(bytes.len(), 16 + 24 + 16 + 8);
        assert_eq!(bytes[56..], [0b11, 0x80, 0, 0, 0, 0, 0, 0]);
    }
}
