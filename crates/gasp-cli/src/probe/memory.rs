//! Available host memory and huge pages.

use gasp::{Backing, MemoryObject, Residency};
use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

use super::check::{Check, Verdict, read, read_number};
use crate::quantity::length;

pub(super) fn checks() -> Vec<Check> {
    vec![
        pool("1G pages", Backing::Huge1G, 1 << 20, "boot with hugepagesz=1G hugepages=N, or try "),
        pool("2M pages", Backing::Huge2M, 2 << 10, ""),
        gathered(),
        collapse(),
        Check::new("host page size", Verdict::Yes, length(page_size() as u64)),
        available(),
        address_space(),
    ]
}

/// A pool of huge pages: its contents, and whether a page can be allocated.
fn pool(name: &'static str, backing: Backing, kib: u64, hint: &str) -> Check {
    let folder = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB");
    let number = |file: &str| read_number(&format!("{folder}/{file}"));
    let (Some(total), Some(free)) = (number("nr_hugepages"), number("free_hugepages")) else {
        return Check::new(name, Verdict::No, "the host has no pages of this size")
            .remedy("use a machine with them, or enable them for this virtual machine");
    };
    let detail = format!("{total} in the pool, {free} free");
    let remedy = format!("{hint}echo N > {folder}/nr_hugepages");
    let only = [backing];
    let one = MemoryObject::ram(kib << 10).prefer(&only).residency(Residency::OnDemand);
    match (free, total) {
        (0, 0) => Check::new(name, Verdict::No, detail).remedy(remedy),
        (0, _) => Check::new(name, Verdict::Limited, detail).remedy(remedy),
        _ => match one.create() {
            Ok(_) => Check::new(name, Verdict::Yes, detail),
            Err(error) => {
                let why = format!("{detail}, but none can be allocated: {}", error.reason());
                Check::new(name, Verdict::Limited, why).remedy("check the hugetlb cgroup limits")
            }
        },
    }
}

/// Whether the kernel creates transparent huge pages by itself.
fn gathered() -> Check {
    const NAME: &str = "transparent huge pages";
    const FOLDER: &str = "/sys/kernel/mm/transparent_hugepage";
    let setting = |file: &str| {
        let text = read(&format!("{FOLDER}/{file}"))?;
        Some(text.split_once('[')?.1.split_once(']')?.0.to_string())
    };
    let (Some(enabled), Some(shared)) = (setting("enabled"), setting("shmem_enabled")) else {
        return Check::new(NAME, Verdict::No, "this kernel has none");
    };
    let detail = format!("enabled={enabled} shmem_enabled={shared}");
    match shared.as_str() {
        "never" | "deny" => Check::new(NAME, Verdict::Limited, detail)
            .remedy(format!("echo advise > {FOLDER}/shmem_enabled (guest RAM is shared memory)")),
        _ => Check::new(NAME, Verdict::Yes, detail),
    }
}

/// Whether guest RAM can be collapsed into huge pages on request.
fn collapse() -> Check {
    const NAME: &str = "MADV_COLLAPSE";
    const LEN: u64 = 2 << 20;
    match MemoryObject::ram(LEN).prefer(&[Backing::Thp]).residency(Residency::OnDemand).create() {
        Ok(ram) => {
            let note = ram.backing().note.clone().unwrap_or_else(|| "2 MiB were collapsed".into());
            let verdict = if note.starts_with("0 ") { Verdict::Limited } else { Verdict::Yes };
            Check::new(NAME, verdict, format!("guest RAM: {note}"))
        }
        Err(error) => Check::new(NAME, Verdict::No, error.reason().to_string())
            .remedy("Linux 6.1 or newer with transparent huge pages"),
    }
}

fn available() -> Check {
    const NAME: &str = "memory available";
    let kib = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    match kib {
        Some(kib) if kib >> 20 == 0 => {
            Check::new(NAME, Verdict::Limited, length(kib << 10)).remedy("use gasp demo --ram 64M")
        }
        Some(kib) => Check::new(NAME, Verdict::Yes, length(kib << 10)),
        None => Check::new(NAME, Verdict::No, "/proc/meminfo cannot be read").remedy("mount /proc"),
    }
}

fn address_space() -> Check {
    const NAME: &str = "RLIMIT_AS";
    match getrlimit(Resource::As).current {
        None => Check::new(NAME, Verdict::Yes, "unlimited"),
        Some(limit) => Check::new(NAME, Verdict::Limited, length(limit))
            .remedy("ulimit -v unlimited (guest RAM occupies address space of its own size)"),
    }
}
