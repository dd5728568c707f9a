//! Where things are in guest-physical memory.

use gasp::{Guest, GuestPhys, MemoryObject, Operation, Region, RegionKind, Result, Span};

/// The first address of the hole below 4 GiB, where RAM ends: the rest is for registers.
pub const HOLE: GuestPhys = GuestPhys(3 << 30);
/// The first address after the hole, where the RAM that is left continues.
pub const HIGH: GuestPhys = GuestPhys(4 << 30);
/// Where the base address registers of PCI devices are that have to lie below 4 GiB, and how many
/// bytes there are.
pub const PCI_MEMORY: (GuestPhys, u64) = (GuestPhys(0xc000_0000), 512 << 20);
/// The configuration space of PCI bus 0 (ECAM), and its length.
pub const PCI_CONFIG: (GuestPhys, u64) = (GuestPhys(0xe000_0000), 1 << 20);
/// The ports of PCI devices: the first, and how many.
pub const PCI_PORTS: (u16, u16) = (0x1000, 0xf000);
/// How many bytes there are for the base address registers of PCI devices past the end of RAM.
pub const PCI_HIGH_MEMORY: u64 = 64 << 30;
/// The I/O APIC of KVM.
pub const IO_APIC: GuestPhys = GuestPhys(0xfec0_0000);
/// The registers of the guest's IOMMU: one page.
pub const IOMMU: GuestPhys = GuestPhys(0xfed9_0000);
/// The local APICs of KVM.
pub const LOCAL_APIC: GuestPhys = GuestPhys(0xfee0_0000);
/// One page that KVM itself uses on Intel's processors, for real mode.
pub(crate) const IDENTITY_MAP: GuestPhys = GuestPhys(0xfffb_c000);
/// Three pages that KVM itself uses on Intel's processors, for real mode.
pub(crate) const TASK_STATE: GuestPhys = GuestPhys(0xfffb_d000);

/// The ranges of `len` bytes of RAM: from 0 on up to the hole, and the rest from 4 GiB on.
///
/// ```
/// use gasp_vm::layout::ram_ranges;
/// assert_eq!(ram_ranges(512 << 20).collect::<Vec<_>>(), [(0, 512 << 20)]);
/// assert_eq!(ram_ranges(4 << 30).collect::<Vec<_>>(), [(0, 3 << 30), (4 << 30, 1 << 30)]);
/// ```
pub fn ram_ranges(len: u64) -> impl Iterator<Item = (u64, u64)> {
    let low = len.min(HOLE.0);
    [(0, low), (HIGH.0, len - low)].into_iter().filter(|&(_, len)| len > 0)
}

/// Adds all of `object` to the guest as RAM, around the [hole](HOLE) below 4 GiB.
///
/// # Errors
/// As [`AddressSpace::add`](gasp::AddressSpace::add). Nothing is added then.
pub fn add_ram(guest: &Guest, object: &MemoryObject) -> Result<()> {
    let lock = guest.space().lock()?;
    let mut added: Vec<Span<GuestPhys>> = Vec::new();
    let mut offset = 0;
    for (start, len) in ram_ranges(object.len()) {
        let fail = |reason| gasp::Error::new(Operation::SetRegion, GuestPhys(start), len, reason);
        let span = Span::new(GuestPhys(start), len).map_err(fail)?;
        let region = Region::memory(RegionKind::Ram, span, object, offset).map_err(fail)?;
        if let Err(error) = lock.add(region) {
            for span in added {
                // It was added a moment ago under the same lock.
                drop(lock.remove(span));
            }
            return Err(error);
        }
        added.push(span);
        offset += len;
    }
    Ok(())
}
