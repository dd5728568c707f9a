//! The client's DMA map, as the guest's IOMMU: what the device may reach, through the
//! engine.
//!
//! Each connection has a [`gasp::Guest`] of its own. Its memory consists of the files that
//! the client passes: each is adopted and mapped **once**, whole, and placed at
//! guest-physical addresses of our own choice, which have no meaning outside. Each window
//! of the DMA map is a grant in the device's translating domain, from the client's
//! addresses to those. So a window of a known file is a write to a table, and no system
//! call maps anything.
//!
//! ```text
//!   DMA_MAP addr, size, file, offset          guest-physical (ours)
//!                                        ┌──────────────────────────────┐ 0
//!   device address ──► domain's grant ──► │ file A, whole  │ file B  │ …  │
//!                                        ├──────────────────────────────┤ half
//!                                        │ nothing: memory by message   │
//!                                        └──────────────────────────────┘
//! ```
//!
//! Memory without a descriptor is granted as well, in the upper half, where there is no
//! memory. So the engine checks its permissions like those of all other memory, and a map
//! of it fails for lack of memory, not of permission; [`messages`] does the rest.

mod admission;
mod descriptor;
mod files;
mod messages;
mod sharing;
mod windows;

use std::sync::Arc;

use gasp::{
    Access, DeviceAddr, Domain, DomainKind, DomainOptions, Drain, Drained, Guest, GuestPhys, Span,
    Unattached, Vdev,
};
use gasp_vdev::MessageMemory;

use crate::options::Options;
use crate::report::{Counters, ServerEvent};
use crate::socket::{Inbox, Received};
use crate::wire::{DmaMap, DmaUnmap, Refused};
use files::Files;
use messages::Messages;
use windows::{Backing, Window, Windows};

use gasp::Errno;

/// The windows of one connection, and the memory of each.
#[derive(Debug)]
pub(crate) struct DmaSpace {
    guest: Guest,
    domain: Domain,
    vdev: Vdev,
    windows: Arc<Windows>,
    files: Files,
    /// The inbox for the server's commands to the client.
    inbox: Arc<Inbox>,
    max_windows: usize,
    /// The end of the guest-physical memory; above it there is none.
    half: GuestPhys,
    counters: Arc<Counters>,
}

/// Windows that have been revoked, and whose mappings may still be held.
#[derive(Debug)]
pub(crate) struct Taken {
    drain: Drain,
    pub(crate) spans: Vec<Span<DeviceAddr>>,
    /// The windows that the device could write to.
    pub(crate) writable: Vec<Span<DeviceAddr>>,
    /// Requests to the client about them.
    requests: Arc<Inbox>,
    /// How many windows.
    pub(crate) windows: usize,
    /// The file of each window that had one.
    files: Vec<u64>,
}

impl Taken {
    /// How the drain ended, or `None` while mappings are held or requests are unanswered that
    /// the client may yet carry out.
    pub(crate) fn poll(&mut self) -> Option<Drained> {
        let requests = self.requests.busy(&self.spans);
        self.drain.poll_with(requests)
    }
}

impl DmaSpace {
    /// A space without windows, for the device `name`.
    pub(crate) fn new(
        name: &str,
        options: &Options,
        inbox: &Arc<Inbox>,
        max_windows: usize,
        peer: Option<i32>,
        counters: &Arc<Counters>,
    ) -> gasp::Result<Self> {
        let width = options.address_width.clamp(33, 52);
        let guest = Guest::builder()
            .name(name)
            .address_width(width)
            .iommu(Unattached::Deny)
            .drain(options.drain)
            .build()?;
        let domain = guest.domain(name, DomainOptions::new(DomainKind::Translate))?;
        let vdev = guest.vdev(name)?;
        vdev.attach(&domain)?.wait();
        let half = GuestPhys(1 << (width - 1));
        Ok(Self {
            files: Files::new(&guest, half, options, peer, counters),
            guest,
            domain,
            vdev,
            windows: Arc::default(),
            inbox: Arc::clone(inbox),
            max_windows,
            half,
            counters: Arc::clone(counters),
        })
    }

    pub(crate) fn guest(&self) -> &Guest {
        &self.guest
    }

    pub(crate) fn vdev(&self) -> &Vdev {
        &self.vdev
    }

    /// Access to memory without a descriptor, for the device.
    pub(crate) fn messages(&self, max: usize, options: &Options) -> Arc<dyn MessageMemory> {
        let (inbox, windows) = (Arc::clone(&self.inbox), Arc::clone(&self.windows));
        let counters = Arc::clone(&self.counters);
        Arc::new(Messages::new(inbox, windows, max, options.reply_deadline, counters))
    }

    /// Number of the client's descriptors that are held as memory files.
    pub(crate) fn descriptors(&self) -> usize {
        self.files.len()
    }

    /// Maps a window. `eventfds` returns how many descriptors of the client are held
    /// elsewhere.
    pub(crate) fn map(
        &mut self,
        map: DmaMap,
        mut fds: Received,
        eventfds: impl FnOnce() -> usize,
    ) -> Result<(), Refused> {
        let access = match map.flags {
            DmaMap::READ => Access::READ,
            DmaMap::WRITE => Access::WRITE,
            flags if flags == DmaMap::READ | DmaMap::WRITE => Access::RW,
            flags => return Err(Refused::invalid(format!("the flags {flags:#x} are not known"))),
        };
        if fds.len() > 1 {
            return Err(Refused::invalid(format!("{} descriptors for one window", fds.len())));
        }
        let span = Span::new(DeviceAddr(map.addr), map.size)
            .map_err(|reason| Refused::invalid(reason.to_string()))?;
        if !span.is_granular() {
            return Err(Refused::invalid("a window must consist of whole pages of 4 KiB"));
        }
        let windows = self.windows.lock();
        if windows.len() >= self.max_windows {
            let what = format!("there are already {} windows", self.max_windows);
            return Err(Refused::new(Errno::NOSPC, what));
        }
        if let Some(there) = windows.overlapping(span).next() {
            let what = format!("it overlaps the window at {}", there.start());
            return Err(Refused::new(Errno::EXIST, what));
        }
        drop(windows);
        let backing = match fds.pop() {
            Some(fd) => self.files.find(fd, map.offset, map.size, access, eventfds)?,
            None => Backing::Messages,
        };
        let guest = match backing {
            Backing::File { start, .. } => start,
            // Any address without memory will do.
            Backing::Messages => self.half,
        };
        let granted = self.domain.grant(span.start(), guest, span.len(), access);
        if let Backing::File { file, .. } = backing {
            match granted {
                Ok(_) => self.files.shown(file),
                // It may have been adopted for this window alone.
                Err(_) => self.files.release(file),
            }
        }
        granted?;
        self.windows.lock().insert(span, Window { access, backing, len: span.len() });
        Counters::count(&self.counters.windows, 1);
        Counters::count(&self.counters.window_bytes, span.len());
        if backing == Backing::Messages {
            Counters::count(&self.counters.by_message_bytes, span.len());
        }
        Counters::count(&self.counters.maps, 1);
        self.counters.report(|| ServerEvent::Mapped {
            addr: map.addr,
            len: map.size,
            writable: access.contains(Access::WRITE),
            mapped: backing != Backing::Messages,
        });
        Ok(())
    }

    /// Unmaps windows. No new transfer reaches them from now on; the returned drain waits for
    /// those in flight.
    pub(crate) fn unmap(&mut self, unmap: &DmaUnmap) -> Result<Taken, Refused> {
        let all = unmap.flags & DmaUnmap::ALL != 0;
        if all && (unmap.addr != 0 || unmap.size != 0) {
            return Err(Refused::invalid("an unmap of all windows takes no address and size"));
        }
        let taken = match all {
            true => self.windows.lock().remove_all(),
            false => {
                let span = Span::new(DeviceAddr(unmap.addr), unmap.size)
                    .map_err(|reason| Refused::invalid(reason.to_string()))?;
                self.windows.lock().remove(span)?
            }
        };
        let spans = windows::joined(&taken);
        let drain = self.domain.revoke_all(&spans)?;
        for span in &spans {
            self.inbox.cancel(*span);
        }
        let (mut writable, mut files) = (Vec::new(), Vec::new());
        for (span, window) in &taken {
            if let Backing::File { file, .. } = window.backing {
                self.files.leaves(file);
                files.push(file);
            }
            if window.access.contains(Access::WRITE) {
                writable.push(*span);
            }
            Counters::count(&self.counters.windows, 1_u64.wrapping_neg());
            Counters::count(&self.counters.window_bytes, span.len().wrapping_neg());
            if window.backing == Backing::Messages {
                Counters::count(&self.counters.by_message_bytes, span.len().wrapping_neg());
            }
        }
        Counters::count(&self.counters.unmaps, 1);
        let requests = Arc::clone(&self.inbox);
        Ok(Taken { drain, spans, writable, requests, windows: taken.len(), files })
    }

    /// Completes an unmap whose drain has ended: releases the files that no window shows any
    /// longer.
    pub(crate) fn settle(&mut self, taken: Taken) {
        let Taken { drain, files, .. } = taken;
        // It keeps the memory of the windows, and with it the files.
        drop(drain);
        files.into_iter().for_each(|file| self.files.left(file));
    }

    /// Total size of the memory files in bytes, if they look as if no guest had ever
    /// written to them.
    pub(crate) fn seems_unshared(&self) -> Option<u64> {
        self.files.all_empty()
    }
}

impl Drop for DmaSpace {
    /// The device's thread has ended by now, and released its mappings; a mapping that it
    /// still holds keeps its memory.
    fn drop(&mut self) {
        drop(self.vdev.clone().remove());
        Counters::set(&self.counters.windows, 0);
        Counters::set(&self.counters.window_bytes, 0);
        Counters::set(&self.counters.by_message_bytes, 0);
        Counters::set(&self.counters.files, 0);
    }
}
