//! One piece of backing memory, mapped into the process once.
#![allow(unsafe_code, reason = "hands out memory it owns, through checked raw copies")]

use core::fmt;
use core::ptr::NonNull;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::param::page_size;

use super::adopt::Seals;
use super::backing::{Backing, BackingReport};
use super::frames;
use super::phys::{HostRun, PhysMap, PhysTable};
use super::pin::Pin;
use super::raw;
use super::window::Window;
use crate::access::Access;
use crate::addr::{GRANULE, HostPhys};
use crate::error::{Error, Operation, Reason, Result};

/// Whether a host-physical address can change while a mapping lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stability {
    /// It can: the kernel moves such pages when it compacts, swaps or merges memory.
    Unpinned,
    /// The pages come from a pool that the kernel does not move in practice (hugetlb);
    /// newer kernels make no promise.
    Reserved,
    /// It cannot: a long-term pin is held, or the address is a device's own.
    Pinned,
}

impl Stability {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Reserved => "reserved",
            Self::Unpinned => "unpinned",
        }
    }
}

impl fmt::Display for Stability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How firmly an object's pages are to be held in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Residency {
    /// All pages in memory and pinned where the kernel allows it; frame numbers read.
    #[default]
    Pinned,
    /// All pages in memory but free to move; frame numbers read. They may go stale.
    Resident,
    /// Pages come when they are touched; host-physical addresses are not known.
    OnDemand,
}

/// One piece of backing memory.
///
/// Make one with [`ram`](Self::ram), [`adopt`](Self::adopt),
/// [`pass_through`](Self::pass_through) or [`external`](Self::external), and put it behind
/// a guest's regions with [`Region`](crate::Region). Clones are the same memory; it is
/// unmapped when the last clone and the last mapping of it are gone.
#[derive(Clone)]
pub struct MemoryObject(Arc<Object>);

// Fields are dropped in order: the pin goes before the window that it holds.
struct Object {
    pin: Option<Pin>,
    not_pinned_because: Option<&'static str>,
    phys: PhysMap,
    window: Window,
    file: Option<File>,
    access: Access,
    report: BackingReport,
    page: usize,
    name: Box<str>,
}

/// The file behind a window, and where in it the window begins.
struct File {
    fd: OwnedFd,
    offset: u64,
    seals: Seals,
}

/// What a constructor knows about the object it makes.
pub(super) struct Parts {
    pub(super) name: Box<str>,
    pub(super) window: Window,
    pub(super) fd: Option<(OwnedFd, u64, Seals)>,
    pub(super) access: Access,
    pub(super) report: BackingReport,
    /// The size of its pages, which are certain to be contiguous.
    pub(super) page: usize,
    /// Whether its pages are in memory already.
    pub(super) populated: bool,
}

/// What an embedding program says about memory that it has mapped itself.
#[derive(Clone, Copy, Debug)]
pub struct External {
    /// Where it is mapped; a multiple of the host's page size.
    pub base: NonNull<u8>,
    /// How many bytes; a multiple of the host's page size.
    pub len: usize,
    /// How it is mapped.
    pub access: Access,
    /// How firmly to hold its pages.
    pub residency: Residency,
}

impl MemoryObject {
    /// Memory that the embedding program has mapped already, and keeps mapped.
    ///
    /// This is how the engine is put into a VMM that owns its guest memory. The memory is
    /// not zeroed, not unmapped, and has no descriptor, so it cannot be part of a
    /// stitched map.
    ///
    /// # Errors
    /// `EINVAL` where base or length is not a multiple of the host's page size, or the
    /// length is 0.
    ///
    /// # Safety
    /// From this call until the last clone of the object *and* the last mapping of it
    /// are gone, which may be after every guest that used it is dropped:
    /// * `[base, base + len)` stays mapped, with at least `access`, to the same memory;
    /// * nobody makes a Rust reference to it; every access by anyone in the process is
    ///   volatile, atomic or made by code outside Rust's memory model;
    /// * where `residency` is [`Pinned`](Residency::Pinned), nobody punches holes into
    ///   it, discards it (`MADV_DONTNEED` on private memory) or truncates its file.
    pub unsafe fn external(name: &str, memory: External) -> Result<Self> {
        let External { base, len, access, residency } = memory;
        let fail = |reason| {
            Err(Error::new(Operation::AdoptMemory, super::adopt::AT_START, len as u64, reason))
        };
        if len == 0 {
            return fail(Reason::ZeroLength);
        }
        if !base.addr().get().is_multiple_of(page_size()) || !len.is_multiple_of(page_size()) {
            return fail(Reason::Invalid("address and length must be whole host pages"));
        }
        let parts = Parts {
            name: name.into(),
            window: Window::borrowed(base, len),
            fd: None,
            access,
            report: BackingReport::of(Backing::External),
            page: page_size(),
            populated: false,
        };
        Ok(Self::resident(parts, residency))
    }

    /// Finishes an object: pages in place, pinned, frame numbers read, in this order,
    /// because a pin may itself move a page.
    pub(super) fn resident(parts: Parts, residency: Residency) -> Self {
        let Parts { window, access, .. } = &parts;
        if residency == Residency::OnDemand {
            const WHY: &str = "its pages come on demand; create it pinned or resident";
            return Self::assemble(parts, None, Some(WHY), PhysMap::Unknown(WHY));
        }
        if !parts.populated
            && let Err(errno) = window.populate(0, window.len(), *access)
        {
            tracing::debug!(%errno, object = %parts.name, "pages cannot be put in place");
        }
        let pin = match residency {
            Residency::Pinned => Pin::new(window),
            _ => Err("it was not asked for"),
        };
        let (pin, not_pinned_because) = match pin {
            Ok(pin) => (Some(pin), None),
            Err(why) => (None, Some(why)),
        };
        let shift = parts.page.trailing_zeros();
        let phys = frames::read_frames(window.base().addr(), window.len(), shift);
        Self::assemble(parts, pin, not_pinned_because, phys)
    }

    /// An object whose host-physical address is what somebody says it is.
    pub(super) fn declared(parts: Parts, host: HostPhys) -> Self {
        Self::assemble(parts, None, None, PhysMap::Linear(host))
    }

    fn assemble(
        parts: Parts,
        pin: Option<Pin>,
        not_pinned_because: Option<&'static str>,
        phys: PhysMap,
    ) -> Self {
        let Parts { name, window, fd, access, report, page, populated: _ } = parts;
        let file = fd.map(|(fd, offset, seals)| File { fd, offset, seals });
        Self(Arc::new(Object {
            pin,
            not_pinned_because,
            phys,
            window,
            file,
            access,
            report,
            page,
            name,
        }))
    }

    /// The name it was given, for reports.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How many bytes; a multiple of 4 KiB, never 0.
    #[expect(clippy::len_without_is_empty, reason = "an object is never empty")]
    pub fn len(&self) -> u64 {
        self.0.window.len() as u64
    }

    /// The size of its pages in bytes: what its file can be mapped in.
    pub fn page_size(&self) -> usize {
        self.0.page
    }

    /// What can be done to it at all.
    pub fn access(&self) -> Access {
        self.0.access
    }

    /// What its pages are, and why not better ones.
    pub fn backing(&self) -> &BackingReport {
        &self.0.report
    }

    /// Whether its host-physical addresses can change.
    pub fn stability(&self) -> Stability {
        match (&self.0.phys, &self.0.pin, self.0.report.obtained) {
            (PhysMap::Linear(_), ..) | (_, Some(_), _) => Stability::Pinned,
            (.., Backing::Huge1G | Backing::Huge2M) => Stability::Reserved,
            _ => Stability::Unpinned,
        }
    }

    /// Why its pages are not pinned, and what would help; `None` where they are.
    pub fn not_pinned_because(&self) -> Option<&'static str> {
        self.0.not_pinned_because
    }

    /// The seals on its file; none where it has no file.
    pub fn seals(&self) -> Seals {
        self.0.file.as_ref().map_or(Seals::empty(), |file| file.seals)
    }

    /// The file behind it and the offset where it begins, to share the memory with
    /// another process; `None` for [`external`](Self::external) memory.
    pub fn file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        self.0.file.as_ref().map(|file| (file.fd.as_fd(), file.offset))
    }

    /// The host-physical run that begins at `offset`, at most `max` bytes of it.
    ///
    /// # Errors
    /// `EINVAL` where the offset or the length passes the end or the length is 0;
    /// `EPERM` where host-physical addresses are not known (decision 19).
    pub fn host_run(&self, offset: u64, max: u64) -> Result<HostRun> {
        self.check(offset, max).and_then(|_| self.phys_run(offset, max)).map_err(|reason| {
            Error::new(Operation::HostPhysical, crate::error::Place::Offset(offset), max, reason)
        })
    }

    /// All host-physical runs, in order, as offset and run; the run is `None` from where
    /// addresses are not known.
    pub fn host_runs(&self) -> impl Iterator<Item = (u64, u64, Option<HostRun>)> + '_ {
        let mut offset = 0;
        core::iter::from_fn(move || {
            let rest = self.len() - offset;
            if rest == 0 {
                return None;
            }
            let run = self.phys_run(offset, rest).ok();
            let piece = (offset, run.map_or(rest, |run| run.len), run);
            offset += piece.1;
            Some(piece)
        })
    }

    /// Copies out of the memory, whatever regions say about it: for loaders and checks.
    ///
    /// # Errors
    /// `EINVAL` where the range passes the end, `EACCES` where it cannot be read.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let from = self.reach(offset, into.len(), Access::READ)?;
        // SAFETY: `reach` checked the range; the window stays mapped while `self` lives.
        unsafe { raw::copy_out(from, into) };
        Ok(())
    }

    /// Copies into the memory, whatever regions say about it: for loaders and checks.
    ///
    /// # Errors
    /// `EINVAL` where the range passes the end, `EACCES` where it cannot be written.
    pub fn write_at(&self, offset: u64, from: &[u8]) -> Result<()> {
        let to = self.reach(offset, from.len(), Access::WRITE)?;
        // SAFETY: as in `read_at`, and `reach` checked that the window is writable.
        unsafe { raw::copy_in(from, to) };
        Ok(())
    }

    /// How many bytes the object's own tables take, beside the memory itself.
    pub fn table_bytes(&self) -> usize {
        match &self.0.phys {
            PhysMap::Table(table) => PhysTable::table_bytes(table),
            _ => 0,
        }
    }

    /// Whether the two are the same memory.
    #[inline]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The first host-virtual address.
    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.0.window.base()
    }

    /// As [`host_run`](Self::host_run), for a range that is inside.
    #[inline]
    pub(crate) fn phys_run(&self, offset: u64, max: u64) -> core::result::Result<HostRun, Reason> {
        self.0.phys.run_at(offset, max).map_err(Reason::HostUnknown)
    }

    fn check(&self, offset: u64, len: u64) -> core::result::Result<(), Reason> {
        if len == 0 {
            return Err(Reason::ZeroLength);
        }
        let end = offset.checked_add(len).filter(|&end| end <= self.len());
        end.map(|_| ()).ok_or(Reason::OutOfBounds { size: self.len() })
    }

    fn reach(&self, offset: u64, len: usize, access: Access) -> Result<*mut u8> {
        let fail = |reason| {
            Error::new(Operation::Access, crate::error::Place::Offset(offset), len as u64, reason)
        };
        if len > 0 {
            self.check(offset, len as u64).map_err(fail)?;
        } else if offset > self.len() {
            return Err(fail(Reason::OutOfBounds { size: self.len() }));
        }
        if !self.0.access.contains(access) {
            return Err(fail(Reason::NotAllowed { allowed: self.0.access }));
        }
        let at = usize::try_from(offset).map_err(|_| fail(Reason::Wraps))?;
        // SAFETY: `offset` is at most the window's length, checked above.
        Ok(unsafe { self.base().add(at) })
    }
}

impl fmt::Debug for MemoryObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryObject")
            .field("name", &self.name())
            .field("len", &format_args!("{:#x}", self.len()))
            .field("backing", &self.0.report.obtained)
            .field("stability", &self.stability())
            .finish_non_exhaustive()
    }
}

const _: () = assert!(GRANULE == 4096, "offsets in the tables count 4 KiB granules");
