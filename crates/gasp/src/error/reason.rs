//! The reasons of failures, with the errno of each.

use rustix::io::Errno;
use thiserror::Error;

use crate::access::Access;
use crate::addr::{DeviceAddr, GuestPhys};
use crate::bytes::Bytes;

/// The reason why the guest's IOMMU refuses an access.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum Refusal {
    /// No grant of the domain covers the address.
    #[error("no grant of its domain covers the address")]
    NotGranted,
    /// A grant covers the address but does not allow this kind of access.
    #[error("its domain allows only {allowed} there, and {requested} was requested")]
    Access {
        /// The access that the grant allows.
        allowed: Access,
        /// The access that was requested.
        requested: Access,
    },
    /// The device is attached to no domain, and the guest is configured with
    /// `unattached = "deny"` (decision 14).
    #[error("the device is attached to no domain, and unattached devices are denied")]
    Unattached,
    /// The device's domain denies everything.
    #[error("its domain denies everything")]
    DenyDomain,
    /// The translator of the device's domain refuses the access.
    #[error("its domain's translator refuses it, with fault reason {reason:#x}")]
    Translator {
        /// The translator's own [reason](crate::TranslationFault::reason).
        reason: u32,
    },
}

/// The reason of a failure. Each has exactly one [`errno`](Self::errno).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
#[non_exhaustive]
pub enum Reason {
    /// The length is 0 (decision 2).
    #[error("the length is 0; expected at least one byte")]
    ZeroLength,
    /// Address and length extend past 2^64 (decision 3).
    #[error("address and length extend past the end of the 64-bit address space")]
    Wraps,
    /// The range extends past the guest's address width (decision 3).
    #[error("the range extends past the guest's address width of {bits} bits")]
    BeyondWidth {
        /// The guest's address width in bits.
        bits: u32,
    },
    /// The combination of flags is not valid (decision 4).
    #[error(
        "flags {0:#x} are not valid: expected at least one of read, write and execute, and no \
         unknown bit"
    )]
    BadFlags(u32),
    /// The guest's IOMMU refuses the access.
    #[error("the guest's IOMMU refuses {addr}: {refusal}")]
    Refused {
        /// The first refused address.
        addr: DeviceAddr,
        /// Why it is refused.
        refusal: Refusal,
    },
    /// Part of the range has no memory (decision 8).
    #[error("there is no memory at guest-physical {addr}")]
    NoMemory {
        /// The first guest-physical address without memory.
        addr: GuestPhys,
    },
    /// Part of the range is memory other than system RAM (decision 5).
    #[error("guest-physical {addr} is not system RAM; use the `any` flag to map ROM or a window")]
    NotRam {
        /// The first such guest-physical address.
        addr: GuestPhys,
    },
    /// The memory does not offer the access: a write to ROM (decision 6).
    #[error(
        "the memory at guest-physical {addr} offers only {offered}, and {requested} was requested"
    )]
    Forbidden {
        /// The first such guest-physical address.
        addr: GuestPhys,
        /// The access that the memory offers.
        offered: Access,
        /// The access that was requested.
        requested: Access,
    },
    /// The range is allowed, but not consecutive in host memory (decision 21).
    #[error(
        "only the first {:#} are consecutive in memory; use a scatter or stitched map",
        Bytes(*.prefix)
    )]
    NotConsecutive {
        /// Number of bytes from the start that are consecutive; never 0.
        prefix: u64,
    },
    /// The mapping does not allow the access.
    #[error("the mapping allows only {allowed}")]
    NotAllowed {
        /// The access that the mapping allows.
        allowed: Access,
    },
    /// An access to a mapping or memory object extends past its end.
    #[error("the range extends past the end: there are {:#}", Bytes(*.size))]
    OutOfBounds {
        /// Length of the mapping or object in bytes.
        size: u64,
    },
    /// An atomic access is not aligned to its size.
    #[error("the address is not a multiple of {align}")]
    Unaligned {
        /// Required alignment in bytes.
        align: u64,
    },
    /// Host-physical addresses are not known to this process (decision 19); the text says why.
    #[error("host-physical addresses are not known: {0}")]
    HostUnknown(&'static str),
    /// The host-physical address can still change (decision 20).
    #[error(
        "the memory is not pinned, so its host-physical address can change; allow pinning, or \
         set allow-unpinned"
    )]
    Unpinned,
    /// The range overlaps an existing one, which the text names.
    #[error("the range overlaps {0}")]
    Overlaps(&'static str),
    /// The device address is already granted, and leads to another guest-physical address.
    #[error("device address {addr} already leads to guest-physical {to}; revoke that grant first")]
    GrantedElsewhere {
        /// The first such device address.
        addr: DeviceAddr,
        /// Its present target.
        to: GuestPhys,
    },
    /// The name is taken by another object of the kind, which the text names.
    #[error("there is already {0} of this name")]
    NameTaken(&'static str),
    /// The object cannot be removed while it is in use; the text says by what.
    #[error("{0}")]
    InUse(&'static str),
    /// The device is in a domain of another owner.
    #[error("the device is in a domain of another owner; detach it first")]
    OtherOwner,
    /// The operation would wait for something that only the calling thread can end
    /// (decision 22).
    #[error("it would wait for the calling thread itself: {0}")]
    Deadlock(&'static str),
    /// The calling thread already holds the edit lock.
    #[error("this thread already holds the lock; make the change through it")]
    Locked,
    /// A limit was reached.
    #[error("the limit of {limit} {what} is reached")]
    Limit {
        /// What is limited, in the plural.
        what: &'static str,
        /// Maximum number of them.
        limit: u64,
    },
    /// An argument or a configuration value is not valid; the text says why.
    #[error("{0}")]
    Invalid(&'static str),
    /// The named object does not exist.
    #[error("there is no {0}")]
    NotFound(&'static str),
    /// No free range is large enough.
    #[error("no free range is large enough")]
    NoRoom,
    /// A file is shorter than the range of it that was requested.
    #[error("the file holds only {:#}", Bytes(*.size))]
    FileTooSmall {
        /// Size of the file in bytes.
        size: u64,
    },
    /// Write access was requested to a file that is sealed or was opened read-only.
    #[error("the file cannot be written ({0}); adopt it read-only")]
    FileReadOnly(&'static str),
    /// The descriptor is of a kind that cannot be mapped as memory.
    #[error("it is {0}, not memory or a file")]
    NotAFile(&'static str),
    /// The owner of adopted memory has removed it while it was in use. (`EFAULT` is reserved
    /// for the guest's IOMMU.)
    #[error("the memory is gone: its owner has truncated the file or punched a hole into it")]
    MemoryGone,
    /// The host-contiguous runs of RAM would be shorter than required.
    #[error(
        "the shortest host-contiguous run would be {}, and at least {} is required; ask for \
         less, or for larger pages",
        Bytes(*.shortest),
        Bytes(*.required)
    )]
    Fragmented {
        /// Required length of each run in bytes.
        required: u64,
        /// Length of the shortest run in bytes.
        shortest: u64,
    },
    /// The host has less memory available than was requested.
    #[error(
        "the host has {} available; ask for less, stop something that uses memory, or allocate \
         it on demand (`residency`)",
        Bytes(*.available)
    )]
    NoHostMemory {
        /// Available memory in bytes (`MemAvailable` of /proc/meminfo).
        available: u64,
    },
    /// The kernel's pool has fewer free huge pages than are needed.
    #[error(
        "the kernel's pool of {page} pages has {free} free, and it takes {needed}; fill it \
         (/sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages), or allow other pages",
        page = Bytes(*.page), kib = .page >> 10
    )]
    PoolShort {
        /// Size of a page in bytes.
        page: u64,
        /// Number of free pages.
        free: u64,
        /// Number of pages needed.
        needed: u64,
    },
    /// A system call failed, such as mmap().
    #[error("{what} failed: {}", system_words(*.errno))]
    Os {
        /// The system call, or its purpose.
        what: &'static str,
        /// Its error number.
        errno: Errno,
    },
}

impl Reason {
    /// The error number, as `<qvm/gasp.h>` returns it.
    pub fn errno(self) -> Errno {
        match self {
            Self::ZeroLength
            | Self::OutOfBounds { .. }
            | Self::Unaligned { .. }
            | Self::Invalid(_)
            | Self::FileTooSmall { .. } => Errno::INVAL,
            Self::Wraps
            | Self::BeyondWidth { .. }
            | Self::BadFlags(_)
            | Self::NoMemory { .. }
            | Self::NotRam { .. }
            | Self::NotConsecutive { .. } => Errno::NXIO,
            Self::Refused { .. } => Errno::FAULT,
            Self::Forbidden { .. } | Self::NotAllowed { .. } | Self::FileReadOnly(_) => {
                Errno::ACCESS
            }
            Self::HostUnknown(_) => Errno::PERM,
            Self::Unpinned => Errno::AGAIN,
            Self::Overlaps(_) | Self::NameTaken(_) | Self::GrantedElsewhere { .. } => Errno::EXIST,
            Self::InUse(_) | Self::OtherOwner | Self::Locked => Errno::BUSY,
            Self::Deadlock(_) => Errno::DEADLK,
            Self::Limit { .. } | Self::NoRoom => Errno::NOSPC,
            Self::NotFound(_) => Errno::NOENT,
            Self::NotAFile(_) => Errno::NODEV,
            Self::MemoryGone => Errno::IO,
            Self::Fragmented { .. } | Self::NoHostMemory { .. } | Self::PoolShort { .. } => {
                Errno::NOMEM
            }
            Self::Os { errno, .. } => errno,
        }
    }

    /// The reason of a failed system call, by its name or purpose.
    pub(crate) fn os(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Os { what, errno }
    }
}

/// The system's message for an error number and, if that is about a limit, which one to raise.
///
/// ```
/// use gasp::{Errno, system_words};
/// assert_eq!(
///     system_words(Errno::MFILE),
///     "Too many open files; raise the process's limit (ulimit -n)"
/// );
/// ```
pub fn system_words(errno: Errno) -> String {
    let text = errno.to_string();
    let words = text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words);
    match remedy(errno) {
        Some(remedy) => format!("{words}; {remedy}"),
        None => words.to_owned(),
    }
}

fn remedy(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::MFILE => Some("raise the process's limit (ulimit -n)"),
        Errno::NFILE => Some("raise the host's limit (sysctl fs.file-max)"),
        Errno::FBIG => Some("raise the limit of file sizes (ulimit -f)"),
        Errno::NOMEM => Some(
            "ask for less, or raise the limits of address space (ulimit -v) and of mappings \
             (sysctl vm.max_map_count)",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::errno_name;
    use super::*;

    #[test]
    fn policy_is_efault_and_structure_is_enxio() {
        let refused = Reason::Refused { addr: DeviceAddr(0), refusal: Refusal::NotGranted };
        assert_eq!(refused.errno(), Errno::FAULT);
        for reason in [
            Reason::Wraps,
            Reason::BadFlags(0),
            Reason::NoMemory { addr: GuestPhys(0) },
            Reason::NotRam { addr: GuestPhys(0) },
            Reason::NotConsecutive { prefix: 1 },
            Reason::BeyondWidth { bits: 40 },
        ] {
            assert_eq!(reason.errno(), Errno::NXIO, "{reason}");
        }
    }

    #[test]
    fn every_errno_that_a_reason_has_of_its_own_has_a_name() {
        for errno in [
            Errno::INVAL,
            Errno::NXIO,
            Errno::FAULT,
            Errno::ACCESS,
            Errno::PERM,
            Errno::AGAIN,
            Errno::EXIST,
            Errno::BUSY,
            Errno::NOSPC,
            Errno::NOENT,
            Errno::NODEV,
            Errno::NOMEM,
            Errno::DEADLK,
        ] {
            assert_ne!(errno_name(errno), "E?", "{errno:?}");
        }
    }
}
