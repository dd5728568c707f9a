//! A bounded use of guest memory, which holds what it lends.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::error::Error;
use std::sync::{Arc, OnceLock};

use gasp::{Access, DeviceAddr, Dma, GRANULE, MapFlags, Mapping, MemoryObject, Piece, Scatter};
use vm_memory::bitmap::{BS, Bitmap};
use vm_memory::guest_memory::{GuestMemorySliceIterator, Result};
use vm_memory::{GuestAddress, GuestMemory, Permissions};

use crate::cache::Kept;
use crate::error::{Refused, carry};
use crate::physical::NoPhysicalMemory;
use crate::shared::Shared;
use crate::slices::Slices;

/// A bounded use of a device's memory: one request, or one turn of a queue.
///
/// A burst is a [`GuestMemory`]. Its slices borrow from it, and it holds the pages and ranges
/// that they are of until it is dropped: a revoke of one of them meanwhile waits for the burst,
/// and one of other pages does not. So begin a burst for a piece of work, and drop it after; do
/// not keep one while waiting for the guest.
///
/// A slice that is used after its burst does not compile:
///
/// ```
/// # use gasp::{Guest, MemoryObject};
/// # use gasp_vm_memory::DeviceMemory;
/// # use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};
/// # let guest = Guest::builder().build()?;
/// # guest.space().add_ram(None, &MemoryObject::ram(2 << 20).create()?)?;
/// # let memory = DeviceMemory::new(guest.vdev("net")?);
/// let burst = memory.burst();
/// let slice = burst.get_slices(GuestAddress(0), 8, Permissions::Read)?.next();
/// let slice = slice.ok_or("there is none")??;
/// slice.read_obj::<u64>(0)?;
/// drop(burst);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail,E0505
/// # use gasp::{Guest, MemoryObject};
/// # use gasp_vm_memory::DeviceMemory;
/// # use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};
/// # let guest = Guest::builder().build()?;
/// # guest.space().add_ram(None, &MemoryObject::ram(2 << 20).create()?)?;
/// # let memory = DeviceMemory::new(guest.vdev("net")?);
/// let burst = memory.burst();
/// let slice = burst.get_slices(GuestAddress(0), 8, Permissions::Read)?.next();
/// let slice = slice.ok_or("there is none")??;
/// drop(burst);
/// slice.read_obj::<u64>(0)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It can be used and dropped on any thread, and is fastest on the one that has begun it. A clone of the `Arc` that
/// [`memory`](vm_memory::GuestAddressSpace::memory) returns is the same burst.
///
/// A page is mapped once for each kind of access, when it is first used so. What a burst
/// holds it lends again even if it was revoked meanwhile, until the drain has ended: a drain with
/// [`Deadline::Detach`](gasp::Deadline::Detach) can end before the burst, which then maps anew, and
/// is refused. Slices that it has lent before stay valid, but are no longer the device's to use:
/// [`is_revoked`](Self::is_revoked).
///
/// # Errors
/// A refusal is a [`GuestMemoryError::IOError`](vm_memory::GuestMemoryError::IOError), whose
/// source is the error of `D`, or [`Refused`]:
///
/// ```
/// # use gasp::{Guest, MemoryObject, Unattached};
/// # use gasp_vm_memory::DeviceMemory;
/// # use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
/// # let guest = Guest::builder().iommu(Unattached::Deny).build()?;
/// # let memory = DeviceMemory::new(guest.vdev("net")?);
/// let error = memory.burst().read_obj::<u32>(GuestAddress(0x9004)).unwrap_err();
/// let GuestMemoryError::IOError(error) = error else { panic!("{error}") };
/// let refused = error.get_ref().and_then(|error| error.downcast_ref::<gasp::Error>());
/// assert_eq!(refused.map(gasp::Error::errno_name), Some("EFAULT"));
/// // The guest has a fault record.
/// assert_eq!(guest.take_faults().records[0].addr.0, 0x9004);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// virtio-queue logs the error of a queue's own rings with the crate `log`, and returns `None`
/// from `pop_descriptor_chain`; the fault record is there all the same.
///
/// # Deadlocks
/// A drain of what a burst holds ends only when the burst does, unless its policy detaches: a
/// thread that waits for it ([`Drain::wait`](gasp::Drain::wait)) with such a burst in its hands
/// waits for ever.
pub struct Burst<D, B = ()> {
    shared: Arc<Shared<D, B>>,
    /// Pages, with a key for each kind of access.
    pages: Kept<Mapping>,
    /// Ranges of more than one page.
    ranges: OnceLock<Box<boxcar::Vec<Range>>>,
    /// The number of pieces of all ranges.
    pieces: AtomicUsize,
}

/// A range of more than one page, at its requested address: a [`Dma`] may translate.
struct Range {
    addr: u64,
    scatter: Scatter,
}

impl<D, B> Burst<D, B> {
    /// How many mappings one burst may hold. A device that uses more pages for one piece of work
    /// has to do it in several. Past the limit every other page is refused, including that of the
    /// next descriptor of a chain, which then ends early.
    pub const MAX_HELD: usize = 1 << 16;

    /// The number of pieces of its ranges of more than one page from which on it maps no other:
    /// 4 GiB of scattered pages, which take 24 MiB of the process's own memory.
    pub const MAX_PIECES: usize = 1 << 20;

    #[inline]
    pub(crate) fn new(shared: Arc<Shared<D, B>>) -> Self {
        Self { shared, pages: Kept::new(), ranges: OnceLock::new(), pieces: AtomicUsize::new(0) }
    }

    /// How many mappings it holds.
    pub fn held(&self) -> usize {
        self.pages.count() + self.ranges.get().map_or(0, |ranges| ranges.count())
    }

    /// Whether a drain has given up on something that it holds
    /// ([`Deadline::Detach`](gasp::Deadline::Detach)): slices of that are no longer the device's to
    /// use, and the burst should end.
    pub fn is_revoked(&self) -> bool {
        let mut ranges = self.ranges.get().into_iter().flat_map(|ranges| ranges.iter());
        self.pages.iter().any(Mapping::is_revoked)
            || ranges.any(|(_, range)| range.scatter.is_revoked())
    }
}

impl<D: Dma, B: Bitmap> Burst<D, B>
where
    D::Error: Error + Send + Sync + 'static,
{
    #[inline(always)]
    fn slices(
        &self,
        addr: u64,
        len: usize,
        flags: MapFlags,
    ) -> Result<Slices<'_, B, impl Iterator<Item = Piece<'_>>>> {
        let bitmap = &self.shared.bitmap;
        let offset = addr % GRANULE;
        // A length of 0 becomes the longest.
        if (len as u64).wrapping_sub(1) >= GRANULE - offset {
            let range = self.range(addr, len as u64, flags)?;
            return Ok(Slices::of_range(addr, range.map(Scatter::pieces), bitmap));
        }
        let mapping = match self.pages.find_near(key_of(addr, flags.access())) {
            Some(held) if !held.is_revoked() => held,
            _ => self.page(addr, len, flags)?,
        };
        Ok(Slices::of_page(addr, mapping, (offset as usize, len), bitmap))
    }

    /// The mapping of a page that is not among the first ones, not held yet, or revoked.
    #[cold]
    #[inline(never)]
    fn page(&self, addr: u64, len: usize, flags: MapFlags) -> Result<&Mapping> {
        let key = key_of(addr, flags.access());
        match self.pages.find_far(key) {
            // One that a drain has given up on is no longer the device's to use.
            Some(held) if !held.is_revoked() => Ok(held),
            _ => self.map_page(key, addr, len, flags),
        }
    }

    /// Maps the page of an address.
    #[inline]
    fn map_page(&self, key: u64, addr: u64, len: usize, flags: MapFlags) -> Result<&Mapping> {
        self.check_room()?;
        let mapping = match self.shared.dma.map_page(DeviceAddr(addr), len as u64, flags) {
            Ok(mapping) => mapping,
            Err(error) => return Err(carry(error)),
        };
        let page = addr - addr % GRANULE;
        check_requested(page, (GRANULE, flags), mapping.len(), mapping.access())?;
        check_lendable(mapping.object())?;
        Ok(self.pages.insert(key, mapping))
    }

    /// A mapping of a range of several pages; `None` if it is empty.
    #[cold]
    #[inline(never)]
    fn range(&self, addr: u64, len: u64, flags: MapFlags) -> Result<Option<&Scatter>> {
        if len == 0 {
            return Ok(None);
        }
        let ranges = self.ranges.get_or_init(Box::default);
        let last = ranges.count().checked_sub(1).and_then(|last| ranges.get(last));
        let same = |last: &&Range| {
            last.addr == addr
                && last.scatter.len() as u64 == len
                && last.scatter.access().contains(flags.access())
                && !last.scatter.is_revoked()
        };
        if let Some(last) = last.filter(same) {
            return Ok(Some(&last.scatter));
        }
        self.check_room()?;
        let limit = Self::MAX_PIECES;
        if self.pieces.load(Ordering::Relaxed) >= limit {
            return Err(carry(Refused::TooManyPieces { limit }));
        }
        let scatter = self.shared.dma.map_scatter(DeviceAddr(addr), len, flags).map_err(carry)?;
        check_requested(addr, (len, flags), scatter.len(), scatter.access())?;
        for piece in scatter.pieces() {
            check_lendable(piece.object())?;
        }
        self.pieces.fetch_add(scatter.pieces().len(), Ordering::Relaxed);
        let index = ranges.push(Range { addr, scatter });
        Ok(Some(&ranges[index].scatter))
    }

    /// What vm-memory asks for, of system RAM. Without any access it asks for memory that the
    /// device may use somehow: for reading, if that is allowed.
    #[inline]
    fn flags_of(&self, addr: GuestAddress, len: usize, permissions: Permissions) -> MapFlags {
        match permissions {
            Permissions::Read => MapFlags::READ,
            Permissions::Write => MapFlags::WRITE,
            Permissions::ReadWrite => MapFlags::RW,
            Permissions::No => {
                let readable =
                    self.shared.dma.allows(DeviceAddr(addr.0), len as u64, MapFlags::READ);
                if readable { MapFlags::READ } else { MapFlags::WRITE }
            }
        }
    }

    #[inline]
    fn check_room(&self) -> Result<()> {
        match self.held() < Self::MAX_HELD {
            true => Ok(()),
            false => Err(carry(Refused::TooMany { limit: Self::MAX_HELD })),
        }
    }
}

/// The key of a page for a kind of access. Pages are fewer than 2^52.
#[inline]
fn key_of(addr: u64, access: Access) -> u64 {
    (addr / GRANULE) << 3 | u64::from(access.bits())
}

/// Slices have the requested length and access. A [`Dma`] is safe to implement, so it may map
/// something else.
#[inline]
fn check_requested(
    addr: u64,
    requested: (u64, MapFlags),
    len: usize,
    access: Access,
) -> Result<()> {
    let (requested_len, requested_access) = (requested.0, requested.1.access());
    let len = len as u64;
    match len == requested_len && access.contains(requested_access) {
        true => Ok(()),
        false => {
            Err(carry(Refused::WrongMapping { addr, requested_len, requested_access, len, access }))
        }
    }
}

/// Memory whose file can be cut off under its mapping is reached by copies that survive that,
/// which vm-memory's slices do not make; and every slice can be written through.
#[inline]
fn check_lendable(object: &MemoryObject) -> Result<()> {
    let object_name = || object.name().into();
    if object.is_guarded() {
        return Err(carry(Refused::Guarded { object: object_name() }));
    }
    match object.access().contains(Access::RW) {
        true => Ok(()),
        false => Err(carry(Refused::ReadOnly { object: object_name() })),
    }
}

impl<D: Dma, B: Bitmap> GuestMemory for Burst<D, B>
where
    D::Error: Error + Send + Sync + 'static,
{
    type PhysicalMemory = NoPhysicalMemory;
    type Bitmap = B;

    /// Whether the IOMMU allows the range, and it has memory. Nothing is held, and no fault is
    /// recorded.
    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        let allows = |flags| self.shared.dma.allows(DeviceAddr(addr.0), count as u64, flags);
        count == 0
            || match access {
                Permissions::No => allows(MapFlags::READ) || allows(MapFlags::WRITE),
                access => allows(self.flags_of(addr, count, access)),
            }
    }

    #[inline(always)]
    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, B>>> {
        self.slices(addr.0, count, self.flags_of(addr, count, access))
    }
}

impl<D, B> core::fmt::Debug for Burst<D, B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Burst").field("held", &self.held()).finish_non_exhaustive()
    }
}
