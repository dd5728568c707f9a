//! What this process may do: frame numbers, pinning, capabilities, KVM.

use std::fs::OpenOptions;
use std::io;

use gasp::memory::{FrameAccess, PinAccess, frame_access, pin_access};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::{Check, Verdict, read};
use crate::quantity::length;

const PROBED: usize = 1 << 20;

pub(super) fn checks() -> Vec<Check> {
    vec![
        frames(),
        pinning(),
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
            Check::new(NAME, Verdict::Yes, "host-physical addresses are told to this process")
        }
        FrameAccess::Denied(why) => {
            Check::new(NAME, Verdict::No, "not told to this process").remedy(why)
        }
    }
}

fn pinning() -> Check {
    const NAME: &str = "pinning";
    match pin_access(PROBED) {
        PinAccess::Allowed => {
            Check::new(NAME, Verdict::Yes, "pages can be kept where they are (1 MiB was tried)")
        }
        PinAccess::Denied(why) => Check::new(NAME, Verdict::No, why).remedy(
            "host-physical addresses can change without it; 2M or 1G pages from the kernel's \
             pool are a way around",
        ),
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
        Some(_) => Check::new(NAME, Verdict::No, "kernel.io_uring_disabled is 2: nobody pins")
            .remedy(REMEDY),
        None => Check::new(NAME, Verdict::Yes, "this kernel has no switch to disable it"),
    }
}

fn capability(name: &'static str, wanted: CapabilitySet, what: &str) -> Check {
    match has(wanted) {
        true => Check::new(name, Verdict::Yes, "held"),
        false => Check::new(name, Verdict::No, format!("not held; {what}")),
    }
}

fn has(wanted: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(wanted))
}

fn kvm() -> Check {
    const NAME: &str = "KVM";
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Check::new(NAME, Verdict::Yes, "/dev/kvm can be opened"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Check::new(NAME, Verdict::No, "/dev/kvm is there and cannot be opened")
                .remedy("join its group, usually kvm")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::new(NAME, Verdict::No, "there is no /dev/kvm")
                .remedy("gasp itself does not need it; a virtual machine does")
        }
        Err(error) => Check::new(NAME, Verdict::No, format!("/dev/kvm: {error}")),
    }
}
