//! The error type: operation, device, address, length, and the reason of the failure.
//!
//! [`Error`] is the attempt, [`Reason`] the cause. Every reason has exactly one errno,
//! so that the C interface and the Rust one never disagree.

#[cfg(test)]
mod messages;
mod reason;

use core::fmt;
use std::sync::Arc;

pub use reason::{Reason, Refusal, system_words};
/// An error number of the host system.
pub use rustix::io::Errno;

use crate::addr::{DeviceAddr, GuestPhys, HostPhys};
use crate::bytes::Bytes;

/// The result of an operation of this crate.
pub type Result<T> = core::result::Result<T, Error>;

/// The operation that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Mapping all of a range for a device.
    Map,
    /// Mapping a range as firmware and vCPUs see it, without the IOMMU.
    MapFirmware,
    /// Mapping the host-contiguous beginning of a range.
    MapHostContig,
    /// Mapping all pieces of a scattered range.
    MapScatter,
    /// Mapping the pieces of a scattered range side by side.
    MapStitched,
    /// Fencing a mapping: [`Mapping::fence`](crate::Mapping::fence).
    Fence,
    /// Copying out of guest memory.
    Read,
    /// Copying into guest memory.
    Write,
    /// Accessing a mapping.
    Access,
    /// Creating a memory object.
    CreateMemory,
    /// Adopting memory of another owner.
    AdoptMemory,
    /// Changing the regions of an address space.
    SetRegion,
    /// Looking up a region.
    RegionInfo,
    /// Searching for a free range.
    FindFree,
    /// Claiming a range inside RAM or ROM.
    Reserve,
    /// Adding an IOMMU grant.
    Grant,
    /// Removing IOMMU grants.
    Revoke,
    /// Invalidating answers of a domain's translator.
    Invalidate,
    /// Attaching a device to a domain.
    Attach,
    /// Creating a guest, a domain or a device.
    Create,
    /// Removing a domain.
    Remove,
    /// Looking up a host-physical address.
    HostPhysical,
    /// Comparing host-physical addresses with those read before.
    Audit,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Map => "map",
            Self::MapFirmware => "firmware map",
            Self::MapHostContig => "host-contiguous map",
            Self::MapScatter => "scatter map",
            Self::MapStitched => "stitched map",
            Self::Fence => "fence",
            Self::Read => "read",
            Self::Write => "write",
            Self::Access => "access",
            Self::CreateMemory => "creation of memory",
            Self::AdoptMemory => "adoption",
            Self::SetRegion => "change of a region",
            Self::RegionInfo => "look-up of a region",
            Self::FindFree => "search for free space",
            Self::Reserve => "reservation",
            Self::Grant => "IOMMU grant",
            Self::Revoke => "IOMMU revoke",
            Self::Invalidate => "IOMMU invalidation",
            Self::Attach => "attachment",
            Self::Create => "creation",
            Self::Remove => "removal",
            Self::HostPhysical => "host-physical look-up",
            Self::Audit => "audit",
        })
    }
}

/// The address that an error is about, with its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Location {
    /// A device address.
    Device(DeviceAddr),
    /// A guest-physical address.
    Guest(GuestPhys),
    /// A host-physical address.
    Host(HostPhys),
    /// An offset in a memory object, a file or a mapping, in bytes.
    Offset(u64),
}

impl Location {
    /// The address as a number.
    pub fn raw(self) -> u64 {
        match self {
            Self::Device(addr) => addr.0,
            Self::Guest(addr) => addr.0,
            Self::Host(addr) => addr.0,
            Self::Offset(offset) => offset,
        }
    }
}

impl From<DeviceAddr> for Location {
    fn from(addr: DeviceAddr) -> Self {
        Self::Device(addr)
    }
}

impl From<GuestPhys> for Location {
    fn from(addr: GuestPhys) -> Self {
        Self::Guest(addr)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(addr) => write!(f, "device address {addr}"),
            Self::Guest(addr) => write!(f, "guest-physical {addr}"),
            Self::Host(addr) => write!(f, "host-physical {addr}"),
            Self::Offset(offset) => write!(f, "offset {offset:#x}"),
        }
    }
}

/// A failed operation, which has changed nothing except that a refusal by the IOMMU leaves a
/// fault record (decision 10).
///
/// ```
/// use gasp::{DeviceAddr, Guest, MapFlags, Reason};
/// let guest = Guest::builder().build()?;
/// let vdev = guest.vdev("disk")?;
/// let error = vdev.map(DeviceAddr(0x1000), 0, MapFlags::READ).unwrap_err();
/// assert_eq!(error.reason(), Reason::ZeroLength);
/// assert_eq!(error.errno_name(), "EINVAL");
/// assert!(error.to_string().contains("disk"));
/// # Ok::<(), gasp::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    operation: Operation,
    device: Option<Arc<str>>,
    /// Start, and length in bytes; `None` for an operation without addresses.
    range: Option<(Location, u64)>,
    reason: Reason,
}

impl Error {
    /// An error about `len` bytes from `location` on, without a device.
    #[cold]
    pub fn new(
        operation: Operation,
        location: impl Into<Location>,
        len: u64,
        reason: Reason,
    ) -> Self {
        Self { operation, device: None, range: Some((location.into(), len)), reason }
    }

    /// An error about an object as a whole, such as a guest or a device, without addresses.
    #[cold]
    pub fn whole(operation: Operation, reason: Reason) -> Self {
        Self { operation, device: None, range: None, reason }
    }

    /// The same error, with the name of the device or domain that it is about.
    #[cold]
    #[must_use]
    pub fn of(mut self, device: &Arc<str>) -> Self {
        self.device = Some(Arc::clone(device));
        self
    }

    /// The operation that failed.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The name of the device or domain, if the error is about one.
    pub fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// The start of the range; `None` if the error is about an object as a whole.
    pub fn location(&self) -> Option<Location> {
        self.range.map(|(location, _)| location)
    }

    /// Length of the range in bytes; 0 if the error is about an object as a whole.
    #[expect(clippy::len_without_is_empty, reason = "a length in bytes, not a collection")]
    pub fn len(&self) -> u64 {
        self.range.map_or(0, |(_, len)| len)
    }

    /// The reason of the failure.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The error number, as `<qvm/gasp.h>` returns it.
    pub fn errno(&self) -> Errno {
        self.reason.errno()
    }

    /// The name of the error number, such as `"EFAULT"`.
    pub fn errno_name(&self) -> &'static str {
        errno_name(self.errno())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = self.operation;
        match (operation, self.range) {
            (_, None) => write!(f, "{operation}")?,
            (Operation::CreateMemory, Some((_, len))) => {
                write!(f, "creation of {:#} of memory", Bytes(len))?;
            }
            (_, Some((location, len))) => {
                write!(f, "{operation} of {:#} at {location}", Bytes(len))?;
            }
        }
        if let Some(name) = &self.device {
            let of = matches!(operation, Operation::Create | Operation::Remove | Operation::Attach);
            write!(f, " {} `{name}`", if of { "of" } else { "for" })?;
        }
        write!(f, ": {} ({})", self.reason, self.errno_name())
    }
}

impl core::error::Error for Error {}

/// The name of an error number, such as `"EFAULT"`; `"E?"` for a number that this crate
/// neither returns nor passes on.
pub fn errno_name(errno: Errno) -> &'static str {
    macro_rules! names {
        ($($rustix:ident $name:literal),* $(,)?) => {
            match errno {
                $(Errno::$rustix => $name,)*
                _ => "E?",
            }
        };
    }
    names! {
        ACCESS "EACCES", ADDRINUSE "EADDRINUSE", AGAIN "EAGAIN", BADF "EBADF", BUSY "EBUSY",
        CONNREFUSED "ECONNREFUSED", CONNRESET "ECONNRESET", DEADLK "EDEADLK", EXIST "EEXIST",
        FAULT "EFAULT", FBIG "EFBIG", INVAL "EINVAL", IO "EIO", ISDIR "EISDIR",
        LOOP "ELOOP", MFILE "EMFILE", NAMETOOLONG "ENAMETOOLONG", NFILE "ENFILE",
        NODEV "ENODEV", NOENT "ENOENT", NOMEM "ENOMEM", NOSPC "ENOSPC", NOSYS "ENOSYS",
        NOTDIR "ENOTDIR", NOTSUP "ENOTSUP", NOTUNIQ "ENOTUNIQ", NXIO "ENXIO", OVERFLOW "EOVERFLOW",
        PERM "EPERM", PIPE "EPIPE", PROTO "EPROTO", ROFS "EROFS", SRCH "ESRCH", STALE "ESTALE", TIMEDOUT "ETIMEDOUT", TXTBSY "ETXTBSY",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_device_address_length_and_reason() {
        let error = Error::new(Operation::Map, DeviceAddr(0x4000), 0x200, Reason::ZeroLength)
            .of(&Arc::from("nvme0"));
        let text = error.to_string();
        for part in ["map of 512 bytes", "nvme0", "0x4000", "EINVAL"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }

    #[test]
    fn an_error_says_sizes_as_people_do_and_nothing_of_addresses_where_there_are_none() {
        let error =
            |operation, len, reason| Error::new(operation, Location::Offset(0), len, reason);
        let memory = Reason::NoHostMemory { available: 7 << 30 };
        let text = error(Operation::CreateMemory, 500 << 30, memory).to_string();
        assert!(text.starts_with("creation of 500 GiB of memory: "), "{text}");
        assert!(text.contains("7 GiB") && text.ends_with("(ENOMEM)"), "{text}");
        let limit = Reason::Limit { what: "devices", limit: 4 };
        let text = Error::whole(Operation::Create, limit).of(&Arc::from("disk")).to_string();
        assert!(text.starts_with("creation of `disk`: "), "{text}");
        for reason in [
            Reason::NotConsecutive { prefix: 4096 },
            Reason::OutOfBounds { size: 4096 },
            Reason::FileTooSmall { size: 4096 },
            Reason::Fragmented { required: 4096, shortest: 4096 },
            Reason::PoolShort { page: 4096, free: 0, needed: 2 },
        ] {
            assert!(reason.to_string().contains("4 KiB"), "{reason}");
        }
    }

    #[test]
    fn an_error_of_the_system_says_which_limit_is_in_the_way() {
        for (errno, limit) in
            [(Errno::MFILE, "ulimit -n"), (Errno::FBIG, "ulimit -f"), (Errno::NOMEM, "ulimit -v")]
        {
            let text = Reason::Os { what: "mmap", errno }.to_string();
            assert!(text.contains(limit), "{text}");
        }
    }

    #[test]
    fn an_error_is_small_enough_to_return_by_value() {
        assert!(size_of::<Error>() <= 96, "{}", size_of::<Error>());
    }
}
