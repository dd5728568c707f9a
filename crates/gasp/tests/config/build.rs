//! Defaults of a file, and the files that it refers to.

use std::fs;
use std::path::Path;
use std::time::Duration;

use gasp::config::Config;
use gasp::{DeviceAddr, Errno, GuestPhys, MapFlags, Residency};

use crate::{folder, parse};

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
        assert_eq!(
            error.errno(),
            Errno::NOENT,
            "an image that is not in the program is a file: {error}"
        );
    }
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
fn an_empty_file_is_a_guest_with_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.name(), "guest");
    let guest = config.build(None).unwrap();
    assert_eq!(guest.address_width(), 48);
    assert!(!guest.allows_unpinned());
    assert!(guest.space().regions().is_empty());
}

#[test]
fn build_reports_the_progress_of_ram() {
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
                grant-identity = [{ start = 0, size = 1, access = 'r' }]";
    let guest = parse(text).unwrap().build(None).unwrap();
    let held = guest.find_vdev("a").unwrap().map(DeviceAddr(0), 1, MapFlags::READ).unwrap();
    let ended = guest.find_domain("a").unwrap().revoke(DeviceAddr(0), 1).unwrap().wait();
    assert!(ended.waited < Duration::from_millis(500) && held.is_revoked());
}

#[test]
fn ram_is_held_as_the_program_says_where_the_text_does_not() {
    // More than any host has: it can only be created if it is allocated on demand.
    let parse = |text, path: &str| {
        Config::parse(text, Path::new(path)).unwrap().default_residency(Residency::OnDemand)
    };
    parse("ram 1M,8T", "a.qvmconf").build(None).unwrap();
    let pinned = parse("ram 1M,8T", "a.qvmconf").default_residency(Residency::Pinned);
    assert_eq!(pinned.build(None).unwrap_err().errno(), Errno::NOMEM);
    let says = parse("[[ram]]\nsize = '8T'\nresidency = 'resident'", "a.toml");
    assert_eq!(says.build(None).unwrap_err().errno(), Errno::NOMEM, "the text comes first");
}
