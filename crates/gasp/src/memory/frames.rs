//! Reading frame numbers, in bulk, when an object is made; never later.
//!
//! The kernel tells them through `/proc/self/pagemap`, to a process whose *opener* of
//! that file had `CAP_SYS_ADMIN`. Without it the file reads well and every frame number
//! is 0, which is not an address: present and 0 means "no privilege".

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::param::page_size;

use super::phys::{PhysMap, PhysTable};

const ENTRY: usize = size_of::<u64>();
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;
/// Entries read with one system call: 512 KiB.
const BATCH: usize = 1 << 16;

const NO_PRIVILEGE: &str =
    "frame numbers need CAP_SYS_ADMIN in the first user namespace; run as root or grant it";
const NO_PAGEMAP: &str = "/proc/self/pagemap cannot be read; mount /proc";
const NOT_PRESENT: &str = "a page is not in memory, so it has no frame number";

/// Whether this process is told frame numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameAccess {
    /// It is.
    Allowed,
    /// It is not, and what would change that.
    Denied(&'static str),
}

/// Finds out whether this process is told frame numbers, by reading one of its own.
pub fn frame_access() -> FrameAccess {
    let probe = Box::new(1_u8);
    let addr = core::ptr::from_ref(&*probe).addr();
    let mut entry = [0; ENTRY];
    let offset = (addr / page_size() * ENTRY) as u64;
    match File::open(PAGEMAP).and_then(|file| file.read_exact_at(&mut entry, offset)) {
        Err(_) => FrameAccess::Denied(NO_PAGEMAP),
        Ok(()) if u64::from_ne_bytes(entry) & FRAME == 0 => FrameAccess::Denied(NO_PRIVILEGE),
        Ok(()) => FrameAccess::Allowed,
    }
}

const PAGEMAP: &str = "/proc/self/pagemap";

/// Reads where the pages of `[base, base + len)` are. All of them must be in memory.
///
/// `page_shift` is the size of pages that are certain to be contiguous. Where every
/// 2 MiB turn out to be, too, the table is built of those.
pub(crate) fn read_frames(base: usize, len: usize, page_shift: u32) -> PhysMap {
    const HUGE_SHIFT: u32 = 21;
    let tries = [HUGE_SHIFT.max(page_shift), page_shift];
    for (attempt, shift) in tries.into_iter().enumerate() {
        match read_pages(base, len, shift) {
            Ok(Some(pages)) => return PhysMap::Table(PhysTable::new(shift, &pages)),
            Ok(None) if attempt == 0 => {}
            Ok(None) => return PhysMap::Unknown(NOT_PRESENT),
            Err(why) => return PhysMap::Unknown(why),
        }
    }
    PhysMap::Unknown(NOT_PRESENT)
}

/// The address of each page of `1 << shift` bytes; `None` where one of them is not
/// contiguous. The last page may be a part of one.
fn read_pages(base: usize, len: usize, shift: u32) -> Result<Option<Vec<u64>>, &'static str> {
    let host_page = page_size();
    let per_page = ((1_usize << shift) / host_page).max(1);
    let total = len / host_page;
    let file = File::open(PAGEMAP).map_err(|_| NO_PAGEMAP)?;
    let mut pages = Vec::with_capacity(total.div_ceil(per_page));
    let mut buffer = vec![0; BATCH.min(total) * ENTRY];
    let mut expected = 0;
    for first in (0..total).step_by(BATCH) {
        let count = BATCH.min(total - first);
        let bytes = buffer.get_mut(..count * ENTRY).ok_or(NO_PAGEMAP)?;
        let offset = ((base / host_page + first) * ENTRY) as u64;
        file.read_exact_at(bytes, offset).map_err(|_| NO_PAGEMAP)?;
        for (index, entry) in bytes.chunks_exact(ENTRY).enumerate() {
            let entry = u64::from_ne_bytes(entry.try_into().map_err(|_| NO_PAGEMAP)?);
            let addr = match (entry & PRESENT != 0, entry & FRAME) {
                (false, _) => return Err(NOT_PRESENT),
                (true, 0) => return Err(NO_PRIVILEGE),
                (true, frame) => frame * host_page as u64,
            };
            if (first + index) % per_page == 0 {
                pages.push(addr);
            } else if addr != expected {
                return Ok(None);
            }
            expected = addr + host_page as u64;
        }
    }
    Ok(Some(pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_not_in_memory_gives_no_address() {
        let untouched = super::super::window::Window::reserve(1 << 21, 1 << 21).unwrap();
        let map = read_frames(untouched.base().addr(), untouched.len(), 12);
        assert!(matches!(map, PhysMap::Unknown(_)), "{map:?}");
    }
}
