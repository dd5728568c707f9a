//! Why a VM cannot be created: one line each, which says what to do.

use gasp::{Errno, system_words};
use thiserror::Error;

/// A VM, or a part of it, that cannot be created.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The kernel has no KVM.
    #[error(
        "{path}: there is no KVM; load the module kvm_intel or kvm_amd, or turn on virtualization \
         in the machine's firmware"
    )]
    NoKvm {
        /// The device that was looked for.
        path: String,
    },
    /// The user may not use KVM.
    #[error("{path}: no permission; join the group that owns it (often `kvm`) or run as root")]
    Denied {
        /// The device that was refused.
        path: String,
    },
    /// The device cannot be opened.
    #[error(
        "{path}: {}; check that this processor has VT-x or SVM and that no other hypervisor \
         holds it",
        system_words(*.errno)
    )]
    Refused {
        /// The device that was refused.
        path: String,
        /// Why.
        errno: Errno,
    },
    /// The device is something else, or its interface is another one.
    #[error("{path} is not KVM with interface version 12; give the path of the KVM device")]
    NotKvm {
        /// The device that was opened.
        path: String,
    },
    /// KVM is too old, or on another architecture.
    #[error("this kernel's KVM lacks {what}; use a newer kernel")]
    Lacks {
        /// The capability's name in the KVM API.
        what: &'static str,
    },
    /// Memory past the addresses that a vCPU has.
    #[error(
        "memory up to {last:#x}: a vCPU here has addresses of {width} bits; move it, or use less"
    )]
    TooWide {
        /// The last address with memory.
        last: u64,
        /// The width of addresses.
        width: u32,
    },
    /// More vCPUs than KVM can have.
    #[error("a VM of {count} vCPUs: KVM allows 1 to {max} here; ask for fewer")]
    Vcpus {
        /// How many were asked for.
        count: usize,
        /// How many there can be.
        max: usize,
    },
    /// A system call of KVM failed.
    #[error("{what}: {}; the kernel's log may say more (`dmesg`)", system_words(*.errno))]
    Kvm {
        /// The name of the call.
        what: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// An eventfd or a thread cannot be created.
    #[error("{what}: {source}; raise the limits of this process (`ulimit -n -u`)")]
    Host {
        /// What cannot be created.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The guest's regions do not fit into KVM's memory slots, or its memory cannot be changed.
    #[error(transparent)]
    Memory(#[from] gasp::Error),
    /// A range of a bus is taken.
    #[error(transparent)]
    Bus(#[from] crate::bus::BusError),
}

impl MachineError {
    /// The error of opening the device at `path`.
    pub(crate) fn open(path: &str, errno: Errno) -> Self {
        let path = path.into();
        match errno {
            Errno::NOENT => Self::NoKvm { path },
            Errno::ACCESS | Errno::PERM => Self::Denied { path },
            errno => Self::Refused { path, errno },
        }
    }

    /// The failure of a call of KVM.
    pub(crate) fn call(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |error| Self::Kvm { what, errno: errno_of(error) }
    }

    /// What cannot be created for lack of something of the host.
    pub(crate) fn host(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}

/// The errno of an error of KVM.
pub(crate) fn errno_of(error: kvm_ioctls::Error) -> Errno {
    Errno::from_raw_os_error(error.errno())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_that_fails_says_what_to_do() {
        let text = |errno| MachineError::open("/dev/kvm", errno).to_string();
        assert!(text(Errno::NOENT).contains("load the module"));
        assert!(text(Errno::ACCESS).contains("join the group"));
        assert!(text(Errno::PERM).contains("join the group"));
        assert!(text(Errno::BUSY).contains("busy") && !text(Errno::BUSY).contains('\n'));
    }
}
