//! Features of the kernel: the barrier that revokes rely on, and sealed memory.

use gasp::{Backing, MemoryObject, Residency, Seals};
use rustix::thread::{MembarrierCommand, membarrier_query};

use super::check::{Check, Verdict, read};

pub(super) fn checks() -> Vec<Check> {
    vec![barrier(), sealing(), version()]
}

fn barrier() -> Check {
    const NAME: &str = "membarrier";
    let has = membarrier_query().contains_command(MembarrierCommand::PrivateExpedited);
    match has {
        true => Check::new(NAME, Verdict::Yes, "a revoke pays for the barrier, a map does not"),
        false => Check::new(NAME, Verdict::No, "missing: every map pays for a barrier")
            .remedy("Linux 4.14 or newer, and a seccomp filter that lets membarrier(2) through"),
    }
}

fn sealing() -> Check {
    const NAME: &str = "memfd sealing";
    let ram = MemoryObject::ram(1 << 20).prefer(&[Backing::Base]).residency(Residency::OnDemand);
    match ram.create() {
        Ok(ram) if ram.seals().contains(Seals::SHRINK) => {
            Check::new(NAME, Verdict::Yes, "shared guest RAM cannot be truncated")
        }
        Ok(_) => Check::new(NAME, Verdict::Limited, "guest RAM cannot be sealed")
            .remedy("share it with trusted processes only"),
        Err(error) => Check::new(NAME, Verdict::No, error.reason().to_string()),
    }
}

fn version() -> Check {
    const NAME: &str = "kernel";
    match read("/proc/sys/kernel/osrelease") {
        Some(release) => Check::new(NAME, Verdict::Yes, release),
        None => Check::new(NAME, Verdict::No, "/proc cannot be read").remedy("mount /proc"),
    }
}
