//! One piece of backing memory, mapped into the process once.

use core::any::Any;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::param::page_size;

use super::file::MemoryFile;
use super::file::Seals;
use super::pin::{Pin, PinMethod};
use super::report::Runs;
use super::report::{Backing, BackingReport};
use super::report::{Residency, Stability};
use super::window::Window;
use crate::access::Access;
use crate::addr::{GRANULE, HostPhys};
use crate::error::{Error, Location, Operation, Reason, Result};
use crate::memory::access::guard;
use crate::memory::host::frames;
use crate::memory::host::runs::PhysMap;
use crate::memory::host::runs::PhysTable;
use crate::memory::host::runs::{HostExtent, HostRun};
use crate::memory::host::scan;

/// What a huge page is where no more is known.
const HUGE: u64 = 2 << 20;

/// One piece of backing memory.
///
/// Make one with [`ram`](Self::ram), [`adopt`](Self::adopt),
/// [`pass_through`](Self::pass_through) or [`external`](Self::external), and put it behind
/// a guest's regions with [`Region`](crate::Region). Clones are the same memory; it is
/// unmapped when the last clone and the last mapping of it are gone.
#[derive(Clone)]
pub struct MemoryObject(Arc<Object>);

// Fields are dropped in order: what is attached goes before the pin, which goes before the window that
// it holds, and the window before what keeps it mapped.
struct Object {
    /// What goes with the object, and before it.
    #[cfg_attr(
        not(feature = "broker"),
        expect(dead_code, reason = "only a broker's client attaches")
    )]
    attached: OnceLock<Keeper>,
    pin: Option<Pin>,
    not_pinned_because: Option<&'static str>,
    phys: PhysMap,
    stability: Stability,
    window: Window,
    file: Option<MemoryFile>,
    access: Access,
    report: BackingReport,
    page: usize,
    name: Box<str>,
    /// Whether accesses may find the memory gone. Never false again.
    guarded: AtomicBool,
    /// What keeps memory mapped that this crate has not mapped; the last to go.
    #[expect(dead_code, reason = "kept until the object is dropped")]
    keeper: Option<Keeper>,
}

/// What an embedding program's memory lives as long as.
pub(crate) type Keeper = Arc<dyn Any + Send + Sync>;

/// Who can do what to the memory behind our back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// Nobody, or somebody who is trusted not to.
    Trusted,
    /// Somebody can take pages away, and others come in their place.
    Punches,
    /// Somebody can take pages away, and none come: an access may fault.
    Takes,
}

/// What a constructor knows about the object it makes.
pub(super) struct Parts {
    pub(super) name: Box<str>,
    pub(super) window: Window,
    pub(super) file: Option<MemoryFile>,
    pub(super) access: Access,
    pub(super) report: BackingReport,
    /// The size of its pages, which are certain to be contiguous.
    pub(super) page: usize,
    /// Whether its pages are in memory already.
    pub(super) populated: bool,
    /// Whether it is memory that can be held by a pipe.
    pub(super) shared: bool,
    pub(super) owner: Owner,
    pub(super) keeper: Option<Keeper>,
}

impl Parts {
    /// Memory without a file, which nobody else takes away.
    pub(super) fn new(
        name: &str,
        window: Window,
        access: Access,
        report: BackingReport,
        page: usize,
    ) -> Self {
        Self {
            name: name.into(),
            window,
            file: None,
            access,
            report,
            page,
            populated: false,
            shared: false,
            owner: Owner::Trusted,
            keeper: None,
        }
    }
}

impl MemoryObject {
    /// Finishes an object: pages in place, pinned, frame numbers read, in this order,
    /// because a pin may itself move a page.
    pub(super) fn resident(parts: Parts, residency: Residency, pins: &[PinMethod]) -> Self {
        let Parts { window, access, page, shared, .. } = &parts;
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
            Residency::Pinned => Pin::new(window, pins, *page, *shared),
            _ => Err("it was not asked for"),
        };
        const PUNCHES: &str = "its owner can punch holes, so that other pages come in place of \
                               those held; adopt it as trusted, or sealed against writing";
        let (pin, not_pinned_because) = match pin {
            Ok(pin) if parts.owner != Owner::Trusted => (Some(pin), Some(PUNCHES)),
            Ok(pin) => (Some(pin), None),
            Err(why) => (None, Some(why)),
        };
        let phys = frames::read_frames(window, *page);
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
        let Parts { name, window, file, access, mut report, page, owner, keeper, .. } = parts;
        if let (Some(placement), PhysMap::Table(table)) = (&mut report.placement, &phys) {
            // A pin may have moved pages once more.
            placement.after = Runs::of(table.run_lens(window.len() as u64));
        }
        let pool = page > page_size() && report.obtained != Backing::PassThrough;
        let stability = match (&phys, &pin) {
            (PhysMap::Linear(_), _) => Stability::Pinned,
            _ if owner != Owner::Trusted => Stability::Unpinned,
            (_, Some(_)) => Stability::Pinned,
            _ if pool => Stability::Reserved,
            _ => Stability::Unpinned,
        };
        Self(Arc::new(Object {
            attached: OnceLock::new(),
            pin,
            not_pinned_because,
            phys,
            stability,
            window,
            file,
            access,
            report,
            page,
            name,
            guarded: AtomicBool::new(owner == Owner::Takes),
            keeper,
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
    ///
    /// Where somebody who is not trusted can take pages out of the file, and others come in
    /// their place, it is `Unpinned`, even if the pages that were there are held.
    #[inline]
    pub fn stability(&self) -> Stability {
        self.0.stability
    }

    /// What holds the pages that it had when it was made; `None` where nothing does. Only
    /// [`stability`](Self::stability) says whether they are still its pages.
    pub fn pinned_by(&self) -> Option<PinMethod> {
        self.0.pin.as_ref().map(Pin::method)
    }

    /// Why it is not of the class `Pinned`, and what would help; `None` where it is.
    pub fn not_pinned_because(&self) -> Option<&'static str> {
        self.0.not_pinned_because
    }

    /// Whether somebody can take the memory away while it is mapped: it was adopted from a
    /// file that cannot be sealed and not said to be [trusted](super::Adopt::trusted), or it
    /// is RAM of a huge page pool whose [file](Self::file) was given out and that is not
    /// [exclusive](super::Ram::exclusive). A hole that is punched into such a file is filled
    /// only if the pool has another page.
    ///
    /// Every access of the safe interface then goes by a way that costs a little more, and
    /// gives `EIO` if the memory is gone. An access through a raw pointer gets a SIGBUS.
    #[inline]
    pub fn is_guarded(&self) -> bool {
        self.0.guarded.load(Ordering::Relaxed)
    }

    /// The file is given out: from now on its pages may be taken away.
    pub(super) fn guard_what_is_shared(&self) {
        let pool = matches!(self.0.report.obtained, Backing::Huge1G | Backing::Huge2M);
        if !pool || self.seals().contains(Seals::FUTURE_WRITE) || self.is_guarded() {
            return;
        }
        match guard::install() {
            // Whoever gets the file after this has what was stored before it.
            Ok(()) => self.0.guarded.store(true, Ordering::Relaxed),
            Err(reason) => tracing::warn!(%reason, object = self.name(), "RAM is not guarded"),
        }
    }

    /// The host-physical run that begins at `offset`, at most `max` bytes of it.
    ///
    /// # Errors
    /// `EINVAL` where the offset or the length passes the end or the length is 0;
    /// `EPERM` where host-physical addresses are not known (decision 19).
    pub fn host_run(&self, offset: u64, max: u64) -> Result<HostRun> {
        self.check(offset, max).and_then(|()| self.phys_run(offset, max)).map_err(|reason| {
            Error::new(Operation::HostPhysical, Location::Offset(offset), max, reason)
        })
    }

    /// The whole object as host-physical runs, in order. One extent without an address covers
    /// each part whose addresses are unknown.
    pub fn host_extents(&self) -> impl Iterator<Item = HostExtent> + '_ {
        self.extents_of(0, self.len())
    }

    /// The host-physical runs of the `len` bytes at `start`, which lie in the object.
    pub(crate) fn extents_of(&self, start: u64, len: u64) -> impl Iterator<Item = HostExtent> + '_ {
        let mut offset = 0;
        core::iter::from_fn(move || {
            let rest = len - offset;
            if rest == 0 {
                return None;
            }
            let run = self.phys_run(start + offset, rest).ok();
            let len = run.map_or(rest, |run| run.len);
            let extent = HostExtent { offset, len, addr: run.map(|run| run.addr) };
            offset += len;
            Some(extent)
        })
    }

    /// How many bytes from `offset` on, at most `max`, certainly lie in one host-physical run,
    /// whether or not this process is told where: up to the end of the page, where its
    /// addresses are not known. A huge page is one where its file is made of such, or where
    /// the kernel says that it is one now. This asks the kernel: it is not for the data path.
    ///
    /// # Errors
    /// `EINVAL` as for [`host_run`](Self::host_run).
    pub fn contiguous_at(&self, offset: u64, max: u64) -> Result<u64> {
        self.check(offset, max).map_err(|reason| {
            Error::new(Operation::HostPhysical, Location::Offset(offset), max, reason)
        })?;
        if let Ok(run) = self.phys_run(offset, max) {
            return Ok(run.len);
        }
        let chunk = || usize::try_from(offset / HUGE).ok();
        let huge = || scan::huge_chunks(self.window())?.get(chunk()?).copied();
        let page = match self.0.page as u64 {
            page if page < HUGE && huge() == Some(true) => HUGE,
            page => page,
        };
        Ok((page - offset % page).min(max))
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

    pub(super) fn phys(&self) -> &PhysMap {
        &self.0.phys
    }

    /// Has something dropped together with the object: the first that is given.
    #[cfg(feature = "broker")]
    pub(crate) fn attach(&self, make: impl FnOnce() -> Keeper) {
        self.0.attached.get_or_init(make);
    }

    pub(crate) fn window(&self) -> &Window {
        &self.0.window
    }

    pub(super) fn memory_file(&self) -> Option<&MemoryFile> {
        self.0.file.as_ref()
    }

    pub(crate) fn check(&self, offset: u64, len: u64) -> core::result::Result<(), Reason> {
        if len == 0 {
            return Err(Reason::ZeroLength);
        }
        let end = offset.checked_add(len).filter(|&end| end <= self.len());
        end.map(|_| ()).ok_or(Reason::OutOfBounds { size: self.len() })
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
