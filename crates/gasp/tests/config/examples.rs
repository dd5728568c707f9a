//! The examples of `examples/guest`: each builds the guest that it describes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use gasp::config::Config;
use gasp::{Access, Backing, DeviceAddr, DomainKind, Guest, GuestPhys, MapFlags};
use gasp::{RegionKind, Stability};

use crate::{EXAMPLES, parse};

fn example(name: &str) -> Guest {
    let config = Config::load(&Path::new(EXAMPLES).join(name)).unwrap();
    assert_eq!(format!("{}.toml", config.name()), name, "the guest is named after its file");
    config.build(None).unwrap()
}

/// Kind, start and size of each region.
fn regions(guest: &Guest) -> Vec<(RegionKind, u64, u64)> {
    let regions = guest.space().regions();
    regions.iter().map(|r| (r.kind(), r.span().start().0, r.span().len())).collect()
}

/// The name and the kind of a device's domain.
fn domain_of(guest: &Guest, vdev: &str) -> Option<(String, DomainKind)> {
    let domain = guest.find_vdev(vdev).unwrap().domain()?;
    Some((domain.name().to_owned(), domain.kind()))
}

/// The errno of a map; `None` if it succeeds.
fn refusal(
    guest: &Guest,
    vdev: &str,
    addr: u64,
    len: u64,
    flags: MapFlags,
) -> Option<&'static str> {
    let vdev = guest.find_vdev(vdev).unwrap();
    vdev.map(DeviceAddr(addr), len, flags).err().map(|error| error.errno_name())
}

#[test]
fn every_example_is_tested() {
    const TESTED: [&str; 11] = [
        "demo.toml",
        "drain.toml",
        "iommu-identity.toml",
        "iommu-translate.toml",
        "iommu-unattached.toml",
        "machine.toml",
        "pass-through.toml",
        "ram-backing.toml",
        "reserve.toml",
        "rom.toml",
        "unpinned.toml",
    ];
    let files = fs::read_dir(EXAMPLES).unwrap().map(|entry| entry.unwrap().file_name());
    let names = files.map(|name| name.into_string().unwrap());
    // The files of `gasp serve` have another format, and are tested with it.
    let served = ["dma.toml", "nvme.toml"];
    let names = names.filter(|name| !served.contains(&name.as_str()));
    let mut found: Vec<String> = names.filter(|name| name.ends_with(".toml")).collect();
    found.sort();
    assert_eq!(found, TESTED);
}

#[test]
fn demo_has_two_devices_with_different_grants() {
    let guest = example("demo.toml");
    assert_eq!(guest.address_width(), 40);
    assert_eq!(
        regions(&guest),
        [
            (RegionKind::Ram, 0, 1 << 30),
            (RegionKind::Device, 0xe000_0000, 4096),
            (RegionKind::Rom, 0xffff_f000, 4096),
        ]
    );
    let registers = guest.space().region_at(GuestPhys(0xe000_0000)).unwrap();
    assert_eq!(registers.owner(), Some("disk"));
    let mut start = [0; 4];
    guest.read_firmware(GuestPhys(0xffff_f000), &mut start).unwrap();
    assert_eq!(&start, b"gasp");

    assert_eq!(domain_of(&guest, "disk"), Some(("disk".into(), DomainKind::Identity)));
    assert_eq!(refusal(&guest, "disk", 0, 16 << 20, MapFlags::READ), None);
    assert_eq!(refusal(&guest, "disk", 0x100000, 15 << 20, MapFlags::RW), None);
    assert_eq!(refusal(&guest, "disk", 0xff000, 0x2000, MapFlags::RW), Some("EFAULT"));
    assert_eq!(refusal(&guest, "disk", 0x10000, (16 << 20) + 1, MapFlags::READ), Some("EFAULT"));
    let rom = MapFlags::RW.any();
    assert_eq!(refusal(&guest, "disk", 0xffff_f000, 4096, rom), Some("EACCES"));

    assert_eq!(domain_of(&guest, "net"), Some(("net".into(), DomainKind::Translate)));
    assert_eq!(refusal(&guest, "net", 0x20000, 0x10000, MapFlags::RW), None);
    assert_eq!(refusal(&guest, "net", 0x10000, 4096, MapFlags::RW), Some("EFAULT"));
    assert_eq!(refusal(&guest, "net", 0x10000, 0x20000, MapFlags::READ), Some("ENXIO"));
    assert_eq!(refusal(&guest, "net", 0x1400000, 4096, MapFlags::READ), Some("EFAULT"));
    guest.write_firmware(GuestPhys(0x1800000), b"second").unwrap();
    let mut bytes = [0; 6];
    guest.find_vdev("net").unwrap().read(DeviceAddr(0x20000), &mut bytes).unwrap();
    assert_eq!(&bytes, b"second");
}

#[test]
fn ram_backing_tries_the_pages_that_it_lists() {
    let guest = example("ram-backing.toml");
    let regions = guest.space().regions();
    let rams: Vec<_> = regions.iter().map(|region| region.object().unwrap()).collect();
    let names: Vec<_> = rams.iter().map(|ram| ram.name()).collect();
    assert_eq!(names, ["fast", "plain", "lazy"]);
    let starts: Vec<_> = regions.iter().map(|region| region.span().start().0).collect();
    assert_eq!(starts, [0, 32 << 20, 1 << 30], "without `start` it follows the last one");
    let tried = rams[0].backing().passed_over.iter().map(|passed| passed.backing);
    let tried: Vec<_> = tried.chain([rams[0].backing().obtained]).collect();
    assert!(Backing::PREFERENCE.starts_with(&tried), "{tried:?}");
    assert_eq!(rams[1].backing().obtained, Backing::Base);
    assert_eq!(rams[1].stability(), Stability::Unpinned);
    assert_eq!(rams[2].host_run(0, 4096).unwrap_err().errno_name(), "EPERM");
}

#[test]
fn rom_is_filled_from_its_file_and_cannot_be_written() {
    let guest = example("rom.toml");
    assert_eq!(
        regions(&guest),
        [
            (RegionKind::Ram, 0, 16 << 20),
            (RegionKind::Rom, 0xffff_f000, 4096),
            (RegionKind::Rom, 0x1_0000_0000, 0x10000),
        ]
    );
    let any = MapFlags::READ.any();
    let rom = guest.map_firmware(GuestPhys(0x1_0000_0000), 0x10000, any).unwrap();
    let mut bytes = vec![0xee; 0x10000];
    rom.read_at(0, &mut bytes).unwrap();
    let image = fs::read(Path::new(EXAMPLES).join("rom.bin")).unwrap();
    assert!(bytes.starts_with(&image));
    assert!(bytes[image.len()..].iter().all(|&byte| byte == 0));
    let error = guest.map_firmware(GuestPhys(0xffff_f000), 1, MapFlags::RW.any()).unwrap_err();
    assert_eq!(error.errno_name(), "EACCES");
}

#[test]
fn reserve_keeps_addresses_free() {
    let guest = example("reserve.toml");
    assert_eq!(
        regions(&guest),
        [
            (RegionKind::Ram, 0, 16 << 20),
            (RegionKind::Reserved, 0xfec0_0000, 4 << 20),
            (RegionKind::Ram, 1 << 32, 16 << 20),
        ]
    );
}

#[test]
fn pass_through_knows_the_declared_address_and_offers_only_its_access() {
    let guest = example("pass-through.toml");
    let vdev = guest.vdev("gpu").unwrap();
    let addr = DeviceAddr(0xd000_0010);
    let run = vdev.map_host_contig(addr, 0x100, MapFlags::READ.any()).unwrap();
    assert_eq!((run.host_run().unwrap().addr.0, run.len()), (0xfd00_0010, 0x100));
    assert_eq!(refusal(&guest, "gpu", addr.0, 1, MapFlags::READ), Some("ENXIO"));
    assert_eq!(refusal(&guest, "gpu", addr.0, 1, MapFlags::RW.any()), Some("EACCES"));
    let exec = MapFlags::new(Access::EXEC).unwrap().any();
    assert_eq!(refusal(&guest, "gpu", addr.0, 1, exec), Some("EACCES"));
}

#[test]
fn iommu_identity_allows_what_its_grants_say() {
    let guest = example("iommu-identity.toml");
    assert_eq!(domain_of(&guest, "disk"), Some(("disk".into(), DomainKind::Identity)));
    assert_eq!(guest.find_domain("disk").unwrap().grants().len(), 3);
    assert_eq!(refusal(&guest, "disk", 0, 2 << 20, MapFlags::READ), None);
    assert_eq!(refusal(&guest, "disk", 0, 1 << 20, MapFlags::RW), Some("EFAULT"));
    assert_eq!(refusal(&guest, "disk", 1 << 20, 1 << 20, MapFlags::RW), None);
    assert_eq!(refusal(&guest, "disk", 2 << 20, 1, MapFlags::READ), Some("EFAULT"));
    assert_eq!(refusal(&guest, "disk", 1 << 30, 1, MapFlags::READ), Some("ENXIO"), "a hole");
}

#[test]
fn iommu_translate_leads_elsewhere_and_keeps_its_limit() {
    let guest = example("iommu-translate.toml");
    assert_eq!(domain_of(&guest, "net"), Some(("net".into(), DomainKind::Translate)));
    let net = guest.find_vdev("net").unwrap();
    net.write(DeviceAddr(0x13ff0), b"packet").unwrap();
    let mut bytes = [0; 6];
    guest.read_firmware(GuestPhys(0x801ff0), &mut bytes).unwrap();
    assert_eq!(&bytes, b"packet");
    assert_eq!(refusal(&guest, "net", 0x10000, 1, MapFlags::WRITE), Some("EFAULT"));
    let domain = guest.find_domain("net").unwrap();
    let one = |page: u64| {
        domain.grant(DeviceAddr(page << 13), GuestPhys(0), 4096, Access::READ).map(|()| page)
    };
    let granted = (0x100..).map_while(|page| one(page).ok()).count();
    assert_eq!(granted, 1020, "four entries are the file's");
    assert_eq!(one(0).unwrap_err().errno_name(), "ENOSPC");
}

#[test]
fn iommu_unattached_and_the_kinds_without_grants() {
    let guest = example("iommu-unattached.toml");
    assert_eq!(domain_of(&guest, "legacy"), None);
    assert_eq!(domain_of(&guest, "trusted"), Some(("everything".into(), DomainKind::Bypass)));
    assert_eq!(domain_of(&guest, "blocked"), Some(("nothing".into(), DomainKind::Deny)));
    for (vdev, want) in [("legacy", None), ("trusted", None), ("blocked", Some("EFAULT"))] {
        assert_eq!(refusal(&guest, vdev, 0, 4096, MapFlags::RW), want, "{vdev}");
    }
    let denied = parse("[iommu]\n[[ram]]\nsize = '1M'\n[[vdev]]\nname = 'a'").unwrap();
    let denied = denied.build(None).unwrap();
    assert_eq!(refusal(&denied, "a", 0, 4096, MapFlags::READ), Some("EFAULT"), "the default");
}

#[test]
fn drain_waits_as_long_as_its_domain_says() {
    let guest = example("drain.toml");
    let net = guest.find_vdev("net").unwrap();
    let held = net.map(DeviceAddr(0), 4096, MapFlags::RW).unwrap();
    let quick = guest.find_domain("quick").unwrap();
    let ended = quick.revoke(DeviceAddr(0), 4096).unwrap().wait();
    assert_eq!((ended.holders, ended.detached), (1, 1));
    assert!(ended.waited >= Duration::from_millis(10) && held.is_revoked());
}

#[test]
fn unpinned_accepts_addresses_that_can_change() {
    let guest = example("unpinned.toml");
    assert!(guest.allows_unpinned());
    let region = guest.space().region_at(GuestPhys(0)).unwrap();
    assert_eq!(region.object().unwrap().stability(), Stability::Unpinned);
}
