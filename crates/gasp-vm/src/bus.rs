//! Ports and memory-mapped registers: which device an address belongs to.

use core::fmt;
use core::ops::Range;
use std::sync::Arc;

use parking_lot::RwLock;
use thiserror::Error;

/// A device with registers on a [`Bus`].
///
/// Several vCPUs call it at the same time; the device guards its state itself. No lock of the bus
/// is held meanwhile.
pub trait BusDevice: Send + Sync {
    /// Reads `data.len()` bytes at `offset` from the start of the device's range. Bytes that are
    /// not written are read as ones.
    ///
    /// The length is what the guest chose, 1 to 8 bytes at any alignment, or less at the end of
    /// the range.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Writes `data` at `offset` from the start of the device's range; lengths as for
    /// [`read`](Self::read).
    fn write(&self, offset: u64, data: &[u8]);
}

/// A range that a bus refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum BusError {
    /// The range is empty or extends past the last address.
    #[error("a range of {len:#x} bytes at {start:#x} is empty or extends past the last address")]
    Range {
        /// Where it begins.
        start: u64,
        /// How many bytes.
        len: u64,
    },
    /// Another device has a part of it.
    #[error(
        "the range of {len:#x} bytes at {start:#x} overlaps another device at {other:#x}; move one"
    )]
    Overlaps {
        /// Where it begins.
        start: u64,
        /// How many bytes.
        len: u64,
        /// Where the other device's range begins.
        other: u64,
    },
}

/// A device's range.
struct Entry {
    start: u64,
    last: u64,
    device: Arc<dyn BusDevice>,
}

/// A device, and an offset in its range.
struct Found {
    device: Arc<dyn BusDevice>,
    offset: u64,
}

/// An address space of registers: a VM has one of ports and one of memory addresses.
///
/// Accesses can have any length and alignment. One that extends over several devices is divided
/// between them; bytes that no device claims go to the [fallback](Self::set_fallback), if there is
/// one. Without one they are read as ones, and writes to them are dropped.
#[derive(Default)]
pub struct Bus(RwLock<Devices>);

/// The devices of a bus.
#[derive(Default)]
struct Devices {
    /// In order of address, without overlaps.
    entries: Vec<Entry>,
    /// The device of all other addresses.
    fallback: Option<Arc<dyn BusDevice>>,
}

impl Bus {
    /// Gives `device` the `len` bytes from `start` on.
    ///
    /// # Errors
    /// [`BusError::Range`], [`BusError::Overlaps`].
    pub fn add(&self, start: u64, len: u64, device: Arc<dyn BusDevice>) -> Result<(), BusError> {
        let last = len.checked_sub(1).and_then(|more| start.checked_add(more));
        let last = last.ok_or(BusError::Range { start, len })?;
        let entries = &mut self.0.write().entries;
        let at = entries.partition_point(|entry| entry.last < start);
        match entries.get(at) {
            Some(entry) if entry.start <= last => {
                Err(BusError::Overlaps { start, len, other: entry.start })
            }
            _ => {
                entries.insert(at, Entry { start, last, device });
                Ok(())
            }
        }
    }

    /// Removes the range that begins at `start`, and returns its device. An access that has begun
    /// may still be running in it.
    pub fn remove(&self, start: u64) -> Option<Arc<dyn BusDevice>> {
        let entries = &mut self.0.write().entries;
        let at = entries.binary_search_by_key(&start, |entry| entry.start).ok()?;
        Some(entries.remove(at).device)
    }

    /// Gives all addresses that no other device has to `device`, whose offsets are then addresses:
    /// for devices whose ranges change while the guest runs. Replaces the one before.
    ///
    /// The gap between two other devices is one range of it, and an access is divided there.
    pub fn set_fallback(&self, device: Option<Arc<dyn BusDevice>>) {
        self.0.write().fallback = device;
    }

    /// The start and last address of the first device that has a part of `start..=last`. The
    /// fallback has none.
    pub fn first_in(&self, start: u64, last: u64) -> Option<(u64, u64)> {
        let devices = self.0.read();
        let at = devices.entries.partition_point(|entry| entry.last < start);
        let entry = devices.entries.get(at)?;
        (entry.start <= last).then_some((entry.start, entry.last))
    }

    /// The last address of the first device that has a part of `start..=last`.
    pub(crate) fn last_in(&self, start: u64, last: u64) -> Option<u64> {
        self.first_in(start, last).map(|(_, last)| last)
    }

    /// Reads as the guest does.
    pub fn read(&self, addr: u64, data: &mut [u8]) {
        data.fill(0xff);
        self.divided(addr, data.len(), |device, offset, part| {
            if let Some(part) = data.get_mut(part) {
                device.read(offset, part);
            }
        });
    }

    /// Writes as the guest does.
    pub fn write(&self, addr: u64, data: &[u8]) {
        self.divided(addr, data.len(), |device, offset, part| {
            if let Some(part) = data.get(part) {
                device.write(offset, part);
            }
        });
    }

    /// Calls `access` for each device's part of an access: its offset in the device's range, and
    /// its place in the access.
    fn divided(
        &self,
        addr: u64,
        len: usize,
        mut access: impl FnMut(&dyn BusDevice, u64, Range<usize>),
    ) {
        let mut done = 0;
        while done < len {
            let Some(at) = addr.checked_add(done as u64) else { return };
            let (found, piece) = self.find(at, len - done);
            if let Some(Found { device, offset }) = found {
                access(&*device, offset, done..done + piece);
            }
            done += piece;
        }
    }

    /// The device at `at`, and for how many of `len` bytes, at least one, that is the answer.
    fn find(&self, at: u64, len: usize) -> (Option<Found>, usize) {
        let up_to = |last: u64| {
            let more = usize::try_from(last - at).unwrap_or(usize::MAX);
            more.saturating_add(1).min(len)
        };
        let Devices { entries, fallback } = &*self.0.read();
        let other = || Some(Found { device: Arc::clone(fallback.as_ref()?), offset: at });
        match entries.get(entries.partition_point(|entry| entry.last < at)) {
            Some(entry) if entry.start <= at => (
                Some(Found { device: Arc::clone(&entry.device), offset: at - entry.start }),
                up_to(entry.last),
            ),
            Some(next) => (other(), up_to(next.start - 1)),
            None => (other(), up_to(u64::MAX)),
        }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = self.0.read();
        let range = |entry: &Entry| format!("{:#x}..={:#x}", entry.start, entry.last);
        let ranges = devices.entries.iter().map(range);
        f.debug_list().entries(ranges).finish()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Answers with its number and the offset; remembers what is written.
    struct Noted(u8, Mutex<Vec<(u64, Vec<u8>)>>);

    impl BusDevice for Noted {
        fn read(&self, offset: u64, data: &mut [u8]) {
            for (index, byte) in data.iter_mut().enumerate() {
                *byte = self.0 + offset as u8 + index as u8;
            }
        }
        fn write(&self, offset: u64, data: &[u8]) {
            self.1.lock().push((offset, data.to_vec()));
        }
    }

    fn noted(number: u8) -> Arc<Noted> {
        Arc::new(Noted(number, Mutex::default()))
    }

    #[test]
    fn an_access_is_divided_at_the_ends_of_ranges_and_gaps_are_ones() {
        let bus = Bus::default();
        let (a, b) = (noted(0x10), noted(0x20));
        bus.add(0x100, 4, a.clone()).unwrap();
        bus.add(0x106, 2, b.clone()).unwrap();
        let mut data = [0; 8];
        bus.read(0x101, &mut data);
        assert_eq!(data, [0x11, 0x12, 0x13, 0xff, 0xff, 0x20, 0x21, 0xff]);
        bus.write(0xff, &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(*a.1.lock(), [(0, vec![2, 3, 4, 5])]);
        assert_eq!(*b.1.lock(), [(0, vec![8])]);
    }

    #[test]
    fn an_access_at_the_last_address_ends_there() {
        let bus = Bus::default();
        bus.add(u64::MAX, 1, noted(7)).unwrap();
        let mut data = [0; 4];
        bus.read(u64::MAX, &mut data);
        assert_eq!(data, [7, 0xff, 0xff, 0xff]);
        bus.write(u64::MAX - 1, &[0; 8]);
    }

    #[test]
    fn what_no_device_claims_goes_to_the_fallback_by_its_address() {
        let bus = Bus::default();
        let (a, rest) = (noted(0x10), noted(0));
        bus.add(0x4, 2, a.clone()).unwrap();
        bus.set_fallback(Some(rest.clone()));
        let mut data = [0; 8];
        bus.read(0x2, &mut data);
        assert_eq!(data, [2, 3, 0x10, 0x11, 6, 7, 8, 9]);
        bus.write(0x5, &[1, 2, 3]);
        assert_eq!((&*a.1.lock(), &*rest.1.lock()), (&vec![(1, vec![1])], &vec![(6, vec![2, 3])]));
        assert_eq!((bus.first_in(0, 3), bus.first_in(0, 4)), (None, Some((4, 5))));
        bus.set_fallback(None);
        bus.read(0x6, &mut data[..1]);
        assert_eq!(data[0], 0xff);
        // It is called without a lock of the bus.
        struct Changes(Arc<Bus>);
        impl BusDevice for Changes {
            fn read(&self, _: u64, _: &mut [u8]) {}
            fn write(&self, _: u64, _: &[u8]) {
                self.0.set_fallback(None);
            }
        }
        let bus = Arc::new(Bus::default());
        bus.set_fallback(Some(Arc::new(Changes(Arc::clone(&bus)))));
        bus.write(u64::MAX, &[0; 4]);
    }

    #[test]
    fn ranges_that_overlap_wrap_or_are_empty_are_refused() {
        let bus = Bus::default();
        bus.add(0x10, 0x10, noted(0)).unwrap();
        for (start, len) in [(0x1f, 1), (0x0, 0x11), (0x10, 0x10), (0x18, 1), (0, 0x100)] {
            let refused = bus.add(start, len, noted(1));
            assert_eq!(refused, Err(BusError::Overlaps { start, len, other: 0x10 }));
        }
        for (start, len) in [(0, 0), (u64::MAX, 2)] {
            assert_eq!(bus.add(start, len, noted(1)), Err(BusError::Range { start, len }));
        }
        bus.add(0xf, 1, noted(1)).unwrap();
        bus.add(0x20, 1, noted(1)).unwrap();
        assert!(bus.remove(0x11).is_none() && bus.remove(0x10).is_some());
        bus.add(0x10, 0x10, noted(2)).unwrap();
    }

    #[test]
    fn a_device_may_change_the_bus_while_it_is_called() {
        struct Moves(Arc<Bus>);
        impl BusDevice for Moves {
            fn read(&self, _: u64, _: &mut [u8]) {}
            fn write(&self, _: u64, _: &[u8]) {
                let device = self.0.remove(0).unwrap();
                self.0.add(8, 1, device).unwrap();
            }
        }
        let bus = Arc::new(Bus::default());
        bus.add(0, 1, Arc::new(Moves(Arc::clone(&bus)))).unwrap();
        bus.write(0, &[0]);
        assert!(bus.remove(8).is_some());
    }
}
