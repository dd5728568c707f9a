//! Memory that is there so that other memory is scattered.
//!
//! A freshly booted or idle machine hands out long runs, and on those neither a wrong
//! length shows nor has the kernel a reason to move anything. So free memory is taken and
//! partly given back, which leaves holes of a page or a few, ordinary or huge ones; the
//! kernel hands those out first.

use std::fs;
use std::io;

use crate::mapped::{HUGE, Mapped};
use crate::pagemap::PAGE;

/// Memory with holes, until dropped.
#[derive(Debug)]
pub struct Neighbours {
    memory: Mapped,
}

/// Lengths of holes, in pages; between them are as many pages that stay.
const HOLES: [usize; 3] = [1, 2, 4];
/// After how many pages the holes repeat.
const PERIOD: usize = 2 * (HOLES[0] + HOLES[1] + HOLES[2]);

impl Neighbours {
    /// Takes `len` bytes, and leaves holes in them of half as many: of one, two and four
    /// pages of this size, between as many that stay.
    ///
    /// # Errors
    /// Those of mmap() and madvise().
    pub fn with_holes(len: usize, page: usize) -> io::Result<Self> {
        let memory = Mapped::anonymous(len)?;
        if page >= HUGE {
            memory.want_huge(0, len)?;
        }
        touch(&memory)?;
        let mut at = 0;
        for pages in HOLES.into_iter().cycle() {
            let hole = pages * page;
            if at + 2 * hole > memory.len() {
                break;
            }
            memory.discard(at, hole)?;
            at += 2 * hole;
        }
        Ok(Self { memory })
    }

    /// Takes all of `len` bytes.
    ///
    /// # Errors
    /// Those of mmap().
    pub fn taken(len: usize) -> io::Result<Self> {
        let memory = Mapped::anonymous(len)?;
        touch(&memory)?;
        Ok(Self { memory })
    }

    /// Gives back all but a page here and there of ordinary pages with holes.
    ///
    /// Then there is room beside every page that came into a hole, and no block of memory
    /// is quite free: compaction moves pages out of such blocks and into such blocks, and
    /// leaves those alone that are free already.
    ///
    /// # Errors
    /// Those of madvise().
    pub fn thin_out(&self) -> io::Result<()> {
        // The first page is a hole, and the second is the one that stays.
        let rest = (PERIOD - 2) * PAGE;
        let last = self.memory.len().saturating_sub(PERIOD * PAGE);
        let mut starts = (2 * PAGE..last).step_by(PERIOD * PAGE);
        starts.try_for_each(|at| self.memory.discard(at, rest))
    }
}

fn touch(memory: &Mapped) -> io::Result<()> {
    (0..memory.len()).step_by(PAGE).try_for_each(|at| memory.store(at, 1))
}

/// A number of bytes in `/proc/meminfo`; 0 where it has no such line.
pub fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    kilobytes.map_or(0, |kilobytes: u64| kilobytes << 10)
}
