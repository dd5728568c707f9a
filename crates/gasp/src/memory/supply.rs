//! Available host memory and huge pages, and the limits on what may be taken of them.

use std::fs;
use std::os::fd::OwnedFd;

use crate::bytes::Bytes;
use crate::error::Reason;
use crate::signal::without_signals;

/// Why one backing was not had: in words, and as the reason if it was the last.
pub(super) struct Attempt {
    pub(super) why: String,
    pub(super) reason: Reason,
}

impl From<Reason> for Attempt {
    fn from(reason: Reason) -> Self {
        Self { why: reason.to_string(), reason }
    }
}

/// Sets the length of a memory file. One above the file-size limit is `EFBIG`, and not the
/// end of the process.
pub(super) fn set_len(fd: &OwnedFd, len: u64) -> Result<(), Reason> {
    let done = without_signals(|| rustix::fs::ftruncate(fd, len));
    done.map_err(Reason::os("setting the length of a memory file"))
}

/// Refuses what the machine does not have: populating it would bring the kernel to kill
/// processes, this one first.
pub(super) fn check_available(len: u64) -> Result<(), Attempt> {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    match kilobytes.map(|kilobytes: u64| kilobytes.saturating_mul(1024)) {
        Some(available) if available < len => Err(Attempt {
            why: format!("{} are needed, {} are available", Bytes(len), Bytes(available)),
            reason: Reason::NoHostMemory { available },
        }),
        _ => Ok(()),
    }
}

/// How short the pool is; `None` if there is none.
pub(super) fn pool_shortage(page: usize, len: usize) -> Option<Reason> {
    let free = pool(page, "free_hugepages")?;
    let needed = (len / page) as u64;
    (free < needed).then_some(Reason::PoolShort { page: page as u64, free, needed })
}

/// How many pages of a pool are free and promised to nobody; 0 where there is no pool.
pub(super) fn pool_spare(page: usize) -> u64 {
    let number = |file| pool(page, file).unwrap_or(0);
    number("free_hugepages").saturating_sub(number("resv_hugepages"))
}

fn pool(page: usize, file: &str) -> Option<u64> {
    fs::read_to_string(format!("{}/{file}", folder(page))).ok()?.trim().parse().ok()
}

fn folder(page: usize) -> String {
    format!("/sys/kernel/mm/hugepages/hugepages-{}kB", page >> 10)
}
