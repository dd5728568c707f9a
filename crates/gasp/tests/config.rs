//! Configuration files: the examples do what they say, wrong files are refused with the
//! line, the key and what was expected, and no text does harm.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gasp::config::{Config, ConfigError};
use gasp::{Access, Backing, DeviceAddr, DomainKind, Errno, Guest, GuestPhys, MapFlags};
use gasp::{RegionKind, Stability};
use proptest::prelude::*;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/guest");

fn example(name: &str) -> Guest {
    let config = Config::load(&Path::new(EXAMPLES).join(name)).unwrap();
    assert_eq!(format!("{}.toml", config.name()), name, "the guest is called as its file");
    config.build(None).unwrap()
}

/// Kind, start and size of each region.
fn regions(guest: &Guest) -> Vec<(RegionKind, u64, u64)> {
    let regions = guest.space().regions();
    regions.iter().map(|r| (r.kind(), r.span().start().0, r.span().len())).collect()
}

/// A device's first domain, and the kind of that.
fn domain_of(guest: &Guest, vdev: &str) -> Option<(String, DomainKind)> {
    let domain = guest.find_vdev(vdev).unwrap().domain()?;
    Some((domain.name().to_owned(), domain.kind()))
}

/// `None` where the map succeeds.
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

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("test.toml"))
}

/// A new folder for one test.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("config").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn every_example_is_tested() {
    const TESTED: [&str; 10] = [
        "demo.toml",
        "drain.toml",
        "iommu-identity.toml",
        "iommu-translate.toml",
        "iommu-unattached.toml",
        "pass-through.toml",
        "ram-backing.toml",
        "reserve.toml",
        "rom.toml",
        "unpinned.toml",
    ];
    let files = fs::read_dir(EXAMPLES).unwrap().map(|entry| entry.unwrap().file_name());
    let names = files.map(|name| name.into_string().unwrap());
    // What `gasp serve` reads is of another format, and tested with it.
    let served = ["dma.toml", "nvme.toml"];
    let names = names.filter(|name| !served.contains(&name.as_str()));
    let mut found: Vec<String> = names.filter(|name| name.ends_with(".toml")).collect();
    found.sort();
    assert_eq!(found, TESTED);
}

#[test]
fn demo_has_two_devices_with_different_rules() {
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
fn a_rom_image_can_be_in_the_program() {
    let text = "[[rom]]\nstart = 0x1000\nfile = 'rom.bin'";
    let images: &[(&str, &[u8])] = &[("rom.bin", b"in the program")];
    let guest = Config::included(text, Path::new("/no/such/a.toml"), images).unwrap();
    let guest = guest.build(None).unwrap();
    let mut bytes = [0; 15];
    guest.read_firmware(GuestPhys(0x1000), &mut bytes).unwrap();
    assert_eq!(&bytes, b"in the program\0");
    for images in [&[("other.bin", b"x" as &[u8])], &[("rom.bin", b"" as &[u8])]] {
        let error = Config::included(text, Path::new("/no/such/a.toml"), images).unwrap_err();
        assert_eq!(error.errno(), Errno::NOENT, "what is not in the program is a file: {error}");
    }
}

#[test]
fn ram_backing_tries_the_pages_that_it_lists() {
    let guest = example("ram-backing.toml");
    let regions = guest.space().regions();
    let rams: Vec<_> = regions.iter().map(|region| region.object().unwrap()).collect();
    let names: Vec<_> = rams.iter().map(|ram| ram.name()).collect();
    assert_eq!(names, ["fast", "plain", "lazy"]);
    let starts: Vec<_> = regions.iter().map(|region| region.span().start().0).collect();
    assert_eq!(starts, [0, 32 << 20, 1 << 30], "without `start` it goes behind the last one");
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
    let at = DeviceAddr(0xd000_0010);
    let run = vdev.map_host_contig(at, 0x100, MapFlags::READ.any()).unwrap();
    assert_eq!((run.host_run().unwrap().addr.0, run.len()), (0xfd00_0010, 0x100));
    assert_eq!(refusal(&guest, "gpu", at.0, 1, MapFlags::READ), Some("ENXIO"));
    assert_eq!(refusal(&guest, "gpu", at.0, 1, MapFlags::RW.any()), Some("EACCES"));
    let exec = MapFlags::new(Access::EXEC).unwrap().any();
    assert_eq!(refusal(&guest, "gpu", at.0, 1, exec), Some("EACCES"));
}

#[test]
fn a_writable_window_reaches_its_file_at_its_offset() {
    let folder = folder("window");
    fs::write(folder.join("window"), vec![0; 0x3000]).unwrap();
    let text =
        "[[pass]]\nstart = 0x10000\nsize = '8K'\nhost = '4G'\noffset = 0x1000\npath = 'window'";
    let guest = Config::parse(text, &folder.join("a.toml")).unwrap().build(None).unwrap();
    let vdev = guest.vdev("gpu").unwrap();
    let window = vdev.map(DeviceAddr(0x10ffe), 4, MapFlags::RW.any()).unwrap();
    window.write_at(0, b"here").unwrap();
    assert_eq!(&fs::read(folder.join("window")).unwrap()[0x1ffe..0x2002], b"here");
}

#[test]
fn iommu_identity_allows_what_its_rules_say() {
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
fn iommu_unattached_and_the_kinds_without_rules() {
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

#[test]
fn an_empty_file_is_a_guest_with_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.name(), "guest");
    let guest = config.build(None).unwrap();
    assert_eq!(guest.address_width(), 48);
    assert!(!guest.allows_unpinned());
    assert!(guest.space().regions().is_empty());
}

#[test]
fn build_tells_how_far_ram_has_come() {
    let config = parse("[[ram]]\nsize = '1M'\nbacking = ['4K']\n[[ram]]\nsize = '2M'").unwrap();
    let mut done = Vec::new();
    config.build(Some(&mut |progress| done.push((progress.done, progress.total)))).unwrap();
    assert_eq!(done.first(), Some(&(1 << 20, 1 << 20)));
    assert_eq!(done.last(), Some(&(2 << 20, 2 << 20)));
}

#[test]
fn a_domain_without_a_deadline_takes_the_guests() {
    let text = "[drain]\ndeadline-ms = 0\n[iommu]\n[[ram]]\nsize = '1M'\n[[vdev]]\nname = 'a'\n\
                domain = 'a'\n[[domain]]\nname = 'a'\nkind = 'identity'\n\
                drain = { at-deadline = 'detach' }\n\
                allow = [{ start = 0, size = 1, access = 'r' }]";
    let guest = parse(text).unwrap().build(None).unwrap();
    let held = guest.find_vdev("a").unwrap().map(DeviceAddr(0), 1, MapFlags::READ).unwrap();
    let ended = guest.find_domain("a").unwrap().revoke(DeviceAddr(0), 1).unwrap().wait();
    assert!(ended.waited < Duration::from_millis(500) && held.is_revoked());
}

/// A wrong file: its text, and the line, key and part of the message of the error.
type Wrong = (&'static str, usize, &'static str, &'static str, Errno);

fn assert_wrong(path: &Path, found: Option<ConfigError>, wrong: Wrong) {
    let (text, line, key, part, errno) = wrong;
    let error = found.unwrap_or_else(|| panic!("accepted: {text}"));
    let printed = error.to_string();
    assert_eq!(error.line(), Some(line), "{text}\n{printed}");
    assert_eq!(error.key().unwrap_or_default(), key, "{text}\n{printed}");
    assert!(error.message().contains(part), "`{part}` is missing in: {printed}\n{text}");
    assert_eq!(error.errno(), errno, "{printed}");
    assert_eq!(error.path(), path);
    let place = match key {
        "" => format!("{}:{line}: ", path.display()),
        key => format!("{}:{line}: {key}: ", path.display()),
    };
    assert_eq!(printed, format!("{place}{}", error.message()));
}

#[test]
fn a_file_that_is_wrong_in_itself_names_line_key_and_what_was_expected() {
    use Errno as E;
    let wrong: &[Wrong] = &[
        // Not TOML, or not these keys and types.
        ("[guest\n", 1, "", "expected `]`", E::INVAL),
        ("[guest]\n\nname = \n", 3, "", "must be quoted", E::INVAL),
        ("[guest]\nname = 'a'\nname = 'b'", 3, "name", "duplicate key", E::INVAL),
        ("[gest]\n", 1, "gest", "unknown key `gest`; did you mean `guest`?", E::INVAL),
        (
            "[[ram]]\nsize = '1M'\n\nsise = 3",
            4,
            "ram.sise",
            "unknown key `sise`; did you mean `size`?",
            E::INVAL,
        ),
        (
            "[[ram]]\nsize = '1M'\ncolour = 3",
            3,
            "ram.colour",
            "; there are `start`, `size`",
            E::INVAL,
        ),
        (
            "[[ram]]\nsize = '1M'\nresidency = 'pined'",
            3,
            "ram.residency",
            "mean \"pinned\"?",
            E::INVAL,
        ),
        ("[iommu]\nunatached = 'deny'", 2, "iommu.unatached", "mean `unattached`?", E::INVAL),
        ("[[vdev]]\nname = 'a'\ndomain = 'disk'", 3, "vdev.domain", "; there is none", E::NOENT),
        (
            "[[vdev]]\nname = 'disk'\n[[mmio]]\nstart = 0\nsize = '4K'\nvdev = 'dsik'",
            6,
            "mmio.vdev",
            "no [[vdev]] with the name `dsik`; did you mean `disk`?",
            E::NOENT,
        ),
        ("[[ram]]\nsize = '1M'\n[[ram]]\nstart = 0", 3, "ram.size", "missing", E::INVAL),
        ("[ram]\nsize = '1M'", 1, "ram", "[[ram]]", E::INVAL),
        ("ram = 5", 1, "ram", "write [[ram]]", E::INVAL),
        ("[guest]\nname = 5", 2, "guest.name", "expected a string", E::INVAL),
        ("[guest]\nallow-unpinned = 'no'", 2, "guest.allow-unpinned", "boolean", E::INVAL),
        ("[guest]\nallow_unpinned = true", 2, "guest.allow_unpinned", "unknown", E::INVAL),
        // Values.
        ("[guest]\nname = ''", 2, "guest.name", "expected a name", E::INVAL),
        ("[guest]\nname = \"a\\u001bb\"", 2, "guest.name", "control characters", E::INVAL),
        ("[guest]\naddress-width = 31", 2, "guest.address-width", "32 to 52", E::INVAL),
        ("[guest]\naddress-width = 53", 2, "guest.address-width", "32 to 52", E::INVAL),
        ("[guest]\naddress-width = -1", 2, "guest.address-width", "from 0 on", E::INVAL),
        ("[drain]\ndeadline-ms = 3600001", 2, "drain.deadline-ms", "3600000", E::INVAL),
        ("[drain]\nat-deadline = 'go'", 2, "drain.at-deadline", "\"wait\" or \"detach\"", E::INVAL),
        ("[iommu]\nunattached = 'x'", 2, "iommu.unattached", "\"deny\" or \"bypass\"", E::INVAL),
        ("[[ram]]\nsize = 0", 2, "ram.size", "more than 0 bytes", E::INVAL),
        ("[[ram]]\nsize = 4095", 2, "ram.size", "multiple of 4 KiB", E::INVAL),
        ("[[ram]]\nsize = -4096", 2, "ram.size", "`-4096`, expected bytes", E::INVAL),
        ("[[ram]]\nsize = '1Q'", 2, "ram.size", "\"1Q\", expected bytes", E::INVAL),
        ("[[ram]]\nsize = '16777216T'", 2, "ram.size", "below 2^64", E::INVAL),
        ("[[ram]]\nsize = 0x10000000000000000", 2, "ram.size", "bytes below 2^64", E::INVAL),
        ("[[ram]]\nsize = 1e9", 2, "ram.size", "expected bytes", E::INVAL),
        ("[[ram]]\nsize = '1M'\nstart = 1", 3, "ram.start", "multiple of 4 KiB", E::INVAL),
        ("[[ram]]\nsize = '1M'\nstart = '256T'", 3, "ram.start", "48 bits", E::NXIO),
        ("[[ram]]\nsize = '256T'\n[[ram]]\nsize = '1M'", 3, "ram.start", "48 bits", E::NXIO),
        ("[[ram]]\nstart = '4K'\nsize = '256T'", 3, "ram.size", "48 bits", E::NXIO),
        (
            "[[ram]]\nstart = 0xfffff000\nsize = 0xfffffffffffff000",
            3,
            "ram.size",
            "address width",
            E::NXIO,
        ),
        ("[[ram]]\nsize = '1M'\nbacking = []", 3, "ram.backing", "at least one", E::INVAL),
        ("[[ram]]\nsize = '1M'\nbacking = ['4K',\n'4M']", 4, "ram.backing", "\"4M\"", E::INVAL),
        ("[[ram]]\nsize = '1M'\nresidency = 'x'", 3, "ram.residency", "\"on-demand\"", E::INVAL),
        (
            "[[pass]]\nstart = 0\nsize = '4K'\nhost = 1\npath = '/dev/mem'",
            4,
            "pass.host",
            "multiple of 4 KiB",
            E::INVAL,
        ),
        (
            "[[pass]]\nstart = 0\nsize = '4K'\nhost = 0xfffffffffffff000\npath = 'x'",
            3,
            "pass.size",
            "extend past 64 bits",
            E::INVAL,
        ),
        (
            "[[pass]]\nstart = 0\nsize = '4K'\nhost = 0\npath = 'x'\naccess = 'rq'",
            6,
            "pass.access",
            "letters of r, w, x",
            E::INVAL,
        ),
        // Two things in one place, or of one name.
        (
            "[[ram]]\nsize = '1M'\n\n[[reserve]]\nstart = 0xff000\nsize = '4K'",
            5,
            "reserve.start",
            "[0xff000, 0xfffff] overlaps [0x0, 0xfffff] of line 1",
            E::EXIST,
        ),
        (
            "[[reserve]]\nstart = 0\nsize = '2M'\n[[ram]]\nsize = '1M'",
            4,
            "ram.start",
            "of line 2",
            E::EXIST,
        ),
        (
            "[[ram]]\nname = 'a'\nsize = '1M'\n[[ram]]\nname = 'a'\nsize = '1M'",
            5,
            "ram.name",
            "taken on line 2",
            E::EXIST,
        ),
        ("[[vdev]]\nname = 'a'\n[[vdev]]\nname = 'a'", 4, "vdev.name", "on line 2", E::EXIST),
        (
            "[iommu]\n[[domain]]\nname = 'a'\nkind = 'deny'\n[[domain]]\nname = 'a'\nkind = 'deny'",
            6,
            "domain.name",
            "on line 3",
            E::EXIST,
        ),
        // What is named but not there.
        ("[iommu]\n[[vdev]]\nname = 'a'\ndomain = 'b'", 4, "vdev.domain", "`b`", E::NOENT),
        ("[[mmio]]\nstart = 0\nsize = '4K'\nvdev = 'a'", 4, "mmio.vdev", "`a`", E::NOENT),
        ("\n[[domain]]\nname = 'a'\nkind = 'deny'", 2, "domain", "add an [iommu]", E::INVAL),
    ];
    for &wrong in wrong {
        assert_wrong(Path::new("test.toml"), parse(wrong.0).err(), wrong);
    }
}

#[test]
fn a_wrong_domain_names_line_key_and_what_was_expected() {
    use Errno as E;
    // Each follows 1 MiB of RAM and the head of a domain, which ends on line 5.
    let wrong: &[(&str, Wrong)] = &[
        ("identity", ("limit = 0", 6, "domain.limit", "1 to 268435456", E::INVAL)),
        ("identity", ("limit = 268435457", 6, "domain.limit", "1 to 268435456", E::INVAL)),
        ("identity", ("owner = ''", 6, "domain.owner", "expected a name", E::INVAL)),
        ("other", ("", 5, "domain.kind", "\"bypass\" or \"deny\" or \"identity\"", E::INVAL)),
        (
            "deny",
            ("drain = { deadline-ms = 4e6 }", 6, "domain.drain.deadline-ms", "whole", E::INVAL),
        ),
        (
            "deny",
            (
                "drain = { x = 1 }",
                6,
                "domain.drain.x",
                "unknown key `x`; there are `deadline-ms`",
                E::INVAL,
            ),
        ),
        ("deny", ("allow = []", 6, "domain.allow", "takes no grants", E::INVAL)),
        ("bypass", ("map = []", 6, "domain.map", "takes no grants", E::INVAL)),
        ("identity", ("map = []", 6, "domain.map", "`allow` grants", E::INVAL)),
        ("translate", ("allow = []", 6, "domain.allow", "`map` grants", E::INVAL)),
        (
            "identity",
            (
                "allow = [\n{ start = 0, size = 1 },\n]",
                7,
                "domain.allow.access",
                "missing",
                E::INVAL,
            ),
        ),
        (
            "identity",
            (
                "allow = [{ start = 0, size = 1, access = '' }]",
                6,
                "domain.allow.access",
                "at least one",
                E::INVAL,
            ),
        ),
        (
            "identity",
            (
                "allow = [{ start = 0, size = 0, access = 'r' }]",
                6,
                "domain.allow.size",
                "more than 0",
                E::INVAL,
            ),
        ),
        (
            "identity",
            (
                "allow = [{ start = 0, size = '1M', access = 'r' },\n\
                 { start = 0xfffff, size = 2, access = 'r' }]",
                7,
                "domain.allow.start",
                "is at 0x100000, inside the grant's [0xfffff, 0x100000]; say `hole = true`",
                E::NXIO,
            ),
        ),
        (
            "identity",
            (
                "allow = [{ start = '2M', size = 0xfffffffffffff000, access = 'r', hole = true }]",
                6,
                "domain.allow.size",
                "48 bits",
                E::NXIO,
            ),
        ),
        (
            "translate",
            (
                "map = [{ device = 1, guest = 2, size = 1, access = 'r' }]",
                6,
                "domain.map.guest",
                "same last 12 bits",
                E::INVAL,
            ),
        ),
        (
            "translate",
            (
                "map = [{ device = '256T', guest = 0, size = 1, access = 'r' }]",
                6,
                "domain.map.device",
                "48 bits",
                E::NXIO,
            ),
        ),
        (
            "translate",
            (
                "map = [\n{ device = 0,\nguest = '1M', size = 1, access = 'r' }]",
                8,
                "domain.map.guest",
                "no RAM, ROM or pass-through memory is at 0x100000",
                E::NXIO,
            ),
        ),
        // What only the engine can tell, when the guest is built.
        (
            "translate",
            (
                "map = [{ device = 0, guest = 0, size = 1, access = 'r' },\n\
                 { device = 0, guest = 4096, size = 1, access = 'r' }]",
                7,
                "domain.map.device",
                "mapped already",
                E::EXIST,
            ),
        ),
        (
            "identity",
            (
                "limit = 2\nallow = [{ start = 0, size = '8K', access = 'r' },\n\
                 { start = '8K', size = 1, access = 'r' }]",
                8,
                "domain.allow.start",
                "limit of 2",
                E::NOSPC,
            ),
        ),
    ];
    for &(kind, wrong) in wrong {
        let head = "iommu = {}\nram = [{ size = '1M', backing = ['4K'] }]";
        let text = format!("{head}\n[[domain]]\nname = 'a'\nkind = '{kind}'\n{}", wrong.0);
        let failed = parse(&text).and_then(|config| config.build(None)).err();
        assert_wrong(Path::new("test.toml"), failed, wrong);
    }
}

#[test]
fn wrong_files_behind_the_configuration_are_named() {
    use Errno as E;
    let folder = folder("files");
    fs::write(folder.join("image"), vec![1; 0x1001]).unwrap();
    fs::write(folder.join("empty"), "").unwrap();
    let wrong: &[Wrong] = &[
        ("[[rom]]\nfile = 'none'", 2, "rom.file", "cannot find the ROM image", E::NOENT),
        ("[[rom]]\nfile = 'empty'", 2, "rom.file", "is empty", E::INVAL),
        ("[[rom]]\nfile = '.'", 2, "rom.file", "is a directory", E::ISDIR),
        ("[[rom]]\nfile = '/dev/zero'", 2, "rom.file", "not a regular file", E::NODEV),
        ("[[rom]]\nfile = \"a\\u0000\"", 2, "rom.file", "cannot find", E::INVAL),
        (
            "[[rom]]\nsize = '4K'\nfile = 'image'",
            3,
            "rom.file",
            "holds 4097 bytes, and its region only 4 KiB",
            E::INVAL,
        ),
        (
            "[[pass]]\nstart = 0\nsize = '4K'\nhost = 0\npath = 'none'",
            5,
            "pass.path",
            "cannot read and write",
            E::NOENT,
        ),
        (
            "[[pass]]\nstart = 0\nsize = '4K'\nhost = 0\npath = '.'\naccess = 'r'",
            5,
            "pass.path",
            "it is a directory",
            E::NODEV,
        ),
        (
            "[[pass]]\nstart = 0\nsize = '8K'\nhost = 0\npath = 'image'",
            5,
            "pass.path",
            "holds only 4097 bytes",
            E::INVAL,
        ),
        ("[[ram]]\nsize = '200T'", 2, "ram.size", "the host has", E::NOMEM),
    ];
    let path = folder.join("test.toml");
    for &wrong in wrong {
        let failed = Config::parse(wrong.0, &path).and_then(|config| config.build(None)).err();
        assert_wrong(&path, failed, wrong);
    }
    let text = "[[pass]]\nstart = 0\nsize = '8K'\nhost = 0\npath = 'image'";
    let error = Config::parse(text, &path).unwrap().build(None).unwrap_err();
    let source = error.source().unwrap().downcast_ref::<gasp::Error>().unwrap();
    assert_eq!(source.errno(), error.errno());
}

#[test]
fn a_rom_that_changes_before_the_guest_is_built_is_refused() {
    let folder = folder("changed");
    let image = folder.join("image");
    fs::write(&image, "small").unwrap();
    let config = Config::parse("\n[[rom]]\nfile = 'image'", &folder.join("a.toml")).unwrap();
    config.build(None).unwrap();
    fs::write(&image, vec![1; 4097]).unwrap();
    let error = config.build(None).unwrap_err();
    assert_eq!((error.line(), error.key()), (Some(3), Some("rom.file")));
    assert!(error.message().contains("it has grown"), "{error}");
    fs::remove_file(&image).unwrap();
    assert_eq!(config.build(None).unwrap_err().errno(), Errno::NOENT);
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = folder("load");
    let fails = |path: &Path| Config::load(path).unwrap_err();
    assert_eq!(fails(&folder.join("none.toml")).errno(), Errno::NOENT);
    assert_eq!(fails(&folder).errno(), Errno::ISDIR);
    assert_eq!(fails(Path::new("/dev/zero")).errno(), Errno::NODEV);
    let latin = folder.join("latin.toml");
    fs::write(&latin, b"[guest]\n\nname = 'caf\xe9'").unwrap();
    let error = fails(&latin);
    assert_eq!(error.to_string(), format!("{}:3: the text is not UTF-8", latin.display()));
    // Opening a pipe that nobody writes to would never end.
    let pipe = folder.join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    assert_eq!(fails(&pipe).errno(), Errno::NODEV);
}

#[test]
fn a_file_of_ten_million_rules_is_refused_at_once() {
    let path = folder("large").join("large.toml");
    let grant = "{ start = 0x00000000, size = 4096, access = 'r' },\n";
    fs::write(&path, "[iommu]").unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(10_000_000 * grant.len() as u64).unwrap();
    let begun = Instant::now();
    let error = Config::load(&path).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(error.errno(), Errno::FBIG);
    assert!(error.message().contains("4 MiB"), "{error}");
    let error = parse(&grant.repeat(400_000)).unwrap_err();
    assert_eq!(error.errno(), Errno::FBIG);
}

/// A guest with 256 MiB of RAM and a domain of these grants.
fn with_rules(grants: impl Iterator<Item = String>) -> String {
    let grants: String = grants.collect();
    format!(
        "iommu = {{}}\nram = [{{ size = '256M' }}]\n[[domain]]\nname = 'a'\nkind = 'identity'\n\
         allow = [\n{grants}]"
    )
}

#[test]
fn more_rules_than_a_domain_of_a_file_may_have_are_refused() {
    let grant = |page: u64| format!("{{ start = {}, size = 4096, access = 'r' }},\n", page << 12);
    let most = with_rules((0..65_536).map(grant));
    parse(&most).unwrap();
    let error = parse(&with_rules((0..65_537).map(|page| grant(page % 65_536)))).unwrap_err();
    assert_eq!((error.line(), error.key()), (Some(6), Some("domain.allow")));
    assert_eq!(error.errno(), Errno::NOSPC);
    assert!(error.message().contains("at most 65536"), "{error}");
}

#[test]
fn rules_that_all_overlap_are_no_slower_than_others() {
    let one = |page: u64| format!("{{ start = {}, size = 4096, access = 'r' }},\n", page << 13);
    let all = |_| "{ start = 0, size = '256M', access = 'w' },\n".to_owned();
    let begun = Instant::now();
    let config = parse(&with_rules((0..32_768).map(one).chain((0..32_768).map(all)))).unwrap();
    let guest = config.build(None).unwrap();
    // Given to the engine one by one they take half a minute, optimized.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(guest.find_domain("a").unwrap().grants().len(), 65_536);
}

fn mutated() -> impl Strategy<Value = String> {
    let texts: Vec<String> = fs::read_dir(EXAMPLES)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let patch = prop_oneof![
        any::<String>(),
        any::<u64>().prop_map(|number| number.to_string()),
        prop::sample::select(vec!["", "[", "]", "{", "}}", "'", "\"", "\n", "=", "0x", "-", "T"])
            .prop_map(str::to_owned),
    ];
    let patches = prop::collection::vec((any::<prop::sample::Index>(), 0..20_usize, patch), 1..4);
    (prop::sample::select(texts), patches).prop_map(|(text, patches)| {
        let mut bytes = text.into_bytes();
        for (at, remove, patch) in patches {
            let start = at.index(bytes.len() + 1);
            let end = (start + remove).min(bytes.len());
            bytes.splice(start..end, patch.bytes());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// RAM or reserved, the first page, and how many.
type GridRegion = (bool, u64, u64);
/// The first page, and how many.
type GridRule = (u64, u64);

/// Regions and grants on a small grid of pages, some of them wrong.
fn grid() -> impl Strategy<Value = (Vec<GridRegion>, Vec<GridRule>)> {
    let region = (any::<bool>(), 0..24_u64, 1..6_u64);
    let grant = (0..24_u64, 1..6_u64);
    (prop::collection::vec(region, 1..6), prop::collection::vec(grant, 0..3))
}

/// A grant's first page, how many, where it leads, and its access.
fn grant() -> impl Strategy<Value = (u64, u64, u64, u8)> {
    (0..12_u64, 1..6_u64, prop::sample::select(vec![0, 0, 0, 1]), 1..8_u8)
}

proptest! {
    // Each case makes two domains of thousands of entries.
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn rules_of_a_file_are_those_that_the_engine_makes_of_them_one_by_one(
        grants in prop::collection::vec(grant(), 0..8), unit in prop::sample::select(vec![12, 19])
    ) {
        let head = "[iommu]\n[[domain]]\nname = 'a'\nkind = 'translate'\n";
        let direct = parse(head).unwrap().build(None).unwrap().find_domain("a").unwrap();
        let mut text = format!("{head}map = [\n");
        let mut added = Ok(());
        for (page, pages, shift, access) in grants {
            let access = Access::from_bits_truncate(access);
            // Not whole pages: both sides round outward.
            let (device, guest) = ((page << unit) + 8, ((page + shift) << unit) + 8);
            let len = (pages << unit) - 16;
            text += &format!(
                "{{ device = {device}, guest = {guest}, size = {len}, \
                 access = '{access}', hole = true }},\n"
            );
            added = added.and(direct.grant(DeviceAddr(device), GuestPhys(guest), len, access));
        }
        text += "]";
        match parse(&text) {
            Ok(config) => {
                prop_assert!(added.is_ok(), "{text}");
                let domain = config.build(None).unwrap().find_domain("a").unwrap();
                prop_assert_eq!(domain.grants(), direct.grants());
                prop_assert!(domain.entries() <= direct.entries());
            }
            Err(error) => {
                prop_assert_eq!(added.unwrap_err().errno(), error.errno(), "{}", error);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_parse_panic(text: String) {
        let _ = parse(&text);
    }

    #[test]
    fn no_change_to_an_example_makes_parse_panic(text in mutated()) {
        match Config::parse(&text, &Path::new(EXAMPLES).join("changed.toml")) {
            Ok(config) => prop_assert!(!config.name().is_empty()),
            Err(error) => {
                let lines = text.lines().count().max(1);
                let line = error.line();
                prop_assert!(line.is_some_and(|line| (1..=lines + 1).contains(&line)), "{error}");
                prop_assert!(!error.to_string().contains(char::is_control), "{error}");
            }
        }
    }

    #[test]
    fn a_file_is_accepted_where_nothing_overlaps_and_all_rules_lead_to_memory(
        (regions, grants) in grid()
    ) {
        let mut text = String::from("[iommu]\n");
        let mut model = [None; 32];
        let mut overlap = false;
        for &(is_ram, page, pages) in &regions {
            let kind = if is_ram { "ram" } else { "reserve" };
            text += &format!("[[{kind}]]\nstart = {}\nsize = '{}K'\n", page << 12, pages * 4);
            for slot in &mut model[page as usize..(page + pages) as usize] {
                overlap |= slot.replace(is_ram).is_some();
            }
        }
        text += "[[domain]]\nname = 'a'\nkind = 'identity'\nallow = [\n";
        let mut astray = false;
        for &(page, pages) in &grants {
            text += &format!("{{ start = {}, size = '{}K', access = 'r' }},\n", page << 12, pages * 4);
            let range = page as usize..(page + pages) as usize;
            astray |= model[range].iter().any(|slot| *slot != Some(true));
        }
        text += "]";
        match parse(&text) {
            Ok(config) => {
                prop_assert!(!overlap && !astray, "{text}");
                let guest = config.build(None).unwrap();
                for (page, slot) in (0_u64..).zip(model) {
                    let there = guest.space().region_at(GuestPhys(page << 12));
                    let is_ram = there.map(|region| region.kind() == RegionKind::Ram);
                    prop_assert_eq!(is_ram, slot);
                }
            }
            Err(error) => {
                let want = if overlap { Errno::EXIST } else { Errno::NXIO };
                prop_assert!(overlap || astray, "{error}\n{text}");
                prop_assert_eq!(error.errno(), want, "{}", error);
            }
        }
    }
}
