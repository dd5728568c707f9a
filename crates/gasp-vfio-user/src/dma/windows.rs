//! The windows of a connection, by device address. They never overlap.

use std::collections::BTreeMap;

use gasp::{Access, DeviceAddr, GuestPhys, Span};
use parking_lot::{Mutex, MutexGuard};

use crate::wire::Refused;

/// The memory of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Backing {
    /// A part of a file, which the device can map.
    File {
        /// The file's number.
        file: u64,
        /// The guest-physical address of the part.
        start: GuestPhys,
    },
    /// No memory that can be mapped; the client is asked by messages.
    Messages,
}

/// One window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    pub(super) access: Access,
    pub(super) backing: Backing,
    pub(super) len: u64,
}

/// All windows, which the device's threads look up, too.
#[derive(Debug, Default)]
pub(super) struct Windows(Mutex<Table>);

/// The windows, by their first address.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<u64, Window>);

impl Windows {
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock()
    }
}

fn span_of(start: u64, window: &Window) -> Option<Span<DeviceAddr>> {
    Span::new(DeviceAddr(start), window.len).ok()
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn insert(&mut self, span: Span<DeviceAddr>, window: Window) {
        self.0.insert(span.start().0, window);
    }

    /// The window that contains an address.
    pub(super) fn containing(&self, addr: DeviceAddr) -> Option<(Span<DeviceAddr>, Window)> {
        let (start, window) = self.0.range(..=addr.0).next_back()?;
        let span = span_of(*start, window)?;
        span.contains(addr).then_some((span, *window))
    }

    /// The windows that overlap `span`.
    pub(super) fn overlapping(
        &self,
        span: Span<DeviceAddr>,
    ) -> impl Iterator<Item = Span<DeviceAddr>> + '_ {
        let first =
            self.containing(span.start()).map_or(span.start().0, |(found, _)| found.start().0);
        self.0.range(first..=span.last().0).filter_map(|(start, window)| span_of(*start, window))
    }

    /// Removes the windows in `span`, be it one, several or none, as VFIO's type 1 IOMMU
    /// does. A VMM relies on it: whenever a guest moves the root of its IOMMU's tables,
    /// QEMU unmaps all addresses, in powers of two, without checking what is mapped.
    pub(super) fn remove(
        &mut self,
        span: Span<DeviceAddr>,
    ) -> Result<Vec<(Span<DeviceAddr>, Window)>, Refused> {
        let found: Vec<_> = self.overlapping(span).collect();
        if let Some(cut) = found.iter().find(|window| !span.covers(window)) {
            return Err(Refused::invalid(format!("{span} would cut the window {cut}")));
        }
        let found = found.into_iter();
        Ok(found.filter_map(|span| Some((span, self.0.remove(&span.start().0)?))).collect())
    }

    /// Removes all windows.
    pub(super) fn remove_all(&mut self) -> Vec<(Span<DeviceAddr>, Window)> {
        let all = core::mem::take(&mut self.0).into_iter();
        all.filter_map(|(start, window)| Some((span_of(start, &window)?, window))).collect()
    }
}

/// The ranges of windows in order, with adjacent ones joined.
pub(super) fn joined(windows: &[(Span<DeviceAddr>, Window)]) -> Vec<Span<DeviceAddr>> {
    let mut spans: Vec<Span<DeviceAddr>> = Vec::new();
    for (span, _) in windows {
        match spans.last_mut() {
            Some(last) if last.last().checked_add(1) == Some(span.start()) => {
                if let Some(both) = Span::inclusive(last.start(), span.last()) {
                    *last = both;
                }
            }
            _ => spans.push(*span),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use gasp::Errno;

    fn span(start: u64, len: u64) -> Span<DeviceAddr> {
        Span::new(DeviceAddr(start), len).unwrap()
    }

    fn table(windows: &[(u64, u64)]) -> Table {
        let mut table = Table::default();
        for &(start, len) in windows {
            let window = Window { access: Access::RW, backing: Backing::Messages, len };
            table.insert(span(start, len), window);
        }
        table
    }

    #[test]
    fn overlaps_are_found_wherever_they_are() {
        let table = table(&[(0x1000, 0x1000), (0x4000, 0x4000)]);
        for (start, len, found) in [
            (0, 0x1000, 0),
            (0, 0x1001, 1),
            (0x1800, 0x100, 1),
            (0x2000, 0x2000, 0),
            (0x1fff, 0x2002, 2),
            (0x5000, 0x10000, 1),
            (0x8000, 1, 0),
            (0, u64::MAX, 2),
        ] {
            assert_eq!(table.overlapping(span(start, len)).count(), found, "{start:#x}+{len:#x}");
        }
    }

    #[test]
    fn whole_windows_are_removed_and_none_is_cut() {
        let mut table = table(&[(0x1000, 0x1000), (0x2000, 0x1000), (0x4000, 0x2000)]);
        assert!(table.remove(span(0, 0x1000)).unwrap().is_empty());
        assert_eq!(table.remove(span(0x1000, 0x800)).unwrap_err().errno, Errno::INVAL);
        assert_eq!(table.remove(span(0x2000, 0x3000)).unwrap_err().errno, Errno::INVAL);
        assert_eq!(table.len(), 3);
        let removed = table.remove(span(0, 0x4000)).unwrap();
        assert_eq!(joined(&removed), [span(0x1000, 0x2000)]);
        assert_eq!(table.remove_all().len(), 1);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_window_may_end_at_the_end_of_the_address_space() {
        let mut table = table(&[(u64::MAX - 0xfff, 0x1000)]);
        assert!(table.containing(DeviceAddr(u64::MAX)).is_some());
        assert_eq!(table.remove(span(u64::MAX - 0xfff, 0x1000)).unwrap().len(), 1);
    }
}
