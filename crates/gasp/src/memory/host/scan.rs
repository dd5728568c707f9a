//! Which parts of a window are huge pages, by `PAGEMAP_SCAN` (Linux 6.7).
//!
//! It reports no frame numbers and needs no privilege, but a range that is mapped by one huge entry
//! is one folio, which is contiguous in host-physical memory.
#![allow(unsafe_code, reason = "an ioctl with which the kernel fills a list")]

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::memory::host::pagemap;
use crate::memory::window::Window;

/// `struct pm_scan_arg` of `<linux/fs.h>`.
#[repr(C)]
#[derive(Default)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of `<linux/fs.h>`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: u32 = 3 << 30 | (size_of::<PmScanArg>() as u32) << 16 | 0x6610;
const PAGE_IS_HUGE: u64 = 1 << 6;
const HUGE: usize = 2 << 20;
/// The maximum number of regions that one call reports.
const BATCH: usize = 256;

/// For each whole 2 MiB of the window, whether it is one huge page now; `None` if the kernel cannot
/// say, or the window does not begin on a multiple of 2 MiB.
pub(crate) fn huge_chunks(window: &Window) -> Option<Vec<bool>> {
    if !window.base().addr().is_multiple_of(HUGE) {
        return None;
    }
    let file = pagemap::open().ok()?;
    let base = window.base().addr() as u64;
    let mut chunks = vec![false; window.len() / HUGE];
    let end = base + (chunks.len() * HUGE) as u64;
    let mut start = base;
    while start < end {
        let (regions, walked) = scan(&file, start, end)?;
        for region in &regions {
            let first = (region.start - base).div_ceil(HUGE as u64);
            let last = (region.end - base) / HUGE as u64;
            let range = usize::try_from(first).ok()?..usize::try_from(last).ok()?;
            chunks.get_mut(range).unwrap_or_default().fill(true);
        }
        // A kernel that makes no progress would make this loop endless.
        start = Some(walked).filter(|&walked| walked > start)?;
    }
    Some(chunks)
}

/// The ranges of huge pages from `start` on, and the address up to which the kernel has looked.
fn scan(file: &File, start: u64, end: u64) -> Option<(Vec<PageRegion>, u64)> {
    let mut regions = vec![PageRegion::default(); BATCH];
    let mut argument = PmScanArg {
        size: size_of::<PmScanArg>() as u64,
        start,
        end,
        vec: regions.as_mut_ptr().addr() as u64,
        vec_len: BATCH as u64,
        category_mask: PAGE_IS_HUGE,
        return_mask: PAGE_IS_HUGE,
        ..PmScanArg::default()
    };
    // SAFETY: PAGEMAP_SCAN reads and writes a `pm_scan_arg`: `argument` has its layout, is valid
    // for both, and nobody else uses it. It writes at most `vec_len` regions to `vec`: `regions`
    // has as many elements, of the layout of `page_region`, lives past the call, and nobody else
    // uses it meanwhile.
    let found = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN.into(), &raw mut argument) };
    regions.truncate(usize::try_from(found).ok()?);
    Some((regions, argument.walk_end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_not_huge() {
        let window = Window::reserve(2 * HUGE, HUGE).unwrap();
        assert!(matches!(huge_chunks(&window).as_deref(), None | Some([false, false])));
    }
}
