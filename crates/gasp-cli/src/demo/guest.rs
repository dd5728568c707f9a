//! The guest of the demo: that of `examples/guest/demo.toml`, which is compiled in.

use std::error::Error as _;
use std::path::Path;

use gasp::config::{Config, ConfigError};
use gasp::{
    Bytes, DeviceAddr, Domain, Grant, Guest, GuestPhys, MemoryObject, RegionKind, Span, Vdev,
};

use crate::failure::Failure;
use crate::progress::Progress;

/// The guest, and the parts of it that the demo uses.
pub(super) struct DemoGuest {
    pub(super) guest: Guest,
    /// All RAM, with its guest-physical addresses; one object unless it is large.
    pub(super) ram: Vec<(GuestPhys, MemoryObject)>,
    pub(super) rom: MemoryObject,
    pub(super) rom_at: GuestPhys,
    pub(super) disk: Vdev,
    pub(super) disk_domain: Domain,
    /// The range that `disk` may read and write.
    pub(super) disk_range: Span<GuestPhys>,
    pub(super) net: Vdev,
    /// The range that `net` may only read, by device address and guest-physical address.
    pub(super) net_at: DeviceAddr,
    pub(super) net_range: Span<GuestPhys>,
}

/// The configuration file.
const CONFIG: &str = include_str!("demo.toml");
/// Its ROM image.
const IMAGE: &[u8] = include_bytes!("rom.bin");
/// The line of the configuration with the size of its RAM.
const RAM: &str = "size = \"1G\"";
/// RAM beyond this size is placed above 4 GiB, as on a PC: registers and ROM are in between.
const RAM_LOW: u64 = 3 << 30;

/// The least RAM: the devices' grants lead to memory below this.
pub(crate) const RAM_MIN: u64 = 32 << 20;
/// The most RAM: the guest's addresses end at 1 TiB, and 1 GiB of them is not RAM.
pub(crate) const RAM_MAX: u64 = (1 << 40) - (1 << 30);

impl DemoGuest {
    /// Creates the guest, with `len` bytes of RAM instead of the configured size.
    pub(super) fn build(len: u64) -> Result<Self, Failure> {
        let progress = Progress::start("creating the guest");
        let mut note = |so_far| progress.ram(so_far);
        let guest = config(len)
            .and_then(|config| config.build(Some(&mut note)))
            .map_err(|error| refused(len, &error))?;
        drop(progress);
        let memory = |kind| -> Vec<(GuestPhys, MemoryObject)> {
            let regions = guest.space().regions().into_iter();
            let of_kind = regions.filter(|region| region.kind() == kind);
            of_kind.filter_map(|it| Some((it.span().start(), it.object()?.clone()))).collect()
        };
        let ram = memory(RegionKind::Ram);
        let rom = memory(RegionKind::Rom).pop();
        let (rom_at, rom) = rom.ok_or_else(|| lacks("ROM"))?;
        let disk = guest.find_vdev("disk").ok_or_else(|| lacks("disk"))?;
        let net = guest.find_vdev("net").ok_or_else(|| lacks("net"))?;
        let disk_domain = disk.domain().ok_or_else(|| lacks("domain of the disk"))?;
        let writable = |grant: &Grant| grant.access.contains(gasp::Access::WRITE);
        let disk_grant = disk_domain.grants().into_iter().find(writable);
        let disk_grant = disk_grant.ok_or_else(|| lacks("grant that lets the disk write"))?;
        let net_grants = net.domain().map(|domain| domain.grants()).unwrap_or_default();
        let net_grant = net_grants.into_iter().find(|grant| !writable(grant));
        let net_grant = net_grant.ok_or_else(|| lacks("grant that lets net only read"))?;
        let span = |grant: &Grant| Span::new(grant.guest, grant.device.len());
        let (Ok(disk_range), Ok(net_range)) = (span(&disk_grant), span(&net_grant)) else {
            return Err(lacks("range"));
        };
        let net_at = net_grant.device.start();
        Ok(Self { guest, ram, rom, rom_at, disk, disk_domain, disk_range, net, net_at, net_range })
    }
}

fn config(len: u64) -> Result<Config, ConfigError> {
    let mut text = CONFIG.replacen(RAM, &format!("size = {}", len.min(RAM_LOW)), 1);
    if let Some(more) = len.checked_sub(RAM_LOW).filter(|more| *more > 0) {
        text.push_str(&format!("\n[[ram]]\nname = \"high\"\nstart = \"4G\"\nsize = {more}\n"));
    }
    Config::included(&text, Path::new("examples/guest/demo.toml"), &[("rom.bin", IMAGE)])
}

/// The configuration is correct, so the error is about the machine and `--ram`.
fn refused(len: u64, error: &ConfigError) -> Failure {
    match error.source().and_then(|source| source.downcast_ref::<gasp::Error>()) {
        Some(engine) => Failure::Refused(engine.clone()),
        None => Failure::Unavailable {
            errno: error.errno(),
            message: format!("a guest with {:#} of RAM: {}", Bytes(len), error.message()),
        },
    }
}

fn lacks(what: &str) -> Failure {
    Failure::Usage(format!("the guest of examples/guest/demo.toml has no {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_valid_with_any_permitted_size_of_ram() {
        assert_eq!(CONFIG.matches(RAM).count(), 1);
        for len in [RAM_MIN, RAM_MIN + (1 << 20), 1 << 30, RAM_LOW, 64 << 30, RAM_MAX] {
            config(len).unwrap();
        }
        assert!(config(RAM_MIN - (8 << 20)).is_err());
    }

    #[test]
    fn the_scene_matches_the_configuration() {
        let demo = DemoGuest::build(RAM_MIN).unwrap();
        let ram: Vec<_> = demo.ram.iter().map(|(at, ram)| (at.0, ram.len())).collect();
        assert_eq!((ram, demo.rom_at), (vec![(0, RAM_MIN)], GuestPhys(0xffff_f000)));
        assert_eq!(demo.disk_range.start(), GuestPhys(0x10_0000));
        assert_eq!(demo.net_at, DeviceAddr(0x1_0000));
        assert_eq!(demo.net_range.start(), GuestPhys(0x140_0000));
    }
}
