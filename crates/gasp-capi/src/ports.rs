//! A guest's I/O ports: their regions, and the lock that serializes changes.
//!
//! A port has no memory, so no map looks anything up here.

use std::collections::BTreeMap;

use gasp::Errno;
use gasp::ffi::ThreadLock;
use parking_lot::{Mutex, MutexGuard};

use crate::boundary::{Failure, Outcome};
use crate::types::GRF_NONE;

/// The highest port.
pub(crate) const LAST: u64 = 0xffff;

/// The ports of one guest.
#[derive(Default)]
pub(crate) struct Ports {
    regions: Mutex<BTreeMap<u64, PortRegion>>,
    /// Owned by the thread that may change them.
    pub(crate) lock: ThreadLock,
}

/// A range of ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PortRegion {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) flags: u32,
    pub(crate) cookie: u32,
    /// The number of the emulating vdev, or 0.
    pub(crate) vdev: usize,
}

impl Ports {
    fn regions(&self) -> MutexGuard<'_, BTreeMap<u64, PortRegion>> {
        self.regions.lock()
    }

    /// The region at a port.
    pub(crate) fn at(&self, port: u64) -> Option<PortRegion> {
        let regions = self.regions();
        let (_, &region) = regions.range(..=port).next_back()?;
        (region.last >= port).then_some(region)
    }

    /// The first region that has a port of a range.
    pub(crate) fn first_in(&self, first: u64, last: u64) -> Option<PortRegion> {
        self.regions().values().find(|there| there.last >= first && there.first <= last).copied()
    }

    /// All regions, in order.
    pub(crate) fn all(&self) -> Vec<PortRegion> {
        self.regions().values().copied().collect()
    }

    /// The regions that a vdev emulates.
    pub(crate) fn of(&self, vdev: usize) -> Vec<PortRegion> {
        self.regions().values().filter(|region| region.vdev == vdev).copied().collect()
    }

    /// Adds, changes or deletes regions as `gasp_region_set` does. The caller owns the lock.
    pub(crate) fn set(&self, entry: PortRegion) -> Outcome {
        if entry.first > entry.last || entry.last > LAST {
            return Err(Failure::Call(Errno::NXIO, "the range extends past the last port, 0xffff"));
        }
        let mut regions = self.regions();
        let there: Vec<PortRegion> = regions
            .range(..=entry.last)
            .map(|(_, &region)| region)
            .filter(|region| region.last >= entry.first)
            .collect();
        let covered: u64 = there
            .iter()
            .map(|region| region.last.min(entry.last) - region.first.max(entry.first) + 1)
            .sum();
        if there.is_empty() && entry.flags == GRF_NONE {
            return Err(Failure::Call(Errno::NOENT, "there is no region in the range"));
        }
        let whole = covered == entry.last - entry.first + 1;
        if !there.is_empty() && !whole && entry.flags != GRF_NONE {
            return Err(Failure::Call(
                Errno::EXIST,
                "part of the range has a region, and part has none",
            ));
        }
        for region in there {
            regions.remove(&region.first);
            if region.first < entry.first {
                regions.insert(region.first, PortRegion { last: entry.first - 1, ..region });
            }
            if region.last > entry.last {
                regions.insert(entry.last + 1, PortRegion { first: entry.last + 1, ..region });
            }
        }
        if entry.flags != GRF_NONE {
            regions.insert(entry.first, entry);
        }
        Ok(())
    }

    /// The start of the lowest range without a region. `EINVAL` if the size is 0 or the alignment
    /// not a power of two; `ENOSPC` if no range is large enough.
    pub(crate) fn find_free(&self, size: u64, align: u64, min: u64, max: u64) -> Outcome<u64> {
        if size == 0 {
            return Err(Failure::invalid("the size is 0"));
        }
        if align > 1 && !align.is_power_of_two() {
            return Err(Failure::invalid("the alignment must be a power of two"));
        }
        let none = Failure::Call(Errno::NOSPC, "no free range of ports is large enough");
        let max = max.min(LAST);
        let regions = self.regions();
        let mut start = min;
        loop {
            let aligned = start.checked_next_multiple_of(align.max(1));
            let last = aligned.and_then(|start| start.checked_add(size - 1));
            let (Some(first), Some(last)) = (aligned, last) else { return Err(none) };
            if last > max {
                return Err(none);
            }
            let in_the_way = regions.range(..=last).next_back().map(|(_, region)| region);
            match in_the_way.filter(|region| region.last >= first) {
                Some(region) => start = region.last + 1,
                None => return Ok(first),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(first: u64, last: u64, flags: u32) -> PortRegion {
        PortRegion { first, last, flags, cookie: 1, vdev: 0 }
    }

    #[test]
    fn ranges_are_added_changed_cut_and_deleted() {
        let ports = Ports::default();
        ports.set(region(0x100, 0x1ff, 3)).unwrap();
        assert_eq!(ports.set(region(0x180, 0x27f, 3)).unwrap_err().errno(), libc::EEXIST);
        ports.set(region(0x140, 0x14f, 1)).unwrap();
        assert_eq!(ports.at(0x13f), Some(region(0x100, 0x13f, 3)));
        assert_eq!(ports.at(0x140), Some(region(0x140, 0x14f, 1)));
        assert_eq!(ports.at(0x150), Some(region(0x150, 0x1ff, 3)));
        ports.set(region(0, LAST, GRF_NONE)).unwrap();
        assert_eq!(ports.at(0x100), None);
        assert_eq!(ports.set(region(0, 1, GRF_NONE)).unwrap_err().errno(), libc::ENOENT);
        assert_eq!(ports.set(region(0xffff, 0x10000, 1)).unwrap_err().errno(), libc::ENXIO);
    }

    #[test]
    fn free_ranges_are_found_to_the_last_port() {
        let ports = Ports::default();
        ports.set(region(0, 0xfffe, 3)).unwrap();
        assert_eq!(ports.find_free(1, 0, 0, u64::MAX).unwrap(), 0xffff);
        assert!(ports.find_free(2, 0, 0, u64::MAX).is_err());
        ports.set(region(0x3f8, 0x3ff, GRF_NONE)).unwrap();
        assert_eq!(ports.find_free(4, 8, 0, u64::MAX).unwrap(), 0x3f8);
        assert!(ports.find_free(4, 8, 0x3f9, 0x3ff).is_err());
        assert!(ports.find_free(u64::MAX, 1 << 63, 1, u64::MAX).is_err());
    }
}
