//! Privileges of this process: frame numbers, pinning, capabilities, KVM.

use std::fs::OpenOptions;
use std::io;

use gasp::{Backing, MemoryObject, Residency};
use gasp::{FrameAccess, PinAccess, PinMethod, frame_access};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::check::{Check, Verdict, read, read_number};
use crate::quantity::length;

const PROBED: usize = 1 << 20;

pub(super) fn checks() -> Vec<Check> {
    vec![
        frames(),
        contiguity(),
        pinning(PinMethod::IoUring),
        pinning(PinMethod::Pipe),
        pipe_pages(),
        locking(),
        io_uring(),
        capability("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN, "frame numbers need it"),
        capability("CAP_IPC_LOCK", CapabilitySet::IPC_LOCK, "pins beyond RLIMIT_MEMLOCK need it"),
        kvm(),
    ]
}

fn frames() -> Check {
    const NAME: &str = "frame numbers";
    match frame_access() {
        FrameAccess::Allowed => {
            Check::new(NAME, Verdict::Yes, "this process can read host-physical addresses")
        }
        FrameAccess::Denied(why) => {
            Check::new(NAME, Verdict::No, "this process cannot read host-physical addresses")
                .remedy(why)
        }
    }
}

/// Whether a method can pin pages.
fn pinning(method: PinMethod) -> Check {
    let name = match method {
        PinMethod::IoUring => "pins by io_uring",
        PinMethod::Pipe => "pins by pipes",
    };
    match method.access(PROBED) {
        PinAccess::Allowed => {
            Check::new(name, Verdict::Yes, "pages can be pinned (1 MiB was tried)")
        }
        PinAccess::Denied(why) => Check::new(name, Verdict::No, why).remedy(
            "without any pin host-physical addresses can change; 2M or 1G pages from the \
             kernel's pool are a workaround",
        ),
    }
}

/// How much an unprivileged user can pin by pipes.
fn pipe_pages() -> Check {
    const NAME: &str = "pipe-user-pages-soft";
    match read_number("/proc/sys/fs/pipe-user-pages-soft") {
        None => Check::new(NAME, Verdict::Limited, "it cannot be read").remedy("mount /proc"),
        Some(0) => Check::new(NAME, Verdict::Yes, "pipes can hold any number of pages"),
        Some(pages) => {
            let detail = format!(
                "pipes can hold {pages} pages per user: {} in 2M pages",
                length(pages << 21)
            );
            Check::new(NAME, Verdict::Yes, detail)
        }
    }
}

/// Whether contiguity can be determined without addresses.
fn contiguity() -> Check {
    const NAME: &str = "PAGEMAP_SCAN";
    const LEN: u64 = 2 << 20;
    let thp = [Backing::Thp];
    let ram = MemoryObject::ram(LEN).prefer(&thp).residency(Residency::Resident).create();
    match ram.map(|ram| ram.contiguous_at(0, LEN)) {
        Ok(Ok(LEN)) => {
            Check::new(NAME, Verdict::Yes, "huge pages are recognized without addresses")
        }
        _ => Check::new(NAME, Verdict::Limited, "huge pages are not recognized without addresses")
            .remedy("Linux 6.7 or newer; pages from a huge page pool do not need it"),
    }
}

fn locking() -> Check {
    const NAME: &str = "RLIMIT_MEMLOCK";
    let limit = getrlimit(Resource::Memlock).current;
    let exempt = has(CapabilitySet::IPC_LOCK);
    match (limit, exempt) {
        (None, _) => Check::new(NAME, Verdict::Yes, "unlimited"),
        (Some(limit), true) => {
            Check::new(NAME, Verdict::Yes, format!("{}, but CAP_IPC_LOCK lifts it", length(limit)))
        }
        (Some(limit), false) => {
            Check::new(NAME, Verdict::Limited, format!("{} can be pinned", length(limit))).remedy(
                "raise it above the guest's RAM (ulimit -l, LimitMEMLOCK=), or grant CAP_IPC_LOCK",
            )
        }
    }
}

fn io_uring() -> Check {
    const NAME: &str = "io_uring";
    const REMEDY: &str = "sysctl kernel.io_uring_disabled=0";
    match read("/proc/sys/kernel/io_uring_disabled").as_deref() {
        Some("0") => Check::new(NAME, Verdict::Yes, "kernel.io_uring_disabled is 0"),
        Some("1") => Check::new(
            NAME,
            Verdict::Limited,
            "kernel.io_uring_disabled is 1: only for kernel.io_uring_group and CAP_SYS_ADMIN",
        )
        .remedy(REMEDY),
        Some(_) => Check::new(NAME, Verdict::No, "kernel.io_uring_disabled is 2: for no process")
            .remedy(REMEDY),
        None => Check::new(NAME, Verdict::Yes, "this kernel has no setting to disable it"),
    }
}

fn capability(name: &'static str, capability: CapabilitySet, what: &str) -> Check {
    match has(capability) {
        true => Check::new(name, Verdict::Yes, "held"),
        false => Check::new(name, Verdict::No, format!("not held; {what}")),
    }
}

fn has(capability: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

fn kvm() -> Check {
    const NAME: &str = "KVM";
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Check::new(NAME, Verdict::Yes, "/dev/kvm can be opened"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Check::new(NAME, Verdict::No, "/dev/kvm exists but cannot be opened")
                .remedy("join its group, usually kvm")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::new(NAME, Verdict::No, "/dev/kvm does not exist")
                .remedy("gasp itself does not need it; a virtual machine does")
        }
        Err(error) => Check::new(NAME, Verdict::No, format!("/dev/kvm: {error}")),
    }
}
