//! The guest that receives bad input, and the numbers that it receives.

use gasp::{
    Access, DeviceAddr, Domain, DomainKind, Guest, GuestPhys, MapFlags, MemoryObject, Unattached,
    Vdev,
};

use crate::support::*;

/// Numbers at which arithmetic goes wrong.
pub(crate) const EDGES: [u64; 24] = [
    0,
    1,
    4095,
    4096,
    4097,
    HUGE - 1,
    HUGE,
    HUGE + 1,
    1 << 30,
    u32::MAX as u64,
    1 << 32,
    (1 << WIDTH) - 1,
    1 << WIDTH,
    (1 << 47) - 1,
    1 << 47,
    (1 << 48) - 1,
    1 << 48,
    (1 << 52) - 1,
    1 << 52,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 4096,
    u64::MAX - 4095,
    u64::MAX,
];

/// The address width of the guest in bits: many of the edges are inside, many beyond.
pub(crate) const WIDTH: u32 = 36;

pub(crate) struct World {
    pub(crate) guest: Guest,
    pub(crate) ram: MemoryObject,
    pub(crate) domains: [(Vdev, Domain); 2],
}

impl World {
    pub(crate) fn new() -> Self {
        let guest = Guest::builder().iommu(Unattached::Deny).drain(patient());
        let guest = guest.address_width(WIDTH).build().unwrap();
        let memory = ram(16 * PAGE);
        guest.space().add_ram(None, &memory).unwrap();
        guest.space().add_rom(None, &ram(PAGE)).unwrap();
        let kinds = [DomainKind::Identity, DomainKind::Translate];
        let domains = kinds.map(|kind| device(&guest, kind.name(), kind));
        for (_, domain) in &domains {
            domain.grant_identity(GuestPhys(PAGE), 8 * PAGE, Access::READ).unwrap();
        }
        Self { guest, ram: memory, domains }
    }

    /// Maps in every way. A mapping must be as long as requested, or shorter if the call
    /// allows that; nothing may change, whatever the result.
    pub(crate) fn map_in_every_way(&self, addr: u64, len: u64, flags: MapFlags) {
        for vdev in self.domains.iter().map(|(vdev, _)| vdev) {
            if let Ok(mapping) = vdev.map(DeviceAddr(addr), len, flags) {
                assert_eq!(mapping.len() as u64, len);
            }
            let whole = vdev.map_host_contig(DeviceAddr(addr), len, flags);
            let part = vdev.map_host_contig_truncated(DeviceAddr(addr), len, flags);
            for mapping in [whole, part].into_iter().flatten() {
                assert!((1..=len).contains(&(mapping.len() as u64)));
            }
            if let Ok(scatter) = vdev.map_scatter(DeviceAddr(addr), len, flags) {
                assert_eq!(scatter.len() as u64, len);
                let pieces: usize = scatter.pieces().map(|piece| piece.len()).sum();
                assert_eq!(pieces, scatter.len());
            }
            if let Ok(stitched) = vdev.map_stitched(DeviceAddr(addr), len, flags) {
                assert_eq!(stitched.len() as u64, len);
            }
            let mut bytes = vec![0; len.min(1 << 17) as usize];
            let _ = vdev.read(DeviceAddr(addr), &mut bytes);
            assert!(vdev.write(DeviceAddr(addr), &bytes).is_err(), "nothing may be written");
        }
        if let Ok(mapping) = self.guest.map_firmware(GuestPhys(addr), len, flags) {
            assert_eq!(mapping.len() as u64, len);
        }
    }
}
