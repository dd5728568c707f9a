//! A memory object: backing memory, mapped into the process once.

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

/// The unit of [`scan::huge_chunks`], in bytes.
const HUGE: u64 = 2 << 20;

/// A memory object: backing memory of a guest's regions, mapped into the process once.
///
/// Created by [`ram`](Self::ram), [`adopt`](Self::adopt), [`pass_through`](Self::pass_through) or
/// [`external`](Self::external), and assigned to a guest's address space with a
/// [`Region`](crate::Region). Clones share the memory, which is unmapped when the last clone and
/// the last mapping of it are gone.
#[derive(Clone)]
pub struct MemoryObject(Arc<Object>);

// Fields are dropped in order: `attached` before the pin, the pin before the window whose pages it
// holds, and the window before the keeper of its memory.
struct Object {
    /// A value that is dropped with the object, before everything else of it.
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
    /// Whether an access may find the memory gone. Once true, it stays true.
    guarded: AtomicBool,
    /// Keeps memory mapped that this crate has not mapped; dropped last.
    #[expect(dead_code, reason = "kept until the object is dropped")]
    keeper: Option<Keeper>,
}

/// A value that is kept only to be dropped with an object.
pub(crate) type Keeper = Arc<dyn Any + Send + Sync>;

/// What the owner of a file can do to memory that is mapped from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OwnerPower {
    /// Nothing, or it is trusted to do nothing.
    Trusted,
    /// It can take pages away, and new ones replace them.
    Punches,
    /// It can take pages away, and nothing need replace them: an access may fault.
    Takes,
}

/// The properties of a new object that its constructor knows.
pub(super) struct Properties {
    pub(super) name: Box<str>,
    pub(super) window: Window,
    pub(super) file: Option<MemoryFile>,
    pub(super) access: Access,
    pub(super) report: BackingReport,
    /// The page size, in bytes: each page is certain to be host-contiguous.
    pub(super) page: usize,
    /// Whether it is populated already.
    pub(super) populated: bool,
    /// Whether it is shared memory, whose pages a pipe can hold.
    pub(super) shared: bool,
    pub(super) owner: OwnerPower,
    pub(super) keeper: Option<Keeper>,
}

impl Properties {
    /// Memory without a file, which nobody can take away, and not yet populated.
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
            owner: OwnerPower::Trusted,
            keeper: None,
        }
    }
}

impl MemoryObject {
    /// Completes an object: populates it, pins its pages and reads their frame numbers, in this
    /// order, because a pin can itself move a page.
    pub(super) fn resident(
        properties: Properties,
        residency: Residency,
        pins: &[PinMethod],
    ) -> Self {
        let Properties { window, access, page, shared, .. } = &properties;
        if residency == Residency::OnDemand {
            const WHY: &str = "it is populated on demand; create it pinned or resident";
            return Self::assemble(properties, None, Some(WHY), PhysMap::Unknown(WHY));
        }
        if !properties.populated
            && let Err(errno) = window.populate(0, window.len(), *access)
        {
            tracing::debug!(%errno, object = %properties.name, "cannot populate memory");
        }
        let pin = match residency {
            Residency::Pinned => Pin::new(window, pins, *page, *shared),
            _ => Err("pinning was not requested"),
        };
        const PUNCHES: &str = "its owner can punch holes, so that other pages replace those that \
                               are pinned; adopt it as trusted, or sealed against writing";
        let (pin, not_pinned_because) = match pin {
            Ok(pin) if properties.owner != OwnerPower::Trusted => (Some(pin), Some(PUNCHES)),
            Ok(pin) => (Some(pin), None),
            Err(why) => (None, Some(why)),
        };
        let phys = frames::read_frames(window, *page);
        Self::assemble(properties, pin, not_pinned_because, phys)
    }

    /// Completes an object whose host-physical address is declared, and not read.
    pub(super) fn declared(properties: Properties, host: HostPhys) -> Self {
        Self::assemble(properties, None, None, PhysMap::Linear(host))
    }

    fn assemble(
        properties: Properties,
        pin: Option<Pin>,
        not_pinned_because: Option<&'static str>,
        phys: PhysMap,
    ) -> Self {
        let Properties { name, window, file, access, mut report, page, owner, keeper, .. } =
            properties;
        if let (Some(placement), PhysMap::Table(table)) = (&mut report.placement, &phys) {
            // The pin may have moved pages once more.
            placement.after = Runs::of(table.run_lens(window.len() as u64));
        }
        let pool = page > page_size() && report.obtained != Backing::PassThrough;
        let stability = match (&phys, &pin) {
            (PhysMap::Linear(_), _) => Stability::Pinned,
            _ if owner != OwnerPower::Trusted => Stability::Unpinned,
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
            guarded: AtomicBool::new(owner == OwnerPower::Takes),
            keeper,
        }))
    }

    /// The name, for reports.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The length in bytes: a multiple of 4 KiB, never 0.
    #[expect(clippy::len_without_is_empty, reason = "an object is never empty")]
    pub fn len(&self) -> u64 {
        self.0.window.len() as u64
    }

    /// The address of its first byte in this process, for a VMM that tells the kernel where guest
    /// memory is: a slot of KVM, a region of vhost. The next [`len`](Self::len) bytes are mapped
    /// for as long as a clone of the object, a guest with the object in a region, or a mapping of
    /// it exists; no revoke waits for the pointer. What the object offers is
    /// [`access`](Self::access); the guest may write the memory at any time, and an access through
    /// the pointer to [guarded](Self::is_guarded) memory can raise SIGBUS.
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.window.base()
    }

    /// The page size in bytes: the granularity in which its file can be mapped.
    pub fn page_size(&self) -> usize {
        self.0.page
    }

    /// The access that the object allows.
    pub fn access(&self) -> Access {
        self.0.access
    }

    /// The backing that was obtained, and why preferred ones were passed over.
    pub fn backing(&self) -> &BackingReport {
        &self.0.report
    }

    /// Whether its host-physical addresses can change (decision 20).
    ///
    /// If an owner who is not trusted can take pages out of the file, the class is `Unpinned`, even
    /// if the pages that were there are pinned.
    #[inline]
    pub fn stability(&self) -> Stability {
        self.0.stability
    }

    /// The pin method of the pages that it had when it was created; `None` if they are not pinned.
    /// Only [`stability`](Self::stability) says whether they are still its pages.
    pub fn pinned_by(&self) -> Option<PinMethod> {
        self.0.pin.as_ref().map(Pin::method)
    }

    /// Why the class is not `Pinned`, and what would help; `None` if it is.
    pub fn not_pinned_because(&self) -> Option<&'static str> {
        self.0.not_pinned_because
    }

    /// Whether the memory can be taken away while it is mapped. It can if
    ///
    /// * it was adopted, not as [trusted](super::Adopt::trusted), from a file that cannot be sealed
    ///   against shrinking; or
    /// * it is memory of a huge page pool into whose file somebody can punch holes, which are
    ///   filled only if the pool has another page: adopted, not as trusted, from a file that is not
    ///   sealed against writing, or RAM whose [file](Self::file) was handed out and that is not
    ///   [exclusive](super::Ram::exclusive).
    ///
    /// Every access of the safe interface is then guarded: it costs a little more, and returns
    /// `EIO` if the memory is gone. An access through a raw pointer raises SIGBUS.
    #[inline]
    pub fn is_guarded(&self) -> bool {
        self.0.guarded.load(Ordering::Relaxed)
    }

    /// Guards RAM of a huge page pool whose file is handed out, so that its pages can be taken away
    /// from now on.
    pub(super) fn guard_what_is_shared(&self) {
        let pool = matches!(self.0.report.obtained, Backing::Huge1G | Backing::Huge2M);
        if !pool || self.seals().contains(Seals::FUTURE_WRITE) || self.is_guarded() {
            return;
        }
        match guard::install() {
            // Whoever receives the file after this sees what was stored before it.
            Ok(()) => self.0.guarded.store(true, Ordering::Relaxed),
            Err(reason) => tracing::warn!(%reason, object = self.name(), "RAM is not guarded"),
        }
    }

    /// The host-physical run that begins at `offset`, cut to `max` bytes.
    ///
    /// # Errors
    /// `EINVAL` if `max` is 0, or if the `max` bytes from `offset` extend past the end; `EPERM` if
    /// host-physical addresses are not known (decision 19).
    pub fn host_run(&self, offset: u64, max: u64) -> Result<HostRun> {
        self.check(offset, max).and_then(|()| self.phys_run(offset, max)).map_err(|reason| {
            Error::new(Operation::HostPhysical, Location::Offset(offset), max, reason)
        })
    }

    /// The whole object as host-physical runs, in order; one extent without an address if its
    /// addresses are not known (decision 19).
    pub fn host_extents(&self) -> impl Iterator<Item = HostExtent> + '_ {
        self.extents_of(0, self.len())
    }

    /// The host-physical runs of the `len` bytes from `start`, which must be inside the object.
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

    /// The number of bytes from `offset`, at most `max`, that are certain to lie in one
    /// host-physical run. If addresses are not known, that is up to the end of the page. The page
    /// is a huge one if the file consists of such, or if the kernel reports one now (Linux 6.7 or
    /// newer); asking the kernel is not for the data path.
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

    /// The size of the object's frame table in bytes, in addition to the memory itself.
    pub fn table_bytes(&self) -> usize {
        match &self.0.phys {
            PhysMap::Table(table) => PhysTable::table_bytes(table),
            _ => 0,
        }
    }

    /// Whether both are clones of one object.
    #[inline]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The first host-virtual address.
    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.0.window.base()
    }

    /// [`host_run`](Self::host_run) of a range that is known to be inside.
    #[inline]
    pub(crate) fn phys_run(&self, offset: u64, max: u64) -> core::result::Result<HostRun, Reason> {
        self.0.phys.run_at(offset, max).map_err(Reason::HostUnknown)
    }

    pub(super) fn phys(&self) -> &PhysMap {
        &self.0.phys
    }

    /// Attaches a value that is dropped together with the object; only the first one is kept.
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
