//! Why an operation was refused, and the errno of each reason.

use thiserror::Error;

use super::Errno;
use crate::access::Access;
use crate::addr::{DeviceAddr, GuestPhys};
use crate::bytes::Bytes;

/// Why the guest's IOMMU configuration refuses an access.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum Refusal {
    /// No grant of the domain covers the address.
    #[error("no grant of its domain covers the address")]
    NotGranted,
    /// A grant covers the address but does not allow this kind of access.
    #[error("its domain allows only {allowed} there and {wanted} was asked for")]
    Access {
        /// What the grant allows.
        allowed: Access,
        /// What was asked for.
        wanted: Access,
    },
    /// The device is attached to no domain, and the guest says `unattached = "deny"`
    /// (decision 14).
    #[error("it is attached to no domain, and unattached devices are denied")]
    Unattached,
    /// The device's domain denies everything.
    #[error("its domain denies everything")]
    DenyDomain,
}

/// Why an operation was refused. Each reason has exactly one [`errno`](Self::errno).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
#[non_exhaustive]
pub enum Reason {
    /// A length of 0 (decision 2).
    #[error("the length is 0; ask for at least one byte")]
    ZeroLength,
    /// Address and length pass 2^64 (decision 3).
    #[error("address and length extend past the end of the 64-bit address space")]
    Wraps,
    /// The range passes the guest's address width (decision 3).
    #[error("the range extends past the guest's address width of {bits} bits")]
    BeyondWidth {
        /// The guest's address width.
        bits: u32,
    },
    /// The flag combination is not valid (decision 4).
    #[error("flags {0:#x} are not valid: at least one of read, write, execute and no unknown bit")]
    BadFlags(u32),
    /// The guest's IOMMU says no.
    #[error("the guest's IOMMU refuses {at}: {refusal}")]
    Refused {
        /// The first refused address.
        at: DeviceAddr,
        /// Why.
        refusal: Refusal,
    },
    /// No memory is behind part of the range (decision 8).
    #[error("there is no memory at guest-physical {at}")]
    NoMemory {
        /// The first guest-physical address without memory.
        at: GuestPhys,
    },
    /// Something other than system RAM is behind part of the range (decision 5).
    #[error(
        "guest-physical {at} is not system RAM; ask with the `any` flag to map ROM or a window"
    )]
    NotRam {
        /// The first such guest-physical address.
        at: GuestPhys,
    },
    /// The memory itself does not offer the access: a write to ROM (decision 6).
    #[error("the memory at guest-physical {at} offers only {offered} and {wanted} was asked for")]
    Forbidden {
        /// The first such guest-physical address.
        at: GuestPhys,
        /// What the memory offers.
        offered: Access,
        /// What was asked for.
        wanted: Access,
    },
    /// Allowed, but not consecutive in host memory (decision 21).
    #[error(
        "only the first {:#} are consecutive in memory; use a scatter or stitched map",
        Bytes(*.prefix)
    )]
    NotConsecutive {
        /// How many bytes from the start are consecutive; never 0.
        prefix: u64,
    },
    /// A mapping was used in a way it does not allow.
    #[error("the mapping allows only {allowed}")]
    NotAllowed {
        /// What the mapping allows.
        allowed: Access,
    },
    /// An access inside a mapping or object passes its end.
    #[error("the range extends past the end: there are {:#}", Bytes(*.size))]
    OutOfBounds {
        /// The length of the mapping or object.
        size: u64,
    },
    /// An atomic access that is not aligned to its size.
    #[error("the address is not a multiple of {align}")]
    Unaligned {
        /// The alignment that is needed.
        align: u64,
    },
    /// Host-physical addresses are not to be had (decision 19).
    #[error("host-physical addresses are not known: {0}")]
    HostUnknown(&'static str),
    /// The host-physical address can still change (decision 20).
    #[error(
        "the memory is not pinned, so its host-physical address can change; allow pinning or say \
         allow-unpinned"
    )]
    Unpinned,
    /// Something is there already.
    #[error("it overlaps {0}, which is there already")]
    Overlaps(&'static str),
    /// The translation is there already with another target.
    #[error("device address {at} is mapped already, to guest-physical {to}; revoke that first")]
    MappedElsewhere {
        /// The first such device address.
        at: DeviceAddr,
        /// Where it goes now.
        to: GuestPhys,
    },
    /// A thing of this kind has the name already.
    #[error("there is {0} of this name already")]
    NameTaken(&'static str),
    /// It cannot go while something uses it.
    #[error("{0}")]
    InUse(&'static str),
    /// The device is in a domain of another owner.
    #[error("the device is in a domain of another owner; detach it first")]
    OtherOwner,
    /// It would wait for something that only the calling thread can end (decision 22).
    #[error("it would wait for this thread itself: {0}")]
    Deadlock(&'static str),
    /// The calling thread has the lock already.
    #[error("this thread has the lock already; make the change through it")]
    Locked,
    /// A limit was reached.
    #[error("the limit of {limit} {what} is reached")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// A configuration value is not acceptable.
    #[error("{0}")]
    Invalid(&'static str),
    /// What was named does not exist.
    #[error("there is no {0}")]
    NotFound(&'static str),
    /// No free range is large enough.
    #[error("no free range is large enough")]
    NoRoom,
    /// A file or descriptor is shorter than what is asked of it.
    #[error("the file holds only {:#}", Bytes(*.size))]
    FileTooSmall {
        /// The size of the file.
        size: u64,
    },
    /// A descriptor is sealed or opened such that it cannot be written.
    #[error("the file cannot be written ({0}); adopt it read-only")]
    FileReadOnly(&'static str),
    /// A descriptor of something that cannot be mapped as memory.
    #[error("it is {0}, not memory or a file")]
    NotAFile(&'static str),
    /// The owner of adopted memory has taken it away while it was in use. (`EFAULT` is kept
    /// for the guest's IOMMU.)
    #[error("the memory is gone: its owner has truncated the file or punched a hole into it")]
    MemoryGone,
    /// RAM cannot be had in pieces that are long enough.
    #[error(
        "the shortest host-contiguous piece would be {}, and at least {} is asked for; ask for \
         less, or for larger pages",
        Bytes(*.had),
        Bytes(*.wanted)
    )]
    Fragmented {
        /// How long each piece was to be, in bytes.
        wanted: u64,
        /// How long the shortest was, in bytes.
        had: u64,
    },
    /// The host has less memory available than is asked for.
    #[error(
        "the host has {} available; ask for less, end something that uses memory, or take it on \
         demand (`residency`)",
        Bytes(*.available)
    )]
    NoHostMemory {
        /// What the kernel says is available, in bytes (`MemAvailable`).
        available: u64,
    },
    /// The kernel's pool has fewer free huge pages than are needed.
    #[error(
        "the kernel's pool of {page} pages has {free} free, and it takes {needed}; fill it \
         (/sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages), or allow other pages",
        page = Bytes(*.page), kib = .page >> 10
    )]
    PoolShort {
        /// The size of a page, in bytes.
        page: u64,
        /// How many are free.
        free: u64,
        /// How many it takes.
        needed: u64,
    },
    /// The host system refused; any mmap() error comes this way.
    #[error("{what} failed: {}", system_words(*.errno))]
    Os {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        errno: Errno,
    },
}

impl Reason {
    /// The error number, one for each reason.
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
            Self::Overlaps(_) | Self::NameTaken(_) | Self::MappedElsewhere { .. } => Errno::EXIST,
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

    /// A system call that failed, by name.
    pub(crate) fn os(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Os { what, errno }
    }
}

/// The system's words for an error number, and which limit to raise if it is one of a limit.
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
        let refused = Reason::Refused { at: DeviceAddr(0), refusal: Refusal::NotGranted };
        assert_eq!(refused.errno(), Errno::FAULT);
        for reason in [
            Reason::Wraps,
            Reason::BadFlags(0),
            Reason::NoMemory { at: GuestPhys(0) },
            Reason::NotRam { at: GuestPhys(0) },
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
