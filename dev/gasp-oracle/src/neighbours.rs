//! Memory that is allocated so that other memory is scattered.
//!
//! A freshly booted or idle machine allocates long runs, which neither reveal a wrong length
//! nor give the kernel a reason to move anything. So free memory is allocated and partly
//! released, which leaves holes of one or a few pages, ordinary or huge; the kernel allocates
//! those first.

use std::fs;
use std::io;

use crate::mapped::{HUGE, Mapped};
use crate::pagemap::PAGE;

/// Memory with holes, until dropped.
#[derive(Debug)]
pub struct Neighbours {
    memory: Mapped,
}

/// Lengths of holes in pages; each is followed by as many pages that remain.
const HOLES: [usize; 3] = [1, 2, 4];
/// The number of pages after which the holes repeat.
const PERIOD: usize = 2 * (HOLES[0] + HOLES[1] + HOLES[2]);

impl Neighbours {
    /// Allocates `len` bytes and releases half of them: holes of one, two and four pages of
    /// `page` bytes, each followed by as many pages that remain.
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

    /// Allocates `len` bytes without holes.
    ///
    /// # Errors
    /// Those of mmap().
    pub fn taken(len: usize) -> io::Result<Self> {
        let memory = Mapped::anonymous(len)?;
        touch(&memory)?;
        Ok(Self { memory })
    }

    /// Releases all but one page of each period of ordinary pages with holes.
    ///
    /// Then there is room next to every page that was allocated in a hole, and no block of memory
    /// is quite free: compaction moves pages out of such blocks and into such blocks, and skips
    /// those that are free already.
    ///
    /// # Errors
    /// Those of madvise().
    pub fn thin_out(&self) -> io::Result<()> {
        // The first page is a hole, and the second is the one that remains.
        let rest = (PERIOD - 2) * PAGE;
        let last = self.memory.len().saturating_sub(PERIOD * PAGE);
        let mut starts = (2 * PAGE..last).step_by(PERIOD * PAGE);
        starts.try_for_each(|at| self.memory.discard(at, rest))
    }
}

fn touch(memory: &Mapped) -> io::Result<()> {
    (0..memory.len()).step_by(PAGE).try_for_each(|at| memory.store(at, 1))
}

/// A value of `/proc/meminfo` in bytes; 0 if it has no such line.
pub fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    kilobytes.map_or(0, |kilobytes: u64| kilobytes << 10)
}
