//! The guest of the demo: RAM, a ROM, and two devices behind an IOMMU.

use gasp::{
    Access, Domain, DomainKind, DomainOptions, Guest, GuestPhys, MemoryObject, Result, Span,
    Unattached, Vdev,
};

use crate::waiting::Waiting;

/// A guest with 1 GiB of RAM, as the demo needs it.
pub(super) struct Scene {
    pub(super) guest: Guest,
    pub(super) ram: MemoryObject,
    pub(super) ram_at: GuestPhys,
    pub(super) rom: MemoryObject,
    pub(super) rom_at: GuestPhys,
    pub(super) disk: Vdev,
    pub(super) disk_domain: Domain,
    /// What `disk` may read and write.
    pub(super) disk_range: Span<GuestPhys>,
    pub(super) net: Vdev,
    /// What `net` may read.
    pub(super) net_range: Span<GuestPhys>,
}

/// How long the ROM is.
const ROM_LEN: u64 = 256 << 10;
/// What it begins with.
const ROM_BYTES: &[u8] = b"\x55\xaa gasp demo ROM: a guest would begin here";

impl Scene {
    /// Makes the guest, with `len` bytes of RAM. The first half of it is for `disk`, the
    /// quarter behind that for `net`, the last quarter for neither.
    pub(super) fn build(len: u64) -> Result<Self> {
        let mut waiting = Waiting::new();
        let mut note = |progress| waiting.note(progress);
        let ram = MemoryObject::ram(len).name("ram").progress(&mut note).create()?;
        drop(waiting);

        let guest = Guest::builder().name("demo").iommu(Unattached::Deny).build()?;
        let ram_at = guest.space().add_ram(Some(GuestPhys(0)), &ram)?;
        let rom = MemoryObject::ram(ROM_LEN).name("rom").create()?;
        rom.write_at(0, ROM_BYTES)?;
        let rom_at = guest.space().add_rom(None, &rom)?;

        let (half, quarter) = (len / 2, len / 4);
        let span = |start, len| {
            Span::new(GuestPhys(start), len).map_err(|reason| {
                gasp::Error::new(gasp::Operation::Create, GuestPhys(start), len, reason)
            })
        };
        let (disk_range, net_range) = (span(ram_at.0, half)?, span(ram_at.0 + half, quarter)?);
        let (disk, disk_domain) = device(&guest, "disk")?;
        disk_domain.allow(disk_range.start(), disk_range.len(), Access::RW)?;
        // Nobody writes ROM, whatever the IOMMU says: `disk` will try.
        disk_domain.allow(rom_at, ROM_LEN, Access::RW)?;
        let (net, net_domain) = device(&guest, "net")?;
        net_domain.allow(net_range.start(), net_range.len(), Access::READ)?;
        Ok(Self { guest, ram, ram_at, rom, rom_at, disk, disk_domain, disk_range, net, net_range })
    }
}

/// A device, in a domain of its own where device addresses are guest-physical ones.
fn device(guest: &Guest, name: &str) -> Result<(Vdev, Domain)> {
    let vdev = guest.vdev(name)?;
    let domain = guest.domain(name, DomainOptions::new(DomainKind::Identity))?;
    vdev.attach(&domain)?.wait();
    Ok((vdev, domain))
}
