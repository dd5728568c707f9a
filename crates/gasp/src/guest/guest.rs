//! Guests.

use core::fmt;
use std::sync::Arc;

use super::inner::Inner;
use super::space::AddressSpace;
use crate::addr::GuestPhys;
use crate::error::{Operation, Result};
use crate::fault::{Fault, Faults};
use crate::iommu::Unattached;
use crate::map_flags::MapFlags;
use crate::mapping::{DrainPolicy, Failed, Mapping, PageTables, Port, Scatter};

/// A guest: an address space, virtual devices, and possibly an IOMMU.
///
/// A clone is the same guest. Mappings may outlive the guest: they keep their memory.
///
/// ```
/// use gasp::{Access, Backing, DeviceAddr, DomainKind, DomainOptions, Guest, GuestPhys};
/// use gasp::{MapFlags, MemoryObject, Span, Unattached};
///
/// // A guest with an IOMMU and 2 MiB of RAM.
/// let guest = Guest::builder().iommu(Unattached::Deny).build()?;
/// let ram = MemoryObject::ram(2 << 20).prefer(&[Backing::Base]).create()?;
/// guest.space().add_ram(None, &ram)?;
///
/// // A device that may read the first page.
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
    /// Whether both are clones of one guest.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The guest's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The address width in bits.
    pub fn address_width(&self) -> u32 {
        self.0.physical.width
    }

    /// The treatment of devices that are attached to no domain (decision 14); `None` if the
    /// guest has no IOMMU, so that every device reaches all of its memory (decision 13).
    pub fn iommu(&self) -> Option<Unattached> {
        self.0.iommu
    }

    /// The guest-physical address space.
    pub fn space(&self) -> AddressSpace<'_> {
        AddressSpace::new(&self.0)
    }

    /// Maps `[addr, addr + len)` of guest memory as a vCPU reaches it, without the IOMMU: for
    /// virtual firmware, and for addresses that the host chose. For an address that the guest
    /// supplied use [`Vdev::map`](crate::Vdev::map).
    ///
    /// # Errors
    /// In the order of decision 1:
    /// * `EINVAL`: the length is 0;
    /// * `ENXIO`: the range wraps or extends past the guest's address width; or part of it has
    ///   no memory, or only memory of a kind that the flags do not accept;
    /// * `EACCES`: it is ROM and write access is requested;
    /// * `ENXIO`: the memory is not consecutive.
    pub fn map_firmware(&self, addr: GuestPhys, len: u64, flags: MapFlags) -> Result<Mapping> {
        let port = || self.0.firmware_port();
        match Port::map_page(|| Some(port()), addr.0, len, flags) {
            Some(mapping) => Ok(mapping),
            None => {
                let mapped = port().map(Operation::MapFirmware, addr.0, len, flags);
                mapped.map_err(Failed::error)
            }
        }
    }

    /// Whether [`map_firmware_scatter`](Self::map_firmware_scatter) would find memory now.
    pub(crate) fn allows_firmware(&self, addr: GuestPhys, len: u64, flags: MapFlags) -> bool {
        self.0.firmware_port().allows(addr.0, len, flags).is_ok_and(|allows| allows)
    }

    /// Maps guest memory as a vCPU would reach it, in as many pieces as it takes.
    ///
    /// # Errors
    /// As [`map_firmware`](Self::map_firmware), except that the memory need not be consecutive.
    pub fn map_firmware_scatter(
        &self,
        addr: GuestPhys,
        len: u64,
        flags: MapFlags,
    ) -> Result<Scatter> {
        let mapped = self.0.firmware_port().map_scatter(Operation::MapFirmware, addr.0, len, flags);
        mapped.map_err(Failed::error)
    }

    /// Copies out of guest memory as a vCPU reaches it, of whatever kind: all of `into`, or
    /// nothing.
    ///
    /// # Errors
    /// As [`map_firmware`](Self::map_firmware), except that the memory need not be consecutive;
    /// `EIO` if memory is [guarded](crate::MemoryObject::is_guarded) and gone: part of `into` may
    /// then be written.
    pub fn read_firmware(&self, addr: GuestPhys, into: &mut [u8]) -> Result<()> {
        self.0.firmware_port().read(addr.0, into, MapFlags::READ.any()).map_err(Failed::error)
    }

    /// Copies into guest memory as a vCPU reaches it, of whatever kind but ROM: all of `from`, or
    /// nothing.
    ///
    /// # Errors
    /// As [`map_firmware`](Self::map_firmware), except that the memory need not be consecutive;
    /// `EIO` if memory is [guarded](crate::MemoryObject::is_guarded) and gone: part of `from` may
    /// then be copied.
    pub fn write_firmware(&self, addr: GuestPhys, from: &[u8]) -> Result<()> {
        self.0.firmware_port().write(addr.0, from, MapFlags::WRITE.any()).map_err(Failed::error)
    }

    /// The guest's memory as its IOMMU reads page tables in it, as a
    /// [`Translator`](crate::Translator) has it.
    pub fn page_tables(&self) -> PageTables<'_> {
        PageTables::new(self.0.firmware_port())
    }

    /// Takes the fault records of what the IOMMU has refused: at most 64, the oldest first, and
    /// the number of those that were dropped because there was no room.
    pub fn take_faults(&self) -> Faults {
        self.0.faults.take()
    }

    /// Takes the oldest of those records, and the number of records dropped since the last call.
    #[doc(hidden)]
    pub fn take_fault(&self) -> Option<(Fault, u64)> {
        self.0.faults.take_one()
    }

    /// The drain policy of changes of regions, of devices that are attached to no domain, and of
    /// domains without a policy of their own (decision 15).
    pub fn drain_policy(&self) -> DrainPolicy {
        self.0.policy
    }

    /// Whether host-contiguous maps accept memory whose host-physical address can change
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
