//! A guest: its memory, its IOMMU, its devices, and the locks between them.
//!
//! | lock | guards | held while |
//! |---|---|---|
//! | edit lock | the right to change regions | a caller makes several changes in a row |
//! | a domain's changes | the order of its changes | one change of its grants is made |
//! | regions | the region map and the segments | the map changes, or one chunk of a table does |
//! | domains | the list of domains | a domain is added or removed, or the list is copied |
//! | vdevs | the list of devices, and each device's domain | a device is attached or moved |
//! | a view's writer | that view's table | one chunk of it changes |
//!
//! They are taken in this order. None but the first two is held while a scan waits for
//! look-ups, none but the first while a drain waits, and no map takes any.

mod audit;
mod builder;
mod domain;
mod inner;
mod own;
mod publish;
mod space;
mod space_lock;
mod vdev;

use core::fmt;
use std::sync::Arc;

pub use builder::GuestBuilder;
pub use domain::{Domain, Grant};
pub(crate) use inner::Inner;
pub use space::AddressSpace;
pub use space_lock::SpaceLock;
pub use vdev::Vdev;

use crate::addr::GuestPhys;
use crate::error::{Operation, Result};
use crate::fault::{Fault, Faults};
use crate::iommu::Unattached;
use crate::map_flags::MapFlags;
use crate::mapping::{DrainPolicy, Mapping, Port};

/// One guest: an address space, an IOMMU if it has one, and virtual devices.
///
/// Clones are the same guest. Mappings may outlive it: they keep their memory.
///
/// ```
/// use gasp::{Access, Backing, DeviceAddr, DomainKind, DomainOptions, Guest, GuestPhys};
/// use gasp::{MapFlags, MemoryObject, Span, Unattached};
///
/// // 2 MiB of RAM, and an IOMMU that stands before it.
/// let guest = Guest::builder().iommu(Unattached::Deny).build()?;
/// let ram = MemoryObject::ram(2 << 20).prefer(&[Backing::Base]).create()?;
/// guest.space().add_ram(None, &ram)?;
///
/// // A device that the guest lets read the first page.
/// let disk = guest.vdev("disk")?;
/// let domain = guest.domain("disk", DomainOptions::new(DomainKind::Identity))?;
/// disk.attach(&domain)?.wait();
/// domain.grant_identity(GuestPhys(0), 4096, Access::READ)?;
///
/// let page = disk.map(DeviceAddr(0x10), 64, MapFlags::READ)?;
/// assert_eq!(page.len(), 64);
/// assert_eq!(disk.map(DeviceAddr(0x10), 64, MapFlags::WRITE).unwrap_err().errno_name(), "EFAULT");
/// assert_eq!(guest.take_faults().records.len(), 1);
/// # Ok::<(), gasp::Error>(())
/// ```
#[derive(Clone)]
pub struct Guest(pub(crate) Arc<Inner>);

impl Guest {
    /// What a guest can be made with.
    pub fn builder() -> GuestBuilder {
        GuestBuilder::default()
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How many bits its addresses have.
    pub fn address_width(&self) -> u32 {
        self.0.physical.width
    }

    /// What becomes of devices that are attached to no domain; `None` where the guest has
    /// no IOMMU, so that every device reaches all of RAM (decision 13).
    pub fn iommu(&self) -> Option<Unattached> {
        self.0.iommu
    }

    /// The regions of its physical memory.
    pub fn space(&self) -> AddressSpace<'_> {
        AddressSpace::new(&self.0)
    }

    /// Maps guest memory as a vCPU would reach it, without the IOMMU: for virtual
    /// firmware, and for addresses that the host side chose. For an address that the
    /// guest supplied use [`Vdev::map`].
    ///
    /// # Errors
    /// `EINVAL` for a length of 0; `ENXIO` where there is no memory, or none of a kind
    /// that the flags accept, or it is not consecutive; `EACCES` for a write to ROM.
    pub fn map_firmware(&self, addr: GuestPhys, len: u64, flags: MapFlags) -> Result<Mapping> {
        let port = || self.0.firmware_port();
        match Port::map_page(|| Some(port()), addr.0, len, flags) {
            Some(mapping) => Ok(mapping),
            None => port().map(Operation::MapFirmware, addr.0, len, flags),
        }
    }

    /// Copies out of guest memory as a vCPU would.
    ///
    /// # Errors
    /// As [`map_firmware`](Self::map_firmware), except that the range may be scattered.
    pub fn read_firmware(&self, addr: GuestPhys, into: &mut [u8]) -> Result<()> {
        self.0.firmware_port().read(addr.0, into, MapFlags::READ.any())
    }

    /// Copies into guest memory as a vCPU would; ROM cannot be written this way.
    ///
    /// # Errors
    /// As [`map_firmware`](Self::map_firmware), except that the range may be scattered.
    pub fn write_firmware(&self, addr: GuestPhys, from: &[u8]) -> Result<()> {
        self.0.firmware_port().write(addr.0, from, MapFlags::WRITE.any())
    }

    /// Takes the records of what the IOMMU has refused: at most 64, the oldest first, and
    /// a count of those that came when there was no room.
    pub fn take_faults(&self) -> Faults {
        self.0.faults.take()
    }

    /// Takes the oldest of those records, and how many were dropped since one was last read.
    #[doc(hidden)]
    pub fn take_fault(&self) -> Option<(Fault, u64)> {
        self.0.faults.take_one()
    }

    /// How its revokes wait, unless a domain has a policy of its own.
    pub fn drain_policy(&self) -> DrainPolicy {
        self.0.policy
    }

    /// Whether the guest's configuration accepts host-physical addresses that can change
    /// (decision 20).
    pub fn allows_unpinned(&self) -> bool {
        self.0.physical.allow_unpinned
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("name", &self.0.name).finish_non_exhaustive()
    }
}
