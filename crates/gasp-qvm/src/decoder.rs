//! Which vdev an address or port belongs to, as the regions of the guest say at that moment.

use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::Arc;

use gasp_capi::embed::{self, ListedGuest, RegionAt};
use gasp_capi::types::{GRF_VIRT_RD, GRF_VIRT_WR};
use parking_lot::{Mutex, RwLock};

use crate::access::Access;
use crate::instance::Instance;
use crate::request::Space;

/// The registers of a guest's vdevs, for the accesses of its processors.
///
/// A region is its vdev's from the return of the call that has made it, which is
/// [`Instance::make_region`] or, in the vdev, `gasp_region_set()` or `gasp_region_set_soft()`. An
/// access that began before a change may still arrive after it.
///
/// Accesses to other addresses read as ones, and writes there are dropped; so are accesses of a
/// kind that the region does not have (`GRF_VIRT_RD`, `GRF_VIRT_WR`). An access that extends over
/// several regions is divided.
#[derive(Debug)]
pub struct Decoder {
    guest: ListedGuest,
    /// By the address of the `vdev_t`.
    vdevs: Mutex<BTreeMap<usize, Arc<Instance>>>,
    table: RwLock<Table>,
}

/// The regions of vdevs.
#[derive(Debug, Default)]
struct Table {
    /// The number of changes before which they were read; `None` if they have to be read.
    changes: Option<u64>,
    memory: Vec<Entry>,
    ports: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    start: u64,
    last: u64,
    flags: u32,
    cookie: u32,
    vdev: Arc<Instance>,
}

/// Whose an address is.
struct Found {
    vdev: Arc<Instance>,
    flags: u32,
    cookie: u32,
}

impl Decoder {
    /// A decoder for vdevs of `guest`, without any yet.
    pub fn new(guest: &ListedGuest) -> Self {
        let (vdevs, table) = (Mutex::default(), RwLock::default());
        Self { guest: guest.clone(), vdevs, table }
    }

    /// Adds a vdev.
    pub fn add(&self, vdev: &Arc<Instance>) {
        self.vdevs.lock().insert(vdev.address(), Arc::clone(vdev));
        self.table.write().changes = None;
    }

    /// Releases all vdevs: before their end.
    pub fn clear(&self) {
        self.vdevs.lock().clear();
        *self.table.write() = Table::default();
    }

    /// Reads registers.
    pub fn read(&self, space: Space, addr: u64, data: &mut [u8]) {
        data.fill(0xff);
        self.divided(space, addr, data.len(), |found, addr, part| {
            if let (true, Some(part)) = (found.flags & GRF_VIRT_RD != 0, data.get_mut(part)) {
                found.vdev.read(Access { space, addr, cookie: found.cookie }, part);
            }
        });
    }

    /// Writes registers.
    pub fn write(&self, space: Space, addr: u64, data: &[u8]) {
        self.divided(space, addr, data.len(), |found, addr, part| {
            if let (true, Some(part)) = (found.flags & GRF_VIRT_WR != 0, data.get(part)) {
                found.vdev.write(Access { space, addr, cookie: found.cookie }, part);
            }
        });
    }

    /// Calls `access` for each region's part of an access: its address, and its place in the
    /// access. No lock is held meanwhile: a vdev may change its regions in it.
    fn divided(
        &self,
        space: Space,
        addr: u64,
        len: usize,
        mut access: impl FnMut(&Found, u64, Range<usize>),
    ) {
        let mut done = 0;
        while done < len {
            let Some(at) = addr.checked_add(done as u64) else { return };
            let (found, piece) = self.find(space, at, len - done);
            if let Some(found) = found {
                access(&found, at, done..done + piece);
            }
            done += piece;
        }
    }

    /// Whose `at` is, and for how many of `len` bytes, at least one, that is so.
    fn find(&self, space: Space, at: u64, len: usize) -> (Option<Found>, usize) {
        let changes = self.guest.changes();
        let table = self.table.read();
        if table.changes == Some(changes) {
            return table.find(space, at, len);
        }
        drop(table);
        let mut table = self.table.write();
        // Another one may have done it meanwhile.
        let changes = self.guest.changes();
        if table.changes != Some(changes) {
            *table = self.current(changes);
        }
        table.find(space, at, len)
    }

    /// The regions after so many changes, or more.
    fn current(&self, changes: u64) -> Table {
        let vdevs = self.vdevs.lock();
        let entry = |region: RegionAt| {
            let vdev = Arc::clone(vdevs.get(&region.vdev.addr())?);
            let (start, last) = (*region.span.start(), *region.span.end());
            let emulated = region.flags & (GRF_VIRT_RD | GRF_VIRT_WR) != 0;
            emulated.then_some(Entry {
                start,
                last,
                flags: region.flags,
                cookie: region.cookie,
                vdev,
            })
        };
        let entries = |space| self.guest.regions(space).into_iter().filter_map(entry).collect();
        let (memory, ports) = (entries(embed::Space::Memory), entries(embed::Space::Ports));
        Table { changes: Some(changes), memory, ports }
    }
}

impl Table {
    fn find(&self, space: Space, at: u64, len: usize) -> (Option<Found>, usize) {
        let entries = match space {
            Space::Memory => &self.memory,
            Space::Ports => &self.ports,
            Space::Pci => return (None, len),
        };
        let up_to = |last: u64| {
            let more = usize::try_from(last - at).unwrap_or(usize::MAX);
            more.saturating_add(1).min(len)
        };
        match entries.get(entries.partition_point(|entry| entry.last < at)) {
            Some(entry) if entry.start <= at => {
                let vdev = Arc::clone(&entry.vdev);
                let found = Found { vdev, flags: entry.flags, cookie: entry.cookie };
                (Some(found), up_to(entry.last))
            }
            Some(next) => (None, up_to(next.start - 1)),
            None => (None, len),
        }
    }
}
