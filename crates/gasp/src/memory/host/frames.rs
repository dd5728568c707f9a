//! Frame numbers of a window's pages, read in bulk when an object is created and when it is
//! audited; never on the data path.
//!
//! Of a page that is certain to be huge, because the file consists of such or because the kernel
//! [says so](super::scan), only the first entry is read: that takes half the time.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::param::page_size;

use crate::access::Access;
use crate::memory::host::pagemap;
use crate::memory::host::pagemap::ENTRY;
use crate::memory::host::pagemap::FRAME;
use crate::memory::host::pagemap::NO_PAGEMAP;
use crate::memory::host::pagemap::NO_PRIVILEGE;
use crate::memory::host::pagemap::PRESENT;
use crate::memory::host::runs::PhysMap;
use crate::memory::host::runs::PhysTable;
use crate::memory::host::scan;
use crate::memory::window::Window;

/// Entries read with one system call: 512 KiB.
const BATCH: usize = 1 << 16;
const HUGE: usize = 2 << 20;

pub(crate) const NOT_PRESENT: &str = "a page is not in memory, so it has no frame number";

/// A page of a window, or a part of a page, and its host-physical address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PageLocation {
    /// Bytes from the start of the window.
    pub(crate) offset: usize,
    /// Bytes; never 0.
    pub(crate) len: usize,
    /// The host-physical address; `None` if it is not in memory.
    pub(crate) addr: Option<u64>,
}

/// Reads the addresses of the pages of `window`, all of which must be in memory. `page` is the page
/// size in bytes that is certain.
pub(crate) fn read_frames(window: &Window, page: usize) -> PhysMap {
    match runs(window, page) {
        Ok(runs) => PhysMap::Table(frame_table(&runs, window.len(), page)),
        Err(why) => PhysMap::Unknown(why),
    }
}

/// A host-physical run of a window: offset, length and host-physical address.
pub(crate) type Run = (usize, usize, u64);

/// The runs of a window, in order.
///
/// # Errors
/// Why they are not known: frame numbers cannot be read, or a page is not in memory.
pub(crate) fn runs(window: &Window, page: usize) -> Result<Vec<Run>, &'static str> {
    let mut runs: Vec<Run> = Vec::new();
    let mut absent = false;
    locate_pages(window, page, |found| {
        let Some(addr) = found.addr else {
            absent = true;
            return;
        };
        match runs.last_mut() {
            Some((_, len, start)) if *start + *len as u64 == addr => *len += found.len,
            _ => runs.push((found.offset, found.len, addr)),
        }
    })?;
    if absent { Err(NOT_PRESENT) } else { Ok(runs) }
}

/// The frame table of a whole window of `len` bytes: of entries for 2 MiB or a larger page if all
/// runs begin on multiples of 2 MiB, else of `page` bytes.
fn frame_table(runs: &[Run], len: usize, page: usize) -> PhysTable {
    let coarse = runs.iter().all(|(offset, ..)| offset.is_multiple_of(HUGE));
    let size = if coarse { page.max(HUGE) } else { page };
    let mut pages = Vec::with_capacity(len.div_ceil(size));
    for &(_, len, addr) in runs {
        pages.extend((0..len).step_by(size).map(|within| addr + within as u64));
    }
    PhysTable::new(size.trailing_zeros(), &pages)
}

/// Calls `each` for the pages of `window` in order, with their present addresses. A page that is
/// not in the page table is brought back first: the kernel removes even pinned pages for a moment,
/// before it finds that it cannot move them.
///
/// # Errors
/// Why frame numbers cannot be read.
pub(crate) fn locate_pages(
    window: &Window,
    page: usize,
    mut each: impl FnMut(PageLocation),
) -> Result<(), &'static str> {
    let file = pagemap::open()?;
    let host_page = page_size();
    let huge = if page > host_page { None } else { scan::huge_chunks(window) };
    let is_huge =
        |offset: usize| huge.as_ref().and_then(|huge| huge.get(offset / HUGE)) == Some(&true);
    let mut entries = Entries { file: &file, window, buffer: Vec::new() };
    let mut offset = 0;
    while offset < window.len() {
        let whole = if page > host_page { page } else { HUGE };
        if page > host_page || is_huge(offset) {
            let len = whole.min(window.len() - offset);
            let addr = match entries.one(offset)? {
                None => entries.bring_back(offset, len)?,
                there => there,
            };
            each(PageLocation { offset, len, addr });
            offset += len;
            continue;
        }
        let end = window.len().min(offset + BATCH * host_page);
        let next_huge = (offset / HUGE + 1..end / HUGE)
            .map(|chunk| chunk * HUGE)
            .find(|&offset| is_huge(offset));
        let end = next_huge.unwrap_or(end);
        let mut absent = Vec::new();
        for &addr in entries.read(offset, (end - offset) / host_page)? {
            match addr {
                None => absent.push(offset),
                there if absent.is_empty() => {
                    each(PageLocation { offset, len: host_page, addr: there })
                }
                _ => {}
            }
            offset += host_page;
        }
        if let Some(&first) = absent.first() {
            for &offset in &absent {
                entries.bring_back(offset, host_page)?;
            }
            for (&addr, index) in entries.read(first, (offset - first) / host_page)?.iter().zip(0..)
            {
                each(PageLocation { offset: first + index * host_page, len: host_page, addr });
            }
        }
    }
    Ok(())
}

/// Entries of the page map for a window.
struct Entries<'a> {
    file: &'a File,
    window: &'a Window,
    buffer: Vec<Option<u64>>,
}

impl Entries<'_> {
    /// The address of the page at `offset`; `None` if it is not in memory.
    fn one(&mut self, offset: usize) -> Result<Option<u64>, &'static str> {
        Ok(self.read(offset, 1)?.first().copied().flatten())
    }

    /// The same after populating the page of `len` bytes there, which may fail.
    fn bring_back(&mut self, offset: usize, len: usize) -> Result<Option<u64>, &'static str> {
        let _ = self.window.populate(offset, len, Access::READ);
        self.one(offset)
    }

    /// The addresses of `count` base pages from `offset` on.
    fn read(&mut self, offset: usize, count: usize) -> Result<&[Option<u64>], &'static str> {
        let host_page = page_size();
        let first = (self.window.base().addr() + offset) / host_page;
        let mut one = [0; ENTRY];
        let mut many = Vec::new();
        let bytes = if count == 1 {
            &mut one[..]
        } else {
            many.resize(count * ENTRY, 0);
            &mut many
        };
        self.file.read_exact_at(bytes, (first * ENTRY) as u64).map_err(|_| NO_PAGEMAP)?;
        self.buffer.clear();
        for entry in bytes.chunks_exact(ENTRY) {
            let entry = u64::from_ne_bytes(entry.try_into().map_err(|_| NO_PAGEMAP)?);
            self.buffer.push(match (entry & PRESENT != 0, entry & FRAME) {
                (false, _) => None,
                (true, 0) => return Err(NO_PRIVILEGE),
                (true, frame) => Some(frame * host_page as u64),
            });
        }
        Ok(&self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_not_in_memory_gives_no_address() {
        let untouched = Window::reserve(1 << 21, 1 << 21).unwrap();
        let map = read_frames(&untouched, 4096);
        assert!(matches!(map, PhysMap::Unknown(_)), "{map:?}");
    }

    #[test]
    fn a_table_is_of_2_mib_where_every_run_begins_on_such() {
        let coarse = [(0, 2 * HUGE, 1 << 30), (2 * HUGE, HUGE / 2, 4 << 30)];
        let table_of = |runs: &[Run], len| frame_table(runs, len, 4096).table_bytes() / 8;
        assert_eq!(table_of(&coarse, 2 * HUGE + HUGE / 2), 3);
        let fine = [(0, 4096, 1 << 30), (4096, HUGE - 4096, 4 << 30)];
        assert_eq!(table_of(&fine, HUGE), 512);
    }
}
