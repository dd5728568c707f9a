//! Machines: the same one in both forms, and tables of machines that are wrong.

use std::fs;
use std::path::Path;

use gasp::config::{
    Action, Config, DeviceConfig, Location, LogLevel, LogTo, MachineConfig, Place, Unsupported,
};
use gasp::{Errno, Guest, GuestPhys, MapFlags, RegionKind};

use crate::{EXAMPLES, Wrong, assert_wrong, parse};

/// A machine as text, without the places of its values, which the two forms have elsewhere.
fn without_places(machine: &MachineConfig) -> String {
    let mut text = format!("{machine:#?}");
    let mut places: Vec<&Place> = machine.devices.iter().map(|device| &device.place).collect();
    places.extend(machine.devices.iter().flat_map(|d| d.words.iter().map(|word| &word.place)));
    places.extend(machine.kernel.iter().chain(&machine.initrd).map(|image| &image.place));
    for place in places {
        text = text.replace(&format!("{place:?},"), "");
    }
    // The form that knows which words are arguments says so.
    text.replace("argument: true", "").replace("argument: false", "")
}

/// Kind, start and size of each region.
fn regions(guest: &Guest) -> Vec<(RegionKind, u64, u64)> {
    let regions = guest.space().regions();
    regions.iter().map(|r| (r.kind(), r.span().start().0, r.span().len())).collect()
}

#[test]
fn a_machine_in_both_forms_is_the_same_machine() {
    let load = |name| Config::load(&Path::new(EXAMPLES).join(name)).unwrap();
    let (toml, qvm) = (load("machine.toml"), load("machine.qvmconf"));
    assert_eq!((toml.name(), qvm.name()), ("machine", "machine"));
    assert_eq!(without_places(toml.machine()), without_places(qvm.machine()));
    assert!(toml.vdevs().eq(qvm.vdevs()));
    let options = |config: &Config| {
        let list = ["hostdev", "0readonly"];
        let options = config.machine().devices.iter().map(|device| {
            let options = device.options(&list).unwrap();
            options.iter().map(|o| (o.index, o.argument.map(str::to_owned))).collect::<Vec<_>>()
        });
        options.collect::<Vec<_>>()
    };
    assert_eq!(options(&toml), options(&qvm));
    assert_eq!(options(&qvm)[3], [(0, Some("second disk.img".into())), (1, None)]);

    let (toml, qvm) = (toml.build(None).unwrap(), qvm.build(None).unwrap());
    assert_eq!(regions(&toml), regions(&qvm));
    assert_eq!(
        regions(&qvm),
        [
            (RegionKind::Ram, 0, 0xa0000),
            (RegionKind::Rom, 0xc0000, 0x40000),
            (RegionKind::Ram, 0x100000, 64 << 20),
            (RegionKind::Reserved, 0xfec0_0000, 4 << 20),
        ]
    );
    let image = fs::read(Path::new(EXAMPLES).join("rom.bin")).unwrap();
    for guest in [&toml, &qvm] {
        assert!(guest.iommu().is_some());
        let rom = guest.map_firmware(GuestPhys(0xc0000), 0x40000, MapFlags::READ.any()).unwrap();
        let mut bytes = vec![0xee; 0x40000];
        rom.read_at(0, &mut bytes).unwrap();
        assert!(bytes.starts_with(&image), "the ROM is filled");
        assert!(bytes[image.len()..].iter().all(|&byte| byte == 0));
        let disk = guest.find_vdev("disk0").unwrap();
        assert!(disk.map(gasp::DeviceAddr(0x100000), 4096, MapFlags::RW).is_ok());
    }
}

#[test]
fn a_machine_has_what_its_text_says() {
    let config = Config::load(&Path::new(EXAMPLES).join("machine.qvmconf")).unwrap();
    let machine = config.machine();
    assert_eq!(machine.cpus, 2);
    let kernel = machine.kernel.as_ref().unwrap();
    assert_eq!(kernel.path, Path::new(EXAMPLES).join("vmlinuz"));
    assert_eq!(kernel.place.line(), 12);
    assert_eq!(machine.cmdline.as_deref(), Some("console=ttyS0 root=/dev/vda"));
    assert!(!machine.exit_on_halt && !machine.dry_run);
    let unsupported = Unsupported { register: Action::Ignore, ..Unsupported::default() };
    assert_eq!(machine.unsupported, unsupported);
    let log = &machine.logs[0];
    assert_eq!(log.levels, [LogLevel::Error, LogLevel::Warning]);
    assert_eq!(log.to, LogTo::Stderr);
    let names: Vec<&str> = machine.devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["iommu", "com1", "disk0", "virtio-blk"]);
    let console = &machine.devices[1];
    assert_eq!(console.kind, "ser8250");
    assert_eq!(console.locations, [Location::Port(0x3f8)]);
    let interrupt = console.interrupt.as_ref().unwrap();
    assert_eq!((interrupt.controller.as_str(), interrupt.line()), ("ioapic", Some(4)));
    assert_eq!(machine.devices[0].kind, DeviceConfig::IOMMU);
}

#[test]
fn a_guest_without_a_machine_has_one_processor_and_nothing_to_start() {
    let config = parse("[[ram]]\nsize = '1M'\n[[vdev]]\nname = 'a'").unwrap();
    let machine = config.machine();
    assert_eq!(machine.cpus, 1);
    assert!(machine.kernel.is_none() && machine.initrd.is_none() && machine.cmdline.is_none());
    assert!(machine.devices.is_empty(), "a device without a type is only a name for maps");
    assert!(machine.exit_on_halt && !machine.dry_run && machine.logs.is_empty());
    assert_eq!(config.vdevs().collect::<Vec<_>>(), ["a"]);
    assert!(config.build(None).unwrap().iommu().is_none());
}

#[test]
fn the_iommu_of_a_table_stays_as_it_is_with_a_device_of_its_type() {
    let text = "[iommu]\nunattached = 'deny'\n[[ram]]\nsize = '1M'\n\
                [[vdev]]\nname = 'v'\ntype = 'iommu'\n[[vdev]]\nname = 'a'";
    let guest = parse(text).unwrap().build(None).unwrap();
    let device = guest.find_vdev("a").unwrap();
    let refused = device.map(gasp::DeviceAddr(0), 4096, MapFlags::READ);
    assert_eq!(refused.unwrap_err().errno(), Errno::FAULT);
}

#[test]
fn a_window_that_is_ram_is_mapped_as_ram() {
    let folder = crate::folder("window");
    let window = folder.join("window");
    fs::write(&window, vec![7; 8192]).unwrap();
    for (ram, refused) in [("true", None), ("false", Some(Errno::NXIO))] {
        let text = format!(
            "[[pass]]\nstart = 0\nsize = '8K'\nhost = 0x10000\npath = 'window'\nram = {ram}\n\
             uncached = true\n[[vdev]]\nname = 'a'"
        );
        let config = Config::parse(&text, &folder.join("a.toml")).unwrap();
        let guest = config.build(None).unwrap();
        let device = guest.find_vdev("a").unwrap();
        let map = device.map(gasp::DeviceAddr(0), 8192, MapFlags::RW);
        assert_eq!(map.err().map(|error| error.errno()), refused);
        let region = guest.space().region_at(GuestPhys(0)).unwrap();
        assert_eq!(region.kind() == RegionKind::Ram, refused.is_none());
    }
}

#[test]
fn a_file_is_loaded_over_the_border_of_two_regions_and_a_later_one_over_it() {
    let folder = crate::folder("loads");
    let bytes: Vec<u8> = (0..12_000_u32).map(|number| number as u8).collect();
    fs::write(folder.join("long"), &bytes).unwrap();
    fs::write(folder.join("short"), b"short").unwrap();
    let text = "ram 8K rom 8K load kernel load 0x1000,long data load 0x1ffe,short";
    let config = Config::parse(text, &folder.join("a.qvmconf")).unwrap();
    let guest = config.build(None).unwrap();
    let mut found = vec![0; bytes.len()];
    let map = guest.map_firmware(GuestPhys(0x1000), 0x1000, MapFlags::READ.any()).unwrap();
    map.read_at(0, &mut found[..0x1000]).unwrap();
    let map = guest.map_firmware(GuestPhys(0x2000), 0x2000, MapFlags::READ.any()).unwrap();
    map.read_at(0, &mut found[0x1000..]).unwrap();
    let mut wanted = bytes;
    wanted[0xffe..0x1003].copy_from_slice(b"short");
    assert!(found == wanted, "the files are not where they were loaded");

    fs::write(folder.join("short"), vec![1; 0x3000]).unwrap();
    let error = config.build(None).unwrap_err();
    let text = format!("a.qvmconf:1: load: cannot load {}/short: it has grown", folder.display());
    assert!(error.to_string().ends_with(&text), "{error}");
    fs::remove_file(folder.join("short")).unwrap();
    assert_eq!(config.build(None).unwrap_err().errno(), Errno::NOENT);
}

#[test]
fn a_table_of_a_machine_that_is_wrong_names_line_key_and_what_was_expected() {
    use Errno as E;
    let wrong: &[Wrong] = &[
        ("[machine]\ncpus = 0", 2, "machine.cpus", "1 to 255", E::INVAL),
        ("[machine]\ncpus = 256", 2, "machine.cpus", "1 to 255", E::INVAL),
        ("[machine]\ncpu = 2", 2, "machine.cpu", "did you mean `cpus`?", E::INVAL),
        ("[machine]\nkernel = ''", 2, "machine.kernel", "the path of a file", E::INVAL),
        ("[machine]\nkernel-address = 0", 2, "machine.kernel-address", "there is none", E::INVAL),
        (
            "[machine]\nkernel = 'a'\n\nkernel-address = '256T'",
            4,
            "machine.kernel-address",
            "address width",
            E::NXIO,
        ),
        (
            "[machine]\nunsupported = { register = 'faill' }",
            2,
            "machine.unsupported.register",
            "did you mean \"fail\"?",
            E::INVAL,
        ),
        (
            "[machine]\nlog = [{ levels = [], to = 'none' }]",
            2,
            "machine.log",
            "at least one level",
            E::INVAL,
        ),
        (
            "[machine]\nlog = [{ levels = ['eror'], to = 'none' }]",
            2,
            "machine.log.levels",
            "did you mean \"error\"?",
            E::INVAL,
        ),
        ("[[vdev]]\nname = 'a'\nloc = ['0']", 3, "vdev.loc", "without a `type`", E::INVAL),
        ("[[vdev]]\nname = 'a'\nintr = 'a:1'", 3, "vdev.intr", "without a `type`", E::INVAL),
        ("[[vdev]]\nname = 'a'\noptions = ['a']", 3, "vdev.options", "without a `type`", E::INVAL),
        (
            "[[vdev]]\nname = 'a'\nlog = [{ levels = ['info'], to = 'none' }]",
            3,
            "vdev.log",
            "without a `type`",
            E::INVAL,
        ),
        ("[[vdev]]\nname = 'a'\ntype = ''", 3, "vdev.type", "expected a name", E::INVAL),
        (
            "[[vdev]]\nname = 'a'\ntype = 'b'\nloc = ['0',\n'mme:0']",
            5,
            "vdev.loc",
            "did you mean `mem`?",
            E::INVAL,
        ),
        (
            "[[vdev]]\nname = 'a'\ntype = 'b'\nintr = 'p:1'\n[[vdev]]\nname = 'p'\ntype = 'pic'",
            4,
            "vdev.intr",
            "`p` is defined on line 6; move it before",
            E::NOENT,
        ),
        ("[[rom]]\nstart = 0", 1, "rom.size", "`size` or `file` is missing", E::INVAL),
        (
            "[[ram]]\nsize = '1M'\n[[load]]\naddress = 0\nfile = 'none'",
            5,
            "load.file",
            "cannot find the file to load",
            E::NOENT,
        ),
        (
            "[[ram]]\nsize = '1M'\n[[load]]\naddress = 0\nfile = '/'",
            5,
            "load.file",
            "is a directory",
            E::ISDIR,
        ),
        (
            "[[ram]]\nsize = '4K'\n[[load]]\naddress = 0xfff\nfile = 'Cargo.toml'",
            4,
            "load.address",
            "no RAM or ROM is at 0x1000",
            E::NXIO,
        ),
    ];
    for &wrong in wrong {
        assert_wrong(Path::new("test.toml"), parse(wrong.0).err(), wrong);
    }
}
