//! Memory that somebody else created: a file that was handed over, or a pass-through window.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, OFlags, SealFlags};
use rustix::param::page_size;

use super::file::{MemoryFile, Seals, seals_from};
use super::file_system;
use super::object::{MemoryObject, OwnerPower, Properties};
use super::pin::PinMethod;
use super::report::Residency;
use super::report::{Backing, BackingReport};
use super::window::Window;
use crate::access::Access;
use crate::addr::{GRANULE, HostPhys};
use crate::error::{Error, Location, Operation, Reason, Result};
use crate::memory::access::guard;

pub(super) const AT_START: Location = Location::Offset(0);

/// The part of a file to adopt, and how.
#[derive(Clone, Copy, Debug)]
pub struct Adopt<'a> {
    /// The name for reports.
    pub name: &'a str,
    /// Bytes from the start of the file; a multiple of its page size and of 4 KiB.
    pub offset: u64,
    /// Bytes; a multiple of the file's page size and of 4 KiB, not 0.
    pub len: u64,
    /// The access to map it with: [`Access::RW`], or [`Access::READ`] for a file that cannot be
    /// written.
    pub access: Access,
    /// How firmly to hold its pages.
    pub residency: Residency,
    /// The pin methods to try, in order.
    pub pins: &'a [PinMethod],
    /// Whether whoever has the file is trusted not to truncate it or punch holes into it while it
    /// is mapped, and to answer if a server keeps the pages of the file (FUSE, a network). If not,
    /// it is [sealed](MemoryObject::adopt) or [guarded](MemoryObject::is_guarded), and its class is
    /// no better than [`Unpinned`](super::Stability::Unpinned) unless nobody can punch holes.
    pub trusted: bool,
}

impl<'a> Adopt<'a> {
    /// The first `len` bytes of a file, for reading and writing, to be pinned, of an owner who is
    /// not trusted.
    pub fn new(name: &'a str, len: u64) -> Self {
        Self {
            name,
            offset: 0,
            len,
            access: Access::RW,
            residency: Residency::Pinned,
            pins: &PinMethod::PREFERENCE,
            trusted: false,
        }
    }
}

impl MemoryObject {
    /// Adopts a part of a file that was handed over: a memfd, or a file on hugetlbfs, tmpfs or any
    /// other file system whose files can be mapped. It is not zeroed.
    ///
    /// Unless its owner is [trusted](Adopt::trusted), the file is sealed against shrinking if
    /// possible. The seals are read before the size, so that a file sealed against shrinking cannot
    /// be shorter than the size that was read. If its memory can still be taken away, every access
    /// is [guarded](Self::is_guarded).
    ///
    /// # Errors
    /// `EINVAL` if the range is empty, unaligned or extends past the end of the file, or the file
    /// was opened write-only; `EACCES` if write access is requested and the file cannot be written;
    /// `ENODEV` for a directory, pipe or socket and, unless the owner is trusted, for a file whose
    /// pages this host does not keep itself (FUSE, network and stacked file systems), because every
    /// access could wait for a server; any mmap() error.
    pub fn adopt(fd: OwnedFd, how: Adopt<'_>) -> Result<Self> {
        if !how.trusted
            && let Err(reason) = file_system::check(&fd)
        {
            file_system::close(fd);
            return Err(failed(&how, reason));
        }
        let properties =
            open_window(fd, &how, Backing::Adopted).map_err(|reason| failed(&how, reason))?;
        Ok(Self::resident(properties, how.residency, how.pins))
    }

    /// Maps a pass-through window: memory or registers with a known host-physical address. `fd` is
    /// the file to map (`/dev/mem`, a UIO or VFIO resource, …), `host` the host-physical address of
    /// its byte at `how.offset`. A host-contiguous map returns exactly `host` + offset, over the
    /// whole window. The address is believed, not checked, and the window is trusted to stay:
    /// whoever configures the guest is responsible for both.
    ///
    /// # Errors
    /// As [`adopt`](Self::adopt) of a trusted owner's file; also `EINVAL` if `host` is not a
    /// multiple of the host's page size, or the window would extend past the end of the address
    /// space.
    pub fn pass_through(fd: OwnedFd, host: HostPhys, how: Adopt<'_>) -> Result<Self> {
        let fail = |reason| failed(&how, reason);
        if !host.is_aligned(page_size() as u64) || host.checked_add(how.len).is_none() {
            return Err(fail(Reason::Invalid(
                "the host-physical base must be page-aligned, and the window end inside 64 bits",
            )));
        }
        let properties = open_window(fd, &how, Backing::PassThrough).map_err(fail)?;
        Ok(Self::declared(properties, host))
    }
}

fn failed(how: &Adopt<'_>, reason: Reason) -> Error {
    Error::new(Operation::AdoptMemory, Location::Offset(how.offset), how.len, reason)
}

fn open_window(
    fd: OwnedFd,
    how: &Adopt<'_>,
    backing: Backing,
) -> core::result::Result<Properties, Reason> {
    if how.len == 0 {
        return Err(Reason::ZeroLength);
    }
    let trusted = how.trusted || backing == Backing::PassThrough;
    if !trusted {
        // Not every file can be sealed, nor by everyone who has it.
        let _ = rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK);
    }
    let seals = seals_of(&fd);
    let page = page_of(&fd, how.offset, how.len, backing == Backing::PassThrough)?;
    let len = usize::try_from(how.len).map_err(|_| Reason::Wraps)?;
    let mode = rustix::fs::fcntl_getfl(&fd).map_err(Reason::os("fcntl"))? & OFlags::RWMODE;
    if mode == OFlags::WRONLY {
        return Err(Reason::Invalid("the file was opened write-only and cannot be mapped"));
    }
    if how.access.contains(Access::WRITE) {
        if seals.intersects(Seals::NO_NEW_WRITER) {
            return Err(Reason::FileReadOnly("it is sealed against writing"));
        }
        if mode == OFlags::RDONLY {
            return Err(Reason::FileReadOnly("it was opened read-only"));
        }
    }
    let owner = if trusted { OwnerPower::Trusted } else { power_of_owner(seals, page) };
    if owner == OwnerPower::Takes {
        guard::install()?;
    }
    let window = Window::map(fd.as_fd(), how.offset, len, how.access, page)?;
    let shared = is_shared_memory(&fd);
    Ok(Properties {
        file: Some(MemoryFile::whole(fd, how.offset, how.len, seals)),
        owner,
        shared,
        ..Properties::new(how.name, window, how.access, BackingReport::of(backing), page)
    })
}

/// The page size in bytes of a file of which `len` bytes from `offset` on are memory: a regular
/// file that has them, or a device if `or_device`.
pub(super) fn page_of(
    fd: &OwnedFd,
    offset: u64,
    len: u64,
    or_device: bool,
) -> core::result::Result<usize, Reason> {
    let stat = rustix::fs::fstat(fd).map_err(Reason::os("fstat"))?;
    let page = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            if offset.checked_add(len).is_none_or(|end| end > size) {
                return Err(Reason::FileTooSmall { size });
            }
            huge_page_size(fd).unwrap_or_else(page_size)
        }
        FileType::CharacterDevice if or_device => page_size(),
        other => return Err(Reason::NotAFile(file_system::name(other))),
    };
    let unit = (page as u64).max(GRANULE);
    if !offset.is_multiple_of(unit) || !len.is_multiple_of(unit) {
        return Err(Reason::Invalid("offset and length must be whole pages of the file"));
    }
    Ok(page)
}

/// The seals of a file; none if it cannot have any.
pub(super) fn seals_of(fd: &OwnedFd) -> Seals {
    rustix::fs::fcntl_get_seals(fd).map_or(Seals::empty(), seals_from)
}

/// Whether a file's pages are shared memory, which a pipe can hold.
pub(super) fn is_shared_memory(fd: &OwnedFd) -> bool {
    matches!(file_system(fd), Some(HUGETLBFS | TMPFS))
}

/// What an owner who is not trusted can do to memory whose file has these seals and this page size.
fn power_of_owner(seals: Seals, page: usize) -> OwnerPower {
    let punches = !seals.intersects(Seals::NO_NEW_WRITER);
    // The next access fills a hole in memory of base pages. A hole in the file of a huge page pool
    // is filled only if the pool has another page.
    let holes_fault = page > page_size();
    match (seals.contains(Seals::SHRINK), punches) {
        (true, false) => OwnerPower::Trusted,
        (true, true) if !holes_fault => OwnerPower::Punches,
        _ => OwnerPower::Takes,
    }
}

const HUGETLBFS: u32 = 0x958458f6;
const TMPFS: u32 = 0x01021994;

/// The magic number of the file system that a file is on; a memfd is on tmpfs or hugetlbfs.
fn file_system(fd: &OwnedFd) -> Option<u32> {
    u32::try_from(rustix::fs::fstatfs(fd).ok()?.f_type).ok()
}

/// The page size of a file on hugetlbfs, or of a hugetlb memfd; `None` for other files.
fn huge_page_size(fd: &OwnedFd) -> Option<usize> {
    let stat = rustix::fs::fstatfs(fd).ok()?;
    let is_huge = u32::try_from(stat.f_type).ok()? == HUGETLBFS;
    is_huge.then(|| usize::try_from(stat.f_bsize).ok())?.filter(|size| size.is_power_of_two())
}
