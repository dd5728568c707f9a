//! The client's memory files: adopted whole, once, and placed in the guest.
//!
//! A file is known by device and inode; the descriptor that we keep holds the inode, so the
//! number cannot come to mean another file. Whoever hands over a file that is known pays
//! for one look at the descriptor, and for one at its seals.
//!
//! A file may have grown, or may first have come read-only: then it is adopted again, and
//! the earlier mapping stays for as long as windows use it.
//!
//! A file stays while a window shows a part of it, or an unmap of one is not answered yet.
//! With the last of them it goes, before the answer, as the protocol wants it: a VMM that
//! takes memory away from its guest gets it back. What is left is what a guest with an
//! IOMMU needs, which maps and unmaps pages of the same memory all the time, and has some
//! mapped at any time.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gasp::{Access, Adopt, Errno, Guest, GuestPhys, MemoryObject, Residency, Search, Span};
use rustix::fs::SealFlags;

use super::admission::Admission;
use super::descriptor::Descriptor;
use super::windows::Backing;
use crate::options::Options;
use crate::report::{Counters, Happened};
use crate::wire::Refused;

/// The most bytes of a file that are looked at for a guest's traces: firmware and kernels
/// write to them first.
const TRACES_MAX: u64 = 16 << 20;
/// Where files are placed: so that large pages of the tables fit.
const ALIGN: u64 = 1 << 30;

/// The files of one connection.
#[derive(Debug)]
pub(super) struct Files {
    guest: Guest,
    half: GuestPhys,
    residency: Residency,
    admission: Admission,
    /// The most bytes of all files together.
    max_memory: u64,
    /// The most files, and eventfds of interrupts.
    max_descriptors: usize,
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
    /// Windows that show a part of it.
    windows: u64,
    /// Windows that were taken back, and whose unmaps are not answered yet.
    leaving: u64,
    inode: (u64, u64),
    object: MemoryObject,
}

/// A file that is not known, and which part of it a window is to show.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    descriptor: Descriptor,
    seals: SealFlags,
    offset: u64,
    end: u64,
    access: Access,
}

/// What becomes of a descriptor.
#[derive(Clone, Copy, Debug)]
enum Decision {
    /// It is not needed.
    Close(Backing),
    /// Its first `len` bytes are to be adopted.
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

    /// The memory behind `[offset, offset + len)` of a file. A descriptor that is not
    /// needed is closed, without waiting for the server of its file. `eventfds` is how many
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

    /// Nothing here asks the server of a FUSE file, which need not answer, before it is clear
    /// that the file cannot be one, or that its owner is trusted.
    fn decide(
        &mut self,
        fd: &OwnedFd,
        offset: u64,
        len: u64,
        access: Access,
        eventfds: impl FnOnce() -> usize,
    ) -> Result<Decision, Refused> {
        if !offset.is_multiple_of(gasp::GRANULE) {
            return Err(Refused::invalid("the offset in the file is in whole pages of 4 KiB"));
        }
        let end = offset.checked_add(len);
        let end = end.ok_or_else(|| Refused::invalid("offset and size pass 2^64"))?;
        let descriptor = Descriptor::inspect(fd, access)?;
        let Some(seals) = self.admission.seals(fd)? else {
            return Ok(Decision::Close(Backing::Messages));
        };
        if access.contains(Access::WRITE)
            && seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE)
        {
            let what = "the window is to be written, and the file is sealed against writing";
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

    /// Whether a file that is not known can be adopted, and how much of it.
    #[cold]
    fn decide_unknown(
        &mut self,
        fd: &OwnedFd,
        wanted: Wanted,
        eventfds: usize,
    ) -> Result<Decision, Refused> {
        let stat = rustix::fs::fstat(fd)
            .map_err(|errno| Refused::new(errno, "the descriptor does not tell its size"))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // A file on hugetlbfs has whole huge pages; of others, the part past the last whole
        // page cannot be mapped.
        let len = size & !(gasp::GRANULE - 1);
        if wanted.end > len {
            return Err(Refused::invalid(format!("the file has {len:#x} bytes in whole pages")));
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
        // A seal keeps the file's length, but not huge pages in their place: holes can be
        // punched into those, and then an access faults. The engine guards what needs it.
        let trusted = self.admission.trusts();
        let how = Adopt { access: whole, residency, trusted, ..Adopt::new(&name, len) };
        let object = MemoryObject::adopt(fd, how)?;
        let span = self.place(&object)?;
        tracing::debug!(bytes = len, guest_phys = %span.start(), %access, "adopts a memory file");
        self.counters.tell_seldom(&self.counters.routine, || Happened::Adopted { len });
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

    /// How many files there are; each holds a descriptor.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether one more file, of `len` bytes, can be adopted, while the client has
    /// `eventfds` descriptors elsewhere.
    fn check_room(&self, len: u64, eventfds: usize) -> Result<(), Refused> {
        let max = self.max_memory;
        let in_use = eventfds.saturating_add(self.files.len());
        if in_use >= self.max_descriptors {
            let what = format!("{in_use} descriptors of this client are held already");
            return Err(Refused::new(Errno::MFILE, what));
        }
        match self.bytes_with(len) {
            bytes if bytes > max => {
                let what = format!("{bytes:#x} bytes of memory files, where {max:#x} are allowed");
                Err(Refused::new(Errno::NOSPC, what))
            }
            _ => Ok(()),
        }
    }

    /// The bytes of all files, and of one more.
    fn bytes_with(&self, len: u64) -> u64 {
        self.files.values().fold(len, |bytes, file| bytes.saturating_add(file.span.len()))
    }

    /// Notes that one more window shows a part of a file.
    pub(super) fn shown(&mut self, id: u64) {
        if let Some(file) = self.files.get_mut(&id) {
            file.windows = file.windows.saturating_add(1);
        }
    }

    /// Notes that a window of a file was taken back, and that its unmap is to be answered.
    pub(super) fn leaves(&mut self, id: u64) {
        if let Some(file) = self.files.get_mut(&id) {
            file.windows = file.windows.saturating_sub(1);
            file.leaving = file.leaving.saturating_add(1);
        }
    }

    /// Notes that an unmap of a window is about to be answered.
    pub(super) fn left(&mut self, id: u64) {
        if let Some(file) = self.files.get_mut(&id) {
            file.leaving = file.leaving.saturating_sub(1);
        }
        self.release(id);
    }

    /// Gives a file back that no window needs: its mapping and its descriptor go, unless the
    /// device holds on to a mapping past its deadline, which keeps what it shows.
    pub(super) fn release(&mut self, id: u64) {
        let Some(file) = self.files.get(&id).filter(|file| file.windows + file.leaving == 0) else {
            return;
        };
        let (len, inode) = (file.span.len(), file.inode);
        match self.guest.space().remove(file.span) {
            Ok(drain) => drop(drain),
            // It stays until the connection ends.
            Err(error) => return tracing::error!(%error, "a memory file cannot be given back"),
        }
        self.files.remove(&id);
        if self.by_inode.get(&inode) == Some(&id) {
            self.by_inode.remove(&inode);
        }
        tracing::debug!(bytes = len, "gives a memory file back");
        self.counters.tell_seldom(&self.counters.routine, || Happened::Released { len });
        Counters::set(&self.counters.files, self.files.len() as u64);
    }

    /// The bytes of the files that windows show, if the beginning of each is nothing but
    /// zeros, as if no guest had ever written there.
    pub(super) fn all_empty(&self) -> Option<u64> {
        let shown = || self.files.values().filter(|file| file.windows > 0);
        let empty = shown().next().is_some() && shown().all(File::begins_with_zeros);
        empty.then(|| shown().fold(0, |bytes: u64, file| bytes.saturating_add(file.span.len())))
    }
}

impl File {
    /// The window lies in the file, which was checked.
    fn backing(&self, id: u64, offset: u64) -> Backing {
        Backing::File { file: id, start: GuestPhys(self.span.start().0 + offset) }
    }

    /// Whether the first bytes are all zero. They are read from the file and not from its
    /// mapping, which would allocate its pages.
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
