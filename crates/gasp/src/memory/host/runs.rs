//! The frame table of an object: a host-physical address is an array look-up.

use crate::addr::HostPhys;

/// A range of host-physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostRun {
    /// The first address.
    pub addr: HostPhys,
    /// Bytes; never 0.
    pub len: u64,
}

/// A part of some memory that is contiguous in the host, or whose host-physical addresses
/// are unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostExtent {
    /// Bytes from the start of the memory that was asked about to the first byte of the part.
    pub offset: u64,
    /// Bytes; never 0.
    pub len: u64,
    /// The host-physical address of the first byte; `None` if it is unknown (decision 19).
    pub addr: Option<HostPhys>,
}

/// The host-physical addresses of an object, as far as they are known.
#[derive(Debug)]
pub(crate) enum PhysMap {
    /// None, and why; no address is ever returned (decision 19).
    Unknown(&'static str),
    /// The whole object is one run from this address.
    Linear(HostPhys),
    /// An entry for each page.
    Table(PhysTable),
}

impl PhysMap {
    /// The run that begins at `offset`, cut to `max` bytes.
    ///
    /// The caller has checked that the `max` bytes from `offset` are inside the object.
    #[inline]
    pub(crate) fn run_at(&self, offset: u64, max: u64) -> Result<HostRun, &'static str> {
        match self {
            Self::Table(table) => table.run_at(offset, max).ok_or("the page has no frame number"),
            Self::Linear(base) => {
                let addr = base.checked_add(offset).ok_or("the declared base is too high")?;
                Ok(HostRun { addr, len: max })
            }
            Self::Unknown(why) => Err(why),
        }
    }
}

/// The frame table of an object: for every page, its frame number and the length of the run from
/// there.
///
/// A page is a base page or, if all runs allow it, a huge page. Each entry packs the frame number
/// in units of 4 KiB (40 bits: 52-bit addresses) with the number of pages in the run (24 bits); a
/// longer run continues in the entry past its end, so nothing is lost.
#[derive(Debug)]
pub(crate) struct PhysTable {
    shift: u32,
    entries: Box<[u64]>,
}

const RUN_BITS: u32 = 24;
const RUN_MAX: u64 = (1 << RUN_BITS) - 1;
const FRAME_SHIFT: u32 = 12;

impl PhysTable {
    /// The lengths of the runs of an object of `len` bytes, in order.
    pub(crate) fn run_lens(&self, len: u64) -> impl Iterator<Item = u64> {
        let mut offset = 0;
        core::iter::from_fn(move || {
            let run = self.run_at(offset, len - offset).filter(|_| offset < len)?;
            offset += run.len;
            Some(run.len)
        })
    }

    /// A table of pages of `1 << shift` bytes at the given addresses, in order. An address of 0
    /// stands for a page whose address is not known.
    pub(crate) fn new(shift: u32, pages: &[u64]) -> Self {
        let mut entries = vec![0; pages.len()].into_boxed_slice();
        let mut run = 0;
        let mut next = None;
        for (entry, &addr) in entries.iter_mut().zip(pages).rev() {
            let joined = addr != 0 && addr.checked_add(1 << shift) == next;
            run = if joined { (run + 1).min(RUN_MAX) } else { 1 };
            next = Some(addr);
            *entry = if addr == 0 { 0 } else { (addr >> FRAME_SHIFT) << RUN_BITS | run };
        }
        Self { shift, entries }
    }

    /// The size of the table, in bytes.
    pub(crate) fn table_bytes(&self) -> usize {
        size_of_val(&*self.entries)
    }

    /// [`PhysMap::run_at`] of a table; `None` if the address is not known.
    #[inline]
    pub(crate) fn run_at(&self, offset: u64, max: u64) -> Option<HostRun> {
        let within = offset & ((1 << self.shift) - 1);
        let mut page = usize::try_from(offset >> self.shift).ok()?;
        let (frame, mut run) = self.entry(page)?;
        let addr = HostPhys((frame << FRAME_SHIFT) + within);
        let mut len = (run << self.shift) - within;
        while run == RUN_MAX && len < max {
            page += usize::try_from(run).ok()?;
            match self.entry(page) {
                Some((frame, more)) if frame << FRAME_SHIFT == addr.0 + len => {
                    run = more;
                    len += run << self.shift;
                }
                _ => break,
            }
        }
        Some(HostRun { addr, len: len.min(max) })
    }

    #[inline]
    fn entry(&self, page: usize) -> Option<(u64, u64)> {
        let entry = *self.entries.get(page)?;
        (entry != 0).then_some((entry >> RUN_BITS, entry & RUN_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_where_frames_stop_being_consecutive() {
        let map = PhysMap::Table(PhysTable::new(12, &[0x5000, 0x6000, 0x9000, 0, 0x1000]));
        let run = |offset, max| map.run_at(offset, max).map(|run| (run.addr.0, run.len));
        assert_eq!(run(0, 0x5000), Ok((0x5000, 0x2000)));
        assert_eq!(run(0x123, 0x5000), Ok((0x5123, 0x1edd)));
        assert_eq!(run(0x123, 0x10), Ok((0x5123, 0x10)));
        assert_eq!(run(0x2000, 0x1000), Ok((0x9000, 0x1000)));
        assert!(run(0x3000, 1).is_err(), "address 0 is never returned");
        assert_eq!(run(0x4fff, 1), Ok((0x1fff, 1)));
        assert!(run(0x5000, 1).is_err());
    }

    #[test]
    fn a_run_longer_than_an_entry_can_say_is_still_one_run() {
        let pages: Vec<u64> = (1..=RUN_MAX + 10).map(|page| page << 12).collect();
        let table = PhysTable::new(12, &pages);
        let whole = (RUN_MAX + 10) << 12;
        assert_eq!(table.run_at(0, whole), Some(HostRun { addr: HostPhys(0x1000), len: whole }));
        assert_eq!(table.run_at(0, 64), Some(HostRun { addr: HostPhys(0x1000), len: 64 }));
    }

    #[test]
    fn a_window_is_one_run_from_its_declared_base() {
        let map = PhysMap::Linear(HostPhys(0xfe00_0000));
        let run = map.run_at(0x234, 0x1000).unwrap();
        assert_eq!((run.addr.0, run.len), (0xfe00_0234, 0x1000));
        assert!(PhysMap::Linear(HostPhys(u64::MAX)).run_at(1, 1).is_err());
    }
}
