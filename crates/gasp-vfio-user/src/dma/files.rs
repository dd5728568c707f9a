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

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gasp::{Access, Adopt, Errno, Guest, GuestPhys, MemoryObject, Residency, Search, Span};
use rustix::fs::SealFlags;

use super::descriptor::{Descriptor, seal, seals_of};
use super::sharing::{self, Sharing};
use crate::options::{Options, Unsealed};
use crate::report::{Counters, Happened};
use crate::wire::Refused;

/// The most bytes of a file that are looked at for a guest's traces: firmware and kernels
/// write to them first.
const LOOKED_AT: u64 = 16 << 20;
/// How many files are remembered as not mapped privately.
const JUDGED_MAX: usize = 64;
/// Where files are placed: so that large pages of the tables fit.
const ALIGN: u64 = 1 << 30;

/// The files of one connection.
#[derive(Debug)]
pub(super) struct Files {
    guest: Guest,
    half: GuestPhys,
    residency: Residency,
    unsealed: Unsealed,
    /// The process at the other end, if that can be told.
    peer: Option<i32>,
    /// Files that the client does not map privately, as far as could be told.
    judged: HashSet<(u64, u64)>,
    warned: bool,
    told_private: bool,
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

/// What a descriptor is good for.
#[derive(Clone, Copy, Debug)]
enum Judged {
    /// It is not needed.
    Found(Found),
    /// Its first `len` bytes are to be adopted.
    Adopt { wanted: Wanted, len: u64 },
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
        peer: Option<i32>,
        counters: &Arc<Counters>,
    ) -> Self {
        Self {
            guest: guest.clone(),
            half,
            residency: options.residency,
            unsealed: options.unsealed,
            peer,
            judged: HashSet::new(),
            warned: false,
            told_private: false,
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
    ) -> Result<Found, Refused> {
        match self.judge(&fd, offset, len, access, eventfds) {
            Ok(Judged::Adopt { wanted, len }) => self.adopt(fd, wanted, len),
            Ok(Judged::Found(found)) => {
                gasp::ffi::close(fd);
                Ok(found)
            }
            Err(refused) => {
                gasp::ffi::close(fd);
                Err(refused)
            }
        }
    }

    /// Nothing here asks the server of a FUSE file, which need not answer, before it is clear
    /// that the file cannot be one, or that its owner is trusted.
    fn judge(
        &mut self,
        fd: &OwnedFd,
        offset: u64,
        len: u64,
        access: Access,
        eventfds: impl FnOnce() -> usize,
    ) -> Result<Judged, Refused> {
        if !offset.is_multiple_of(gasp::GRANULE) {
            return Err(Refused::invalid("the offset in the file is in whole pages of 4 KiB"));
        }
        let end = offset.checked_add(len);
        let end = end.ok_or_else(|| Refused::invalid("offset and size pass 2^64"))?;
        let descriptor = Descriptor::look(fd, access)?;
        let seals = match self.unsealed {
            Unsealed::Trust => seals_of(fd),
            _ => seal(fd),
        };
        if self.unsealed != Unsealed::Trust && !seals.contains(SealFlags::SHRINK) {
            return self.unsealed().map(Judged::Found);
        }
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
            return Ok(Judged::Found(file.found(id, offset)));
        }
        self.judge_unknown(fd, Wanted { descriptor, seals, offset, end, access }, eventfds())
    }

    fn known(&self, inode: (u64, u64)) -> Option<(u64, &File)> {
        let id = self.by_inode.get(&inode)?;
        Some((*id, self.files.get(id)?))
    }

    /// What becomes of a file whose owner can make it shorter, and is not trusted.
    #[cold]
    fn unsealed(&mut self) -> Result<Found, Refused> {
        if self.unsealed == Unsealed::Refuse {
            let what = "the file is not sealed against shrinking, and cannot be sealed here: \
                        seal it (F_SEAL_SHRINK), or have the server trust or work around \
                        unsealed memory";
            return Err(Refused::new(Errno::PERM, what));
        }
        if !core::mem::replace(&mut self.warned, true)
            && self.counters.tell_seldom(&self.counters.routine, || Happened::ByMessage)
        {
            tracing::warn!(
                "guest memory comes in a file that can be cut off and cannot be sealed, so it \
                 is reached by messages: slow. Use a memory file (QEMU: memory-backend-memfd), \
                 or trust its owner (unsealed = \"trust\")"
            );
        }
        Ok(Found::NoMemory)
    }

    /// What becomes of a file that the guest does not write to. The VMM reads the guest's own
    /// pages if it is asked by message.
    #[cold]
    fn private(&mut self, len: u64) -> Result<Found, Refused> {
        let happened = || Happened::NotShared { len, seen: true };
        let tell = !core::mem::replace(&mut self.told_private, true)
            && self.counters.tell_seldom(&self.counters.routine, happened);
        let what = "the VMM maps this memory privately, so the guest does not write to the \
                    file (QEMU: share=off): use share=on";
        if self.unsealed == Unsealed::Refuse {
            return Err(Refused::invalid(what));
        }
        if tell {
            tracing::warn!(bytes = len, "{what}. Until then it is reached by messages: slow");
        }
        Ok(Found::NoMemory)
    }

    /// Whether a file that is not known can be adopted, and how much of it.
    #[cold]
    fn judge_unknown(
        &mut self,
        fd: &OwnedFd,
        wanted: Wanted,
        held: usize,
    ) -> Result<Judged, Refused> {
        let stat = rustix::fs::fstat(fd)
            .map_err(|errno| Refused::new(errno, "the descriptor does not tell its size"))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // A file on hugetlbfs has whole huge pages; of others, the part past the last whole
        // page cannot be mapped.
        let len = size & !(gasp::GRANULE - 1);
        if wanted.end > len {
            return Err(Refused::invalid(format!("the file has {len:#x} bytes in whole pages")));
        }
        let inode = wanted.descriptor.inode;
        // Once for each file, though it may come and go: it takes longer than all the rest.
        if let Some(pid) = self.peer
            && !self.judged.contains(&inode)
        {
            if sharing::look(pid, inode) == Sharing::Private {
                return self.private(len).map(Judged::Found);
            }
            if self.judged.len() >= JUDGED_MAX {
                self.judged.clear();
            }
            self.judged.insert(inode);
        }
        self.check_room(len, held)?;
        Ok(Judged::Adopt { wanted, len })
    }

    #[cold]
    fn adopt(&mut self, fd: OwnedFd, wanted: Wanted, len: u64) -> Result<Found, Refused> {
        let Wanted { descriptor, seals, offset, access, .. } = wanted;
        let inode = descriptor.inode;
        let sealed = seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE);
        let whole = if sealed { Access::READ } else { descriptor.access };
        let name = format!("file-{:x}-{:x}", inode.0, inode.1);
        let residency = self.residency;
        // A seal keeps the file's length, but not huge pages in their place: holes can be
        // punched into those, and then an access faults. The engine guards what needs it.
        let trusted = self.unsealed == Unsealed::Trust;
        let how = Adopt { access: whole, residency, trusted, ..Adopt::new(&name, len) };
        let object = MemoryObject::adopt(fd, how)?;
        let span = self.place(&object)?;
        tracing::debug!(bytes = len, at = %span.start(), %access, "adopts a memory file");
        self.counters.tell_seldom(&self.counters.routine, || Happened::Adopted { len });
        let id = self.next;
        self.next += 1;
        let file = File { span, access: whole, windows: 0, leaving: 0, inode, object };
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

    /// How many files there are; each holds a descriptor.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether one more file, of `len` bytes, can be adopted, while `held` descriptors of the
    /// client are held elsewhere.
    fn check_room(&self, len: u64, held: usize) -> Result<(), Refused> {
        let max = self.max_memory;
        let held = held.saturating_add(self.files.len());
        if held >= self.max_descriptors {
            let what = format!("{held} descriptors of this client are held already");
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
    fn found(&self, id: u64, offset: u64) -> Found {
        Found::Memory { at: GuestPhys(self.span.start().0 + offset), file: id }
    }

    /// Whether the first bytes are all zero. They are read from the file and not from its
    /// mapping, which would allocate its pages.
    fn begins_with_zeros(&self) -> bool {
        let Some((fd, start)) = self.object.file() else { return false };
        let mut bytes = vec![0; 64 << 10];
        let mut at = 0;
        while at < LOOKED_AT.min(self.span.len()) {
            match rustix::io::pread(fd, &mut bytes, start + at) {
                Ok(0) => return true,
                Ok(got) if bytes.iter().take(got).all(|byte| *byte == 0) => at += got as u64,
                _ => return false,
            }
        }
        true
    }
}
