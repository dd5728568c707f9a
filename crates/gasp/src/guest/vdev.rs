//! Virtual devices: an identity, and the domain that its addresses go through.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Arc;

use super::attached::Attached;
use super::domain::Domain;
use super::guest::Guest;
use super::inner::{Inner, VdevInner};
use crate::addr::DeviceAddr;
use crate::error::{Operation, Reason, Result};
use crate::map_flags::MapFlags;
use crate::mapping::{
    Failed, HostMapping, Mapping, Partial, Port, Scatter, Stitched, check_not_looking_up,
    count_held, own,
};
use crate::view::attachment::Attachment;

/// The most devices of a guest.
const VDEVS_MAX: usize = 1 << 16;

/// A virtual device: an initiator of DMA.
///
/// A clone is the same device. Every map goes through the domain that the device is attached
/// to; see [`attach`](Self::attach).
#[derive(Clone)]
pub struct Vdev {
    pub(super) inner: Arc<VdevInner>,
    pub(super) guest: Arc<Inner>,
}

/// A map of a device: what is done, and to what range.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) op: Operation,
    pub(super) addr: DeviceAddr,
    pub(super) len: u64,
    pub(super) flags: MapFlags,
}

impl Guest {
    /// Creates a device, attached to no domain.
    ///
    /// # Errors
    /// `EEXIST` if the guest has a device of this name; `ENOSPC` if it has 65,536 devices;
    /// `EDEADLK` inside a look-up of a device (decision 22).
    pub fn vdev(&self, name: &str) -> Result<Vdev> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let fail = |reason| Err(self.0.error(Operation::Create, name, reason));
        if let Err(reason) = check_not_looking_up() {
            return fail(reason);
        }
        let mut vdevs = self.0.lock_vdevs();
        if vdevs.contains_key(name) {
            return fail(Reason::NameTaken("a device"));
        }
        if vdevs.len() >= VDEVS_MAX {
            return fail(Reason::Limit { what: "devices", limit: VDEVS_MAX as u64 });
        }
        let name: Arc<str> = Arc::from(name);
        let inner = Arc::new(VdevInner {
            name: Arc::clone(&name),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            attachment: Attachment::new(self.0.unattached_view()),
            domain: Attached::default(),
            removed: AtomicBool::new(false),
        });
        vdevs.insert(name, Arc::clone(&inner));
        Ok(Vdev { inner, guest: Arc::clone(&self.0) })
    }

    /// The device with this name, if there is one.
    pub fn find_vdev(&self, name: &str) -> Option<Vdev> {
        let inner = Arc::clone(self.0.lock_vdevs().get(name)?);
        Some(Vdev { inner, guest: Arc::clone(&self.0) })
    }

    /// All devices, in order of name.
    pub fn vdevs(&self) -> Vec<Vdev> {
        let vdevs = self.0.lock_vdevs();
        let guest = &self.0;
        vdevs
            .values()
            .map(|inner| Vdev { inner: Arc::clone(inner), guest: Arc::clone(guest) })
            .collect()
    }
}

impl Vdev {
    /// Whether both are clones of one device.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Maps all of `[addr, addr + len)`, or nothing.
    ///
    /// # Errors
    /// In the order of decision 1:
    /// * `EINVAL`: the length is 0;
    /// * `ENXIO`: the range wraps or extends past the guest's address width;
    /// * `EFAULT`: the guest's IOMMU refuses this access to part of the range; a fault record is
    ///   left;
    /// * `ENXIO`: part of the range has no memory, or only memory of a kind that the flags do
    ///   not accept; `EACCES`: it is ROM and write access is requested;
    /// * `ENXIO`: the memory is not consecutive ([`Reason::NotConsecutive`] has the length of
    ///   the consecutive beginning; [`map_scatter`](Self::map_scatter) maps all of it).
    ///
    /// In a domain that [asks](crate::DomainKind::Ask) it waits for the translator if something is
    /// missing, and also fails with `ENOSPC` if the domain is full of translations that are held,
    /// `EDEADLK` if it is called by the translator about the same page, and `EINVAL` if an answer is
    /// not a page.
    #[inline]
    pub fn map(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping> {
        match Self::map_page_of(|| Some(self), addr, len, flags) {
            Some(mapping) => Ok(mapping),
            None => self.map_general(addr, len, flags),
        }
    }

    /// The general path of [`map`](Self::map), out of line.
    #[cold]
    #[inline(never)]
    fn map_general(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping> {
        let op = Operation::Map;
        let request = Request { op, addr, len, flags };
        match self.port().map(op, addr.0, len, flags) {
            Ok(mapping) => Ok(mapping),
            Err(Failed::Error(error)) => Err(error),
            // What was missed is there the second time.
            Err(Failed::Missed(missed)) => {
                self.fetch(request, missed, Partial::Refuse, |port, _| {
                    match Port::map_page(|| Some(port), addr.0, len, flags) {
                        Some(mapping) => Ok(mapping),
                        None => port.map(op, addr.0, len, flags),
                    }
                })
            }
        }
    }

    /// [`map`](Self::map) of the device that `find` returns, if the range lies in one page of the
    /// domain's table and is not refused; `None` otherwise, without the reason.
    ///
    /// `find` may use an object of a list from which other threads remove objects, as in a
    /// [`Section`](crate::ffi::Section), and at less cost. For front ends whose callers name
    /// devices by number.
    ///
    /// Every revoke in the process waits for `find`, with locks held: it must be short, wait for
    /// nothing, and change nothing. Inside it, calls that change a guest, domain or device and can
    /// fail are refused with `EDEADLK` (decision 22); those that cannot fail
    /// ([`detach`](Self::detach), [`remove`](Self::remove),
    /// [`grace_period`](crate::ffi::grace_period), dropping a guest) and those that take a guest's
    /// locks to read its state can deadlock.
    #[inline(always)]
    #[doc(hidden)]
    pub fn map_page_of<'list>(
        find: impl FnOnce() -> Option<&'list Self>,
        addr: DeviceAddr,
        len: u64,
        flags: MapFlags,
    ) -> Option<Mapping> {
        Port::map_page(|| find().map(Self::port), addr.0, len, flags)
    }

    /// The same for [`map_host_contig`](Self::map_host_contig).
    #[inline(always)]
    #[doc(hidden)]
    pub fn map_host_contig_page_of<'list>(
        find: impl FnOnce() -> Option<&'list Self>,
        addr: DeviceAddr,
        max: u64,
        flags: MapFlags,
    ) -> Option<HostMapping> {
        Port::map_host_contig_page(|| find().map(Self::port), addr.0, max, flags)
    }

    /// Maps the beginning of `[addr, addr + max)` that is consecutive in host-physical memory.
    /// [`HostMapping::run`] is its host-physical address and its length in bytes, at most `max`
    /// and never 0 (decision 7). Call again at the next address for the rest.
    ///
    /// All of `[addr, addr + max)` must be allowed and have memory (decisions 8 and 9).
    ///
    /// # Errors
    /// As [`map`](Self::map), except that the memory need not be consecutive; `EPERM`
    /// if host-physical addresses are not known (decision 19); `EAGAIN` if the address can
    /// change and the guest does not [allow](crate::GuestBuilder::allow_unpinned) that
    /// (decision 20).
    #[inline]
    pub fn map_host_contig(
        &self,
        addr: DeviceAddr,
        max: u64,
        flags: MapFlags,
    ) -> Result<HostMapping> {
        match Self::map_host_contig_page_of(|| Some(self), addr, max, flags) {
            Some(mapping) => Ok(mapping),
            None => self.map_host_contig_general(addr, max, flags, Partial::Refuse),
        }
    }

    /// [`map_host_contig`](Self::map_host_contig) that also shortens the mapping to the part of
    /// the range that the guest's IOMMU allows and that has memory inside the guest's address
    /// width (decision 9).
    ///
    /// # Errors
    /// As [`map_host_contig`](Self::map_host_contig), if the first byte cannot be mapped.
    #[inline]
    pub fn map_host_contig_truncated(
        &self,
        addr: DeviceAddr,
        max: u64,
        flags: MapFlags,
    ) -> Result<HostMapping> {
        match Self::map_host_contig_page_of(|| Some(self), addr, max, flags) {
            Some(mapping) => Ok(mapping),
            None => self.map_host_contig_general(addr, max, flags, Partial::Truncate),
        }
    }

    /// The general path of both, out of line.
    #[cold]
    #[inline(never)]
    fn map_host_contig_general(
        &self,
        addr: DeviceAddr,
        max: u64,
        flags: MapFlags,
        partial: Partial,
    ) -> Result<HostMapping> {
        let request = Request { op: Operation::MapHostContig, addr, len: max, flags };
        self.fetching_part(request, partial, |port, partial| {
            port.map_host_contig(addr.0, max, flags, partial)
        })
    }

    /// Maps all of `[addr, addr + len)`, in as many pieces as it takes (decision 21).
    ///
    /// # Errors
    /// As [`map`](Self::map), except that the memory need not be consecutive.
    pub fn map_scatter(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Scatter> {
        let op = Operation::MapScatter;
        let request = Request { op, addr, len, flags };
        self.fetching(request, |port| port.map_scatter(op, addr.0, len, flags))
    }

    /// Whether [`map_scatter`](Self::map_scatter) of `[addr, addr + len)` would be allowed now, and
    /// find memory. It leaves no fault record and holds nothing, so that the answer can change at
    /// any time: a device that is to use the range maps it.
    ///
    /// ```
    /// # use gasp::{DeviceAddr, DomainKind, DomainOptions, Guest, GuestPhys, MapFlags};
    /// # use gasp::{Access, MemoryObject, Unattached};
    /// # let guest = Guest::builder().iommu(Unattached::Deny).build()?;
    /// # guest.space().add_ram(None, &MemoryObject::ram(2 << 20).create()?)?;
    /// # let domain = guest.domain("net", DomainOptions::new(DomainKind::Translate))?;
    /// # let net = guest.vdev("net")?;
    /// # net.attach(&domain)?.wait();
    /// domain.grant(DeviceAddr(0x8000), GuestPhys(0x3000), 0x2000, Access::READ)?;
    /// assert!(net.allows(DeviceAddr(0x8ffc), 8, MapFlags::READ));
    /// assert!(!net.allows(DeviceAddr(0x8ffc), 8, MapFlags::RW));
    /// assert!(!net.allows(DeviceAddr(0x9ffc), 8, MapFlags::READ));
    /// assert!(guest.take_faults().records.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allows(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> bool {
        match self.port().allows(addr.0, len, flags) {
            Ok(allows) => allows,
            Err(Failed::Missed(missed)) => self.allows_fetched((addr, len), flags, missed),
            Err(Failed::Error(_)) => false,
        }
    }

    /// Maps all of `[addr, addr + len)` at consecutive addresses, by mapping its pieces once more
    /// side by side (decision 21). This takes system calls, so it is for mappings that are used
    /// for long.
    ///
    /// # Errors
    /// As [`map_scatter`](Self::map_scatter); `EINVAL` if the pieces are not whole pages of their
    /// backing, or are memory without a descriptor; any mmap() error.
    pub fn map_stitched(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Stitched> {
        let request = Request { op: Operation::MapStitched, addr, len, flags };
        self.fetching(request, |port| port.map_stitched(addr.0, len, flags))
    }

    /// Copies out of guest memory: all of `into`, or nothing.
    ///
    /// # Errors
    /// As [`map_scatter`](Self::map_scatter) with read access; `EIO` if memory is
    /// [guarded](crate::MemoryObject::is_guarded) and gone: part of `into` may then be written.
    pub fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> Result<()> {
        let (len, flags) = (into.len() as u64, MapFlags::READ);
        match Port::map_page(|| Some(self.port()), addr.0, len, flags) {
            Some(mapping) => mapping.read_at(0, into),
            None => {
                let request = Request { op: Operation::Read, addr, len, flags };
                self.fetching(request, |port| port.read(addr.0, into, flags))
            }
        }
    }

    /// Copies into guest memory: all of `from`, or nothing.
    ///
    /// # Errors
    /// As [`map_scatter`](Self::map_scatter) with write access; `EIO` if memory is
    /// [guarded](crate::MemoryObject::is_guarded) and gone: part of `from` may then be copied.
    pub fn write(&self, addr: DeviceAddr, from: &[u8]) -> Result<()> {
        let (len, flags) = (from.len() as u64, MapFlags::WRITE);
        match Port::map_page(|| Some(self.port()), addr.0, len, flags) {
            Some(mapping) => mapping.write_at(0, from),
            None => {
                let request = Request { op: Operation::Write, addr, len, flags };
                self.fetching(request, |port| port.write(addr.0, from, flags))
            }
        }
    }

    /// The number of mappings that this thread has created for the device, attached as it is now,
    /// and that are still held. The drains of [`attach`](Self::attach),
    /// [`detach`](Self::detach) and [`remove`](Self::remove) wait for them; waited for on this
    /// thread, they end only if another thread unmaps them (decision 22).
    pub fn held_by_this_thread(&self) -> usize {
        let view = self.view_id();
        own().filter(|found| found.view == view && found.vdev == self.inner.id).count()
    }

    /// The number of mappings of the device, attached as it is now, that are held on any thread.
    /// It costs a membarrier(2) and a look at every mapping that is held in the process.
    pub fn held(&self) -> usize {
        let view = self.view_id();
        // Inside a look-up (decision 22) there is none to tell.
        check_not_looking_up()
            .map_or(0, |()| count_held(|found| found.view == view && found.vdev == self.inner.id))
    }

    /// The view that the device maps through.
    fn view_id(&self) -> u32 {
        let current = self.inner.domain();
        current.as_ref().map_or(self.guest.unattached_view(), |domain| &domain.view).id()
    }

    /// The domain that the device is attached to, if any.
    pub fn domain(&self) -> Option<Domain> {
        let inner = Arc::clone(self.inner.domain().as_ref()?);
        Some(Domain { inner, guest: Arc::clone(&self.guest) })
    }

    /// The guest that the device belongs to.
    pub fn guest(&self) -> Guest {
        Guest(Arc::clone(&self.guest))
    }

    #[inline]
    pub(super) fn port(&self) -> Port<'_> {
        Port {
            attachment: &self.inner.attachment,
            guest: &self.guest.physical,
            vdev: self.inner.id,
            device: Some((&self.inner.name, &self.guest.faults)),
        }
    }
}

impl fmt::Debug for Vdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vdev").field("name", &self.inner.name).finish_non_exhaustive()
    }
}
