//! The client's memory files: adopted whole, once, and placed in the guest.
//!
//! A file is known by device and inode; the descriptor that we keep holds the inode, so the
//! number cannot come to mean another file. Whoever hands over a file that is known pays
//! for one `fstat`, and for one look at its seals.
//!
//! A file may have grown, or may first have come read-only: then it is adopted again, and
//! the earlier mapping stays for as long as windows use it. Files that no window uses are
//! kept, because a guest with an IOMMU maps and unmaps the same memory all the time; they
//! go when there are too many, and with the connection.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gasp::{Access, Adopt, Errno, Guest, GuestPhys, MemoryObject, Residency, Search, Span};
use rustix::fs::{OFlags, SealFlags};

use super::refuse_unsealed;
use crate::options::{Options, Unsealed};
use crate::report::{Counters, Happened};
use crate::wire::Refused;

/// The most files of one connection. A guest has one for each of its memory devices.
const FILES_MAX: usize = 256;
/// Where files are placed: so that large pages of the tables fit.
const ALIGN: u64 = 1 << 30;

/// The files of one connection.
#[derive(Debug)]
pub(super) struct Files {
    guest: Guest,
    half: GuestPhys,
    residency: Residency,
    unsealed: Unsealed,
    warned: bool,
    /// The most bytes of all files together.
    max_memory: u64,
    by_inode: HashMap<(u64, u64), u64>,
    files: HashMap<u64, File>,
    next: u64,
    counters: Arc<Counters>,
}

/// One file, as it was when it was adopted.
#[derive(Debug)]
struct File {
    span: Span<GuestPhys>,
    access: Access,
    windows: u64,
    inode: (u64, u64),
}

/// A file that is not known, and which part of it a window is to show.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    inode: (u64, u64),
    size: u64,
    seals: SealFlags,
    offset: u64,
    end: u64,
    access: Access,
}

/// What is behind a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Memory that the device can map.
    Memory {
        /// Where the window begins in the guest.
        at: GuestPhys,
        /// The file's number.
        file: u64,
    },
    /// Memory that is not to be mapped.
    NoMemory,
}

impl Files {
    pub(super) fn new(
        guest: &Guest,
        half: GuestPhys,
        options: &Options,
        counters: &Arc<Counters>,
    ) -> Self {
        Self {
            guest: guest.clone(),
            half,
            residency: options.residency,
            unsealed: options.unsealed,
            warned: false,
            max_memory: options.max_memory,
            by_inode: HashMap::new(),
            files: HashMap::new(),
            next: 0,
            counters: Arc::clone(counters),
        }
    }

    /// The memory behind `[offset, offset + len)` of a file. A descriptor that is not
    /// needed is closed.
    pub(super) fn find(
        &mut self,
        fd: OwnedFd,
        offset: u64,
        len: u64,
        access: Access,
    ) -> Result<Found, Refused> {
        if !offset.is_multiple_of(gasp::GRANULE) {
            return Err(Refused::invalid("the offset in the file is in whole pages of 4 KiB"));
        }
        let end = offset.checked_add(len);
        let end = end.ok_or_else(|| Refused::invalid("offset and size pass 2^64"))?;
        // Before the `fstat`: that asks the server of a FUSE file, which need not answer. Only
        // a file of a trusted owner is asked without looking.
        let seals = match self.unsealed {
            Unsealed::Trust => None,
            _ => Some(seals_of(&fd)),
        };
        if seals.is_some_and(|seals| !seals.contains(SealFlags::SHRINK)) {
            return self.unsealed();
        }
        let stat = rustix::fs::fstat(&fd)
            .map_err(|errno| Refused::new(errno, "the descriptor tells nothing"))?;
        let inode = (stat.st_dev, stat.st_ino);
        if let Some((id, file)) = self.known(inode)
            && end <= file.span.len()
            && file.access.contains(access)
        {
            return Ok(file.found(id, offset));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let seals = seals.unwrap_or_else(|| seals_of(&fd));
        self.adopt(fd, Wanted { inode, size, seals, offset, end, access })
    }

    fn known(&self, inode: (u64, u64)) -> Option<(u64, &File)> {
        let id = self.by_inode.get(&inode)?;
        Some((*id, self.files.get(id)?))
    }

    /// What becomes of a file whose owner can make it shorter, and is not trusted.
    #[cold]
    fn unsealed(&mut self) -> Result<Found, Refused> {
        refuse_unsealed(self.unsealed)?;
        if !core::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                "guest memory comes in a file that can be cut off, so it is reached by \
                 messages: slow. Have the VMM seal it (QEMU: memory-backend-memfd), or trust it"
            );
        }
        Ok(Found::NoMemory)
    }

    #[cold]
    fn adopt(&mut self, fd: OwnedFd, wanted: Wanted) -> Result<Found, Refused> {
        let Wanted { inode, size, seals, offset, end, access } = wanted;
        // A file on hugetlbfs has whole huge pages; of others, the part behind the last
        // page cannot be mapped.
        let len = size & !(gasp::GRANULE - 1);
        if end > len {
            return Err(Refused::invalid(format!("the file has {len:#x} bytes in whole pages")));
        }
        let mode = rustix::fs::fcntl_getfl(&fd).map_err(|errno| Refused::new(errno, "fcntl"))?;
        let read_only = mode & OFlags::RWMODE != OFlags::RDWR
            || seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE);
        let whole = if read_only { Access::READ } else { Access::RW };
        if !whole.contains(access) {
            return Err(Refused::new(Errno::ACCESS, "the file cannot be written"));
        }
        self.make_room(len)?;
        let name = format!("file-{:x}-{:x}", inode.0, inode.1);
        let residency = self.residency;
        // A seal keeps the file's length, but not huge pages in their place: holes can be
        // punched into those, and then an access faults. The engine guards what needs it.
        let trusted = self.unsealed == Unsealed::Trust;
        let how = Adopt { access: whole, residency, trusted, ..Adopt::new(&name, len) };
        let object = MemoryObject::adopt(fd, how)?;
        let span = self.place(&object)?;
        tracing::info!(bytes = len, at = %span.start(), access = %whole, "adopts a memory file");
        self.counters.tell(|| Happened::Adopted { len });
        let id = self.next;
        self.next += 1;
        let file = File { span, access: whole, windows: 0, inode };
        let found = file.found(id, offset);
        self.files.insert(id, file);
        self.by_inode.insert(inode, id);
        Counters::set(&self.counters.files, self.files.len() as u64);
        Ok(found)
    }

    fn place(&self, object: &MemoryObject) -> Result<Span<GuestPhys>, Refused> {
        let last = GuestPhys(self.half.0 - 1);
        let lock = self.guest.space().lock()?;
        let search = Search::new(object.len(), ALIGN).within(GuestPhys(0), last);
        let span = self.guest.space().find_free(search)?;
        lock.add_ram(Some(span.start()), object)?;
        Ok(span)
    }

    /// Sees to it that one more file, of `len` bytes, can be adopted: earlier versions that
    /// nobody uses go, and where there are too many, other files that nobody uses.
    fn make_room(&mut self, len: u64) -> Result<(), Refused> {
        let max = self.max_memory;
        let too_much = |bytes| {
            let what = format!("{bytes:#x} bytes of memory files, where {max:#x} are allowed");
            Refused::new(Errno::NOSPC, what)
        };
        if len > max {
            return Err(too_much(len));
        }
        let current = |file: &File, id: u64| self.by_inode.get(&file.inode) == Some(&id);
        let full = self.files.len() >= FILES_MAX || self.bytes_with(len) > max;
        let idle = self.files.iter().filter(|(_, file)| file.windows == 0);
        let going: Vec<u64> =
            idle.filter(|(id, file)| full || !current(file, **id)).map(|(id, _)| *id).collect();
        for id in going {
            let Some(file) = self.files.remove(&id) else { continue };
            if self.by_inode.get(&file.inode) == Some(&id) {
                self.by_inode.remove(&file.inode);
            }
            // No rule leads there, so nothing is mapped through it but what drains already,
            // and that keeps its memory.
            drop(self.guest.space().remove(file.span)?);
        }
        if self.files.len() >= FILES_MAX {
            return Err(Refused::new(Errno::NOSPC, format!("{FILES_MAX} memory files are in use")));
        }
        match self.bytes_with(len) {
            bytes if bytes > max => Err(too_much(bytes)),
            _ => Ok(()),
        }
    }

    /// The bytes of all files, and of one more.
    fn bytes_with(&self, len: u64) -> u64 {
        self.files.values().fold(len, |bytes, file| bytes.saturating_add(file.span.len()))
    }

    /// Notes that a window more, or fewer, uses a file.
    pub(super) fn used(&mut self, file: u64, change: i64) {
        if let Some(file) = self.files.get_mut(&file) {
            file.windows = file.windows.saturating_add_signed(change);
        }
    }
}

/// What a file is sealed against; other files than memory files cannot be.
fn seals_of(fd: &OwnedFd) -> SealFlags {
    rustix::fs::fcntl_get_seals(fd).unwrap_or(SealFlags::empty())
}

impl File {
    /// The window lies in the file, which was checked.
    fn found(&self, id: u64, offset: u64) -> Found {
        Found::Memory { at: GuestPhys(self.span.start().0 + offset), file: id }
    }
}
