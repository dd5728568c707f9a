//! Memory that somebody else made: a descriptor, or a pass-through window.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, OFlags, SealFlags};
use rustix::param::page_size;

use super::backing::{Backing, BackingReport};
use super::object::{MemoryObject, Parts, Residency};
use super::window::Window;
use crate::access::Access;
use crate::addr::{GRANULE, HostPhys};
use crate::error::{Error, Operation, Place, Reason, Result};

pub(super) const AT_START: Place = Place::Offset(0);

bitflags::bitflags! {
    /// What the owner of a memory file can no longer do to it.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Seals: u8 {
        /// Make it shorter: memory that is mapped cannot vanish.
        const SHRINK = 1;
        /// Make it longer.
        const GROW = 2;
        /// Write to it at all.
        const WRITE = 4;
        /// Make new writable maps, or punch holes.
        const FUTURE_WRITE = 8;
        /// Add seals.
        const SEAL = 16;
    }
}

/// Which part of a descriptor to adopt, and how.
#[derive(Clone, Copy, Debug)]
pub struct Adopt<'a> {
    /// A name for reports.
    pub name: &'a str,
    /// Where the memory begins in the file; a multiple of its page size.
    pub offset: u64,
    /// How many bytes; a multiple of its page size.
    pub len: u64,
    /// What is to be done to it: [`Access::RW`], or [`Access::READ`] for a file that
    /// cannot be written.
    pub access: Access,
    /// How firmly to hold its pages.
    pub residency: Residency,
}

impl MemoryObject {
    /// Adopts a part of a file that was handed over: memfd, hugetlbfs, tmpfs or any other
    /// that can be mapped. It is not zeroed. The seals are read and then the size, so
    /// that a file sealed against shrinking is as long as it was seen to be.
    ///
    /// # Errors
    /// `EINVAL` where the range is empty, unaligned or passes the end of the file;
    /// `EACCES` where write access is asked for and the file cannot be written; `ENODEV`
    /// for a directory, pipe or socket; any mmap() error.
    pub fn adopt(fd: OwnedFd, how: Adopt<'_>) -> Result<Self> {
        let parts =
            open_window(fd, &how, Backing::Adopted).map_err(|reason| failed(&how, reason))?;
        Ok(Self::resident(parts, how.residency))
    }

    /// A window to memory or registers with a known host-physical address: `fd` is what
    /// gives access to it (`/dev/mem`, a UIO or VFIO resource, …), `host` where its byte
    /// at `how.offset` lies. A host-contiguous map returns exactly `host` + offset, over
    /// the whole window. The address is believed, not checked: whoever configures the
    /// guest is responsible for it.
    ///
    /// # Errors
    /// As [`adopt`](Self::adopt); `EINVAL` too where `host` is not a multiple of the
    /// host's page size, or the window would pass the end of the address space.
    pub fn pass_through(fd: OwnedFd, host: HostPhys, how: Adopt<'_>) -> Result<Self> {
        let fail = |reason| failed(&how, reason);
        if !host.is_aligned(page_size() as u64) || host.checked_add(how.len).is_none() {
            return Err(fail(Reason::Invalid(
                "the host-physical base must be page aligned and the window end inside 64 bits",
            )));
        }
        let parts = open_window(fd, &how, Backing::PassThrough).map_err(fail)?;
        Ok(Self::declared(parts, host))
    }
}

fn failed(how: &Adopt<'_>, reason: Reason) -> Error {
    Error::new(Operation::AdoptMemory, Place::Offset(how.offset), how.len, reason)
}

fn open_window(
    fd: OwnedFd,
    how: &Adopt<'_>,
    backing: Backing,
) -> core::result::Result<Parts, Reason> {
    if how.len == 0 {
        return Err(Reason::ZeroLength);
    }
    let seals = rustix::fs::fcntl_get_seals(&fd).map_or(Seals::empty(), seals_from);
    let stat = rustix::fs::fstat(&fd).map_err(Reason::os("fstat"))?;
    let page = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            if how.offset.checked_add(how.len).is_none_or(|end| end > size) {
                return Err(Reason::FileTooSmall { size });
            }
            huge_page_size(&fd).unwrap_or_else(page_size)
        }
        FileType::CharacterDevice if backing == Backing::PassThrough => page_size(),
        FileType::CharacterDevice => return Err(Reason::NotAFile("a device")),
        FileType::BlockDevice => return Err(Reason::NotAFile("a block device")),
        FileType::Directory => return Err(Reason::NotAFile("a directory")),
        FileType::Fifo => return Err(Reason::NotAFile("a pipe")),
        FileType::Socket => return Err(Reason::NotAFile("a socket")),
        _ => return Err(Reason::NotAFile("something else")),
    };
    let unit = (page as u64).max(GRANULE);
    let len = usize::try_from(how.len).map_err(|_| Reason::Wraps)?;
    if !how.offset.is_multiple_of(unit) || !how.len.is_multiple_of(unit) {
        return Err(Reason::Invalid("offset and length must be whole pages of the file"));
    }
    let mode = rustix::fs::fcntl_getfl(&fd).map_err(Reason::os("fcntl"))? & OFlags::RWMODE;
    if mode == OFlags::WRONLY {
        return Err(Reason::Invalid("the file was opened write-only and cannot be mapped"));
    }
    if how.access.contains(Access::WRITE) {
        if seals.intersects(Seals::WRITE | Seals::FUTURE_WRITE) {
            return Err(Reason::FileReadOnly("it is sealed against writing"));
        }
        if mode == OFlags::RDONLY {
            return Err(Reason::FileReadOnly("it was opened read-only"));
        }
    }
    let window = Window::map(fd.as_fd(), how.offset, len, how.access, page)?;
    Ok(Parts {
        name: how.name.into(),
        window,
        fd: Some((fd, how.offset, seals)),
        access: how.access,
        report: BackingReport::of(backing),
        page,
        populated: false,
    })
}

/// The page size of a file on hugetlbfs, or of a hugetlb memfd; `None` elsewhere.
fn huge_page_size(fd: &OwnedFd) -> Option<usize> {
    const HUGETLBFS: u32 = 0x958458f6;
    let stat = rustix::fs::fstatfs(fd).ok()?;
    let is_huge = u32::try_from(stat.f_type).ok()? == HUGETLBFS;
    is_huge.then(|| usize::try_from(stat.f_bsize).ok())?.filter(|size| size.is_power_of_two())
}

fn seals_from(flags: SealFlags) -> Seals {
    [
        (SealFlags::SHRINK, Seals::SHRINK),
        (SealFlags::GROW, Seals::GROW),
        (SealFlags::WRITE, Seals::WRITE),
        (SealFlags::FUTURE_WRITE, Seals::FUTURE_WRITE),
        (SealFlags::SEAL, Seals::SEAL),
    ]
    .into_iter()
    .filter(|(flag, _)| flags.contains(*flag))
    .fold(Seals::empty(), |all, (_, seal)| all | seal)
}
