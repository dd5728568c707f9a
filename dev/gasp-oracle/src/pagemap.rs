//! Frame numbers, read from the kernel's own table without the engine.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The size in bytes of the pages that the table has an entry for, on x86-64.
pub const PAGE: usize = 4096;
const ENTRY: usize = size_of::<u64>();
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;
/// Entries read by one system call.
const BATCH: usize = 1 << 16;

/// The page map of this process.
#[derive(Debug)]
pub struct Pagemap(File);

impl Pagemap {
    /// Opens the page map of this process.
    ///
    /// # Errors
    /// Those of open().
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// The physical address of every page of `[base, base + len)`; 0 if the page is not present,
    /// or the kernel hides frame numbers.
    ///
    /// # Errors
    /// Those of pread().
    pub fn addresses(&self, base: *const u8, len: usize) -> io::Result<Vec<u64>> {
        let (first, total) = (base.addr() / PAGE, len.div_ceil(PAGE));
        let mut addresses = Vec::with_capacity(total);
        let mut buffer = vec![0; BATCH.min(total) * ENTRY];
        for start in (0..total).step_by(BATCH) {
            let count = BATCH.min(total - start);
            let (bytes, _) = buffer.split_at_mut(count * ENTRY);
            self.0.read_exact_at(bytes, ((first + start) * ENTRY) as u64)?;
            let (entries, _) = bytes.as_chunks::<ENTRY>();
            addresses.extend(entries.iter().map(|entry| address(u64::from_ne_bytes(*entry))));
        }
        Ok(addresses)
    }
}

fn address(entry: u64) -> u64 {
    match entry & PRESENT {
        0 => 0,
        _ => (entry & FRAME) * PAGE as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapped::Mapped;

    #[test]
    fn only_what_was_touched_is_somewhere() {
        let mapped = Mapped::anonymous(8 * PAGE).unwrap();
        mapped.store(3 * PAGE, 1).unwrap();
        let addresses = Pagemap::open().unwrap().addresses(mapped.base(), mapped.len()).unwrap();
        assert_eq!(addresses.len(), 8);
        let untouched = [&addresses[..3], &addresses[4..]].concat();
        assert!(untouched.iter().all(|&address| address == 0), "{addresses:x?}");
    }
}
