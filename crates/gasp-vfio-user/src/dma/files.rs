//! The client's memory files: each is adopted whole, once, and placed in the guest.
//!
//! A file is identified by device and inode number; the descriptor that is kept holds the
//! inode, so the number cannot come to mean another file. A DMA_MAP of a known file costs
//! one inspection of the descriptor and one of its seals.
//!
//! If a file has grown, or first came read-only, it is adopted again, and the earlier
//! mapping stays as long as windows use it.
//!
//! A file is kept while there is a window in it, or an unmap of one is not answered yet. It
//! is released with the last of them, before the reply, as the protocol requires: a VMM
//! that removes memory from its guest gets the memory back. That suits a guest with an
//! IOMMU as well, which maps and unmaps pages of the same memory all the time, and has some
//! of them mapped at any time.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gasp::{Access, Adopt, Errno, Guest, GuestPhys, MemoryObject, Residency, Search, Span};
use rustix::fs::SealFlags;

use super::admission::Admission;
use super::descriptor::Descriptor;
use super::windows::Backing;
use crate::options::Options;
use crate::report::{Counters, ServerEvent};
use crate::wire::Refused;

/// Maximum number of bytes of a file that are searched for traces of a guest: firmware and
/// kernels write to the first ones.
const TRACES_MAX: u64 = 16 << 20;
/// Alignment of the files in the guest, for large pages in the tables.
const ALIGN: u64 = 1 << 30;

/// The files of one connection.
#[derive(Debug)]
pub(super) struct Files {
    guest: Guest,
    half: GuestPhys,
    residency: Residency,
    admission: Admission,
    /// Maximum size of all files together, in bytes.
    max_memory: u64,
    /// Maximum number of files and of eventfds of interrupts, together.
    max_descriptors: usize,
    by_inode: HashMap<(u64, u64), u64>,
    files: HashMap<u64, File>,
    next: u64,
    counters: Arc<Counters>,
}

/// A file, as it was when it was adopted.
#[derive(Debug)]
struct File {
    span: Span<GuestPhys>,
    access: Access,
    /// Number of windows in it.
    windows: u64,
    /// Number of windows that were unmapped, and whose unmaps are not answered yet.
    leaving: u64,
    inode: (u64, u64),
    object: MemoryObject,
}

/// A file that is not known, and the part of it that a window needs.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    descriptor: Descriptor,
    seals: SealFlags,
    offset: u64,
    end: u64,
    access: Access,
}

/// What is to be done with a descriptor.
#[derive(Clone, Copy, Debug)]
enum Decision {
    /// Close it: the window's memory is elsewhere, or already mapped.
    Close(Backing),
    /// Adopt the first `len` bytes of its file.
    Adopt { wanted: Wanted, len: u64 },
}

impl Files {
    pub(super) fn new(
        guest: &Guest,
        half: GuestPhys,
        options: &Options,
        peer: Option<i32>,
        counters: &Arc<Counters>,
    ) -> Self {
        Self {
            guest: guest.clone(),
            half,
            residency: options.residency,
            admission: Admission::new(options, peer, counters),
            max_memory: options.max_memory,
            max_descriptors: options.max_descriptors as usize,
            by_inode: HashMap::new(),
            files: HashMap::new(),
            next: 0,
            counters: Arc::clone(counters),
        }
    }

    /// The memory of `[offset, offset + len)` of a file. A descriptor that is not needed is
    /// closed, without waiting for the server of its file. `eventfds` returns how many
    /// descriptors of the client are held elsewhere.
    pub(super) fn find(
        &mut self,
        fd: OwnedFd,
        offset: u64,
        len: u64,
        access: Access,
        eventfds: impl FnOnce() -> usize,
    ) -> Result<Backing, Refused> {
        match self.decide(&fd, offset, len, access, eventfds) {
            Ok(Decision::Adopt { wanted, len }) => self.adopt(fd, wanted, len),
            Ok(Decision::Close(backing)) => {
                gasp::ffi::close(fd);
                Ok(backing)
            }
            Err(refused) => {
                gasp::ffi::close(fd);
                Err(refused)
            }
        }
    }

    /// The server of a FUSE file need not answer, so nothing here queries it before it is
    /// clear that the file is none, or that its owner is trusted.
    fn decide(
        &mut self,
        fd: &OwnedFd,
        offset: u64,
        len: u64,
        access: Access,
        eventfds: impl FnOnce() -> usize,
    ) -> Result<Decision, Refused> {
        if !offset.is_multiple_of(gasp::GRANULE) {
            return Err(Refused::invalid("the offset in the file must be a multiple of 4 KiB"));
        }
        let end = offset.checked_add(len);
        let end = end.ok_or_else(|| Refused::invalid("offset and size exceed 2^64"))?;
        let descriptor = Descriptor::inspect(fd, access)?;
        let Some(seals) = self.admission.seals(fd)? else {
            return Ok(Decision::Close(Backing::Messages));
        };
        if access.contains(Access::WRITE)
            && seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE)
        {
            let what = "the window is writable, but the file is sealed against writing";
            return Err(Refused::new(Errno::ACCESS, what));
        }
        if let Some((id, file)) = self.known(descriptor.inode)
            && end <= file.span.len()
            && file.access.contains(access)
        {
            return Ok(Decision::Close(file.backing(id, offset)));
        }
        self.decide_unknown(fd, Wanted { descriptor, seals, offset, end, access }, eventfds())
    }

    fn known(&self, inode: (u64, u64)) -> Option<(u64, &File)> {
        let id = self.by_inode.get(&inode)?;
        Some((*id, self.files.get(id)?))
    }

    /// Decides whether a file that is not known can be adopted, and how much of it.
    #[cold]
    fn decide_unknown(
        &mut self,
        fd: &OwnedFd,
        wanted: Wanted,
        eventfds: usize,
    ) -> Result<Decision, Refused> {
        let stat = rustix::fs::fstat(fd)
            .map_err(|errno| Refused::new(errno, "the size of the file cannot be read"))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // A file on hugetlbfs consists of whole huge pages; of other files, the part after
        // the last whole page cannot be mapped.
        let len = size & !(gasp::GRANULE - 1);
        if wanted.end > len {
            return Err(Refused::invalid(format!(
                "the file has only {len:#x} bytes in whole pages"
            )));
        }
        if !self.admission.is_shared(wanted.descriptor.inode, len)? {
            return Ok(Decision::Close(Backing::Messages));
        }
        self.check_room(len, eventfds)?;
        Ok(Decision::Adopt { wanted, len })
    }

    #[cold]
    fn adopt(&mut self, fd: OwnedFd, wanted: Wanted, len: u64) -> Result<Backing, Refused> {
        let Wanted { descriptor, seals, offset, access, .. } = wanted;
        let inode = descriptor.inode;
        let sealed = seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE);
        let whole = if sealed { Access::READ } else { descriptor.access };
        let name = format!("file-{:x}-{:x}", inode.0, inode.1);
        let residency = self.residency;
        // A seal keeps the file's length, but not its huge pages: holes can be punched into
        // those, and then an access faults. The engine guards the accesses that need it.
        let trusted = self.admission.trusts();
        let how = Adopt { access: whole, residency, trusted, ..Adopt::new(&name, len) };
        let object = MemoryObject::adopt(fd, how)?;
        let span = self.place(&object)?;
        tracing::debug!(bytes = len, guest_phys = %span.start(), %access, "adopts a memory file");
        self.counters.report_limited(&self.counters.routine, || ServerEvent::Adopted { len });
        let id = self.next;
        self.next += 1;
        let file = File { span, access: whole, windows: 0, leaving: 0, inode, object };
        let backing = file.backing(id, offset);
        self.files.insert(id, file);
        self.by_inode.insert(inode, id);
        Counters::set(&self.counters.files, self.files.len() as u64);
        Ok(backing)
    }

    fn place(&self, object: &MemoryObject) -> Result<Span<GuestPhys>, Refused> {
        let last = GuestPhys(self.half.0 - 1);
        let lock = self.guest.space().lock()?;
        let search = Search::new(object.len(), ALIGN).within(GuestPhys(0), last);
        let span = self.guest.space().find_free(search)?;
        lock.add_ram(Some(span.start()), object)?;
        Ok(span)
    }

    /// Number of files, each of which holds a descriptor.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Checks that one more file, of `len` bytes, is within the limits, while `eventfds`
    /// descriptors of the client are held elsewhere.
    fn check_room(&self, len: u64, eventfds: usize) -> Result<(), Refused> {
        let max = self.max_memory;
        let in_use = eventfds.saturating_add(self.files.len());
        if in_use >= self.max_descriptors {
            let what = format!("{in_use} descriptors of this client are already held");
            return Err(Refused::new(Errno::MFILE, what));
        }
        match self.bytes_with(len) {
            bytes if bytes > max => {
                let what =
                    format!("{bytes:#x} bytes of memory files, more than the {max:#x} allowed");
                Err(Refused::new(Errno::NOSPC, what))
            }
            _ => Ok(()),
        }
    }

    /// Size of all files, plus `len` bytes for another one.
    fn bytes_with(&self, len: u64) -> u64 {
        self.files.values().fold(len, |bytes, file| bytes.saturating_add(file.span.len()))
    }

    /// Records one more window in a file.
    pub(super) fn shown(&mut self, id: u64) {
        if let Some(file) = self.files.get_mut(&id) {
            file.windows = file.windows.saturating_add(1);
        }
    }

    /// Records that a window in a file was unmapped, and that its unmap is to be answered.
    pub(super) fn leaves(&mut self, id: u64) {
        if let Some(file) = self.files.get_mut(&id) {
            file.windows = file.windows.saturating_sub(1);
            file.leaving = file.leaving.saturating_add(1);
        }
    }

    /// Records that the unmap of a window is about to be answered.
    pub(super) fn left(&mut self, id: u64) {
        if let Some(file) = self.files.get_mut(&id) {
            file.leaving = file.leaving.saturating_sub(1);
        }
        self.release(id);
    }

    /// Releases a file that no window needs: its mapping and its descriptor, except what
    /// the device still holds past its deadline.
    pub(super) fn release(&mut self, id: u64) {
        let Some(file) = self.files.get(&id).filter(|file| file.windows + file.leaving == 0) else {
            return;
        };
        let (len, inode) = (file.span.len(), file.inode);
        match self.guest.space().remove(file.span) {
            Ok(drain) => drop(drain),
            // The file stays until the connection ends.
            Err(error) => return tracing::error!(%error, "a memory file cannot be released"),
        }
        self.files.remove(&id);
        if self.by_inode.get(&inode) == Some(&id) {
            self.by_inode.remove(&inode);
        }
        tracing::debug!(bytes = len, "releases a memory file");
        self.counters.report_limited(&self.counters.routine, || ServerEvent::Released { len });
        Counters::set(&self.counters.files, self.files.len() as u64);
    }

    /// Size in bytes of the files that have windows, if the beginning of each is all zeros,
    /// as if no guest had ever written to it.
    pub(super) fn all_empty(&self) -> Option<u64> {
        let shown = || self.files.values().filter(|file| file.windows > 0);
        let empty = shown().next().is_some() && shown().all(File::begins_with_zeros);
        empty.then(|| shown().fold(0, |bytes: u64, file| bytes.saturating_add(file.span.len())))
    }
}

impl File {
    /// The memory of a window at `offset`, which was checked to be in the file.
    fn backing(&self, id: u64, offset: u64) -> Backing {
        Backing::File { file: id, start: GuestPhys(self.span.start().0 + offset) }
    }

    /// Whether the first bytes are all zero. They are read from the file and not from its
    /// mapping, which would allocate pages.
    fn begins_with_zeros(&self) -> bool {
        let Some((fd, start)) = self.object.file() else { return false };
        let mut bytes = vec![0; 64 << 10];
        let mut offset = 0;
        while offset < TRACES_MAX.min(self.span.len()) {
            match rustix::io::pread(fd, &mut bytes, start + offset) {
                Ok(0) => return true,
                Ok(got) if bytes.iter().take(got).all(|byte| *byte == 0) => offset += got as u64,
                _ => return false,
            }
        }
        true
    }
}
