//! Available host memory and huge pages, and the limits on what may be taken of them.

use std::fs;
use std::os::fd::OwnedFd;

use crate::bytes::Bytes;
use crate::error::Reason;
use crate::signal::without_signals;

/// Why a backing was passed over: as text, and as the reason of the error if it was the last one.
pub(super) struct Unavailable {
    pub(super) why: String,
    pub(super) reason: Reason,
}

impl From<Reason> for Unavailable {
    fn from(reason: Reason) -> Self {
        Self { why: reason.to_string(), reason }
    }
}

/// Sets the length of a memory file. A length past the file-size limit returns `EFBIG`; it raises
/// no SIGXFSZ, which would end the process.
pub(super) fn set_len(fd: &OwnedFd, len: u64) -> Result<(), Reason> {
    let done = without_signals(|| rustix::fs::ftruncate(fd, len));
    done.map_err(Reason::os("setting the length of a memory file"))
}

/// Refuses more than the host has available: to populate it would make the kernel kill processes,
/// this one first.
pub(super) fn check_available(len: u64) -> Result<(), Unavailable> {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    match kilobytes.map(|kilobytes: u64| kilobytes.saturating_mul(1024)) {
        Some(available) if available < len => Err(Unavailable {
            why: format!("{} needed, {} available", Bytes(len), Bytes(available)),
            reason: Reason::NoHostMemory { available },
        }),
        _ => Ok(()),
    }
}

/// The shortage of a pool; `None` if it has enough free pages, or does not exist.
pub(super) fn pool_shortage(page: usize, len: usize) -> Option<Reason> {
    let free = pool(page, "free_hugepages")?;
    let needed = (len / page) as u64;
    (free < needed).then_some(Reason::PoolShort { page: page as u64, free, needed })
}

/// The number of free pages of a pool that are not reserved; 0 if there is no such pool.
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
