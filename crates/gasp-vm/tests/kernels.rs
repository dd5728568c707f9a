//! Kernels, initrds and command lines that cannot be started: one line each, which says what to do.
//! None of it needs KVM.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "support/kernel.rs"]
mod kernel;

use std::path::Path;

use gasp::{Guest, GuestPhys, MapFlags, MemoryObject, Residency};
use gasp_vm::boot::{Boot, BootError};
use tempfile::TempDir;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn guest(ram: u64) -> Guest {
    let guest = Guest::builder().build().unwrap();
    let object = MemoryObject::ram(ram).residency(Residency::OnDemand).create().unwrap();
    guest.space().add_ram(None, &object).unwrap();
    guest
}

fn refused(boot: Boot, ram: u64) -> BootError {
    let error = boot.load(&guest(ram)).unwrap_err();
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 200, "{text}");
    error
}

fn refused_kernel(bytes: &[u8]) -> BootError {
    let files = Files::new();
    refused(Boot::new(files.file("kernel", bytes)), 8 << 20)
}

const CODE: &[u8] = &[
    0xf4, // hlt
];

#[test]
fn what_is_no_kernel_is_named() {
    let kinds: [(&[u8], &str); 6] = [
        (b"", "an empty file"),
        (b"#!/bin/sh\n", "a script"),
        (&[0x1f, 0x8b, 8, 0], "gzip"),
        (b"070701", "an initrd"),
        (b"MZ and nothing", "EFI"),
        (&[7; 4096], "something else"),
    ];
    for (bytes, kind) in kinds {
        let error = refused_kernel(bytes);
        assert!(matches!(error, BootError::NotAKernel { .. }), "{error}");
        assert!(error.to_string().contains(kind), "{error}");
    }
}

#[test]
fn a_file_that_is_not_there_or_is_none_is_refused() {
    let missing = refused(Boot::new("/no/such/kernel"), 8 << 20);
    assert!(matches!(missing, BootError::Open { .. }), "{missing}");
    for path in ["/", "/dev/null"] {
        let error = refused(Boot::new(path), 8 << 20);
        assert!(matches!(error, BootError::NotAFile { .. }), "{error}");
    }
    let files = Files::new();
    let good = files.file("kernel", &kernel::elf(CODE));
    let error = refused(Boot::new(good).initrd(files.0.path()), 8 << 20);
    assert!(matches!(error, BootError::NotAFile { .. }), "{error}");
}

#[test]
fn a_truncated_kernel_is_refused_at_every_length() {
    for whole in [kernel::elf(CODE), kernel::bz_image(CODE)] {
        let files = Files::new();
        let path = files.file("kernel", &whole);
        Boot::new(&path).load(&guest(8 << 20)).unwrap();
        for len in (0..whole.len()).step_by(13) {
            let error = refused_kernel(&whole[..len]);
            let expected = match error {
                BootError::Truncated { expected, .. } => expected,
                BootError::NotAKernel { .. } if len < 0x206 => continue,
                other => panic!("{len}: {other}"),
            };
            assert!(expected > len as u64);
        }
    }
}

#[test]
fn a_kernel_with_any_byte_changed_is_started_or_refused() {
    for whole in [kernel::elf(CODE), kernel::bz_image(CODE)] {
        let guest = guest(4 << 20);
        let files = Files::new();
        let header = 0..whole.len().min(0x280);
        for at in header {
            for value in [0, 0x80, 0xff] {
                let mut odd = whole.clone();
                odd[at] = value;
                let path = files.file("kernel", &odd);
                if let Err(error) = Boot::new(&path).cmdline("quiet").load(&guest) {
                    assert!(!error.to_string().contains('\n'), "{error}");
                }
            }
        }
    }
}

#[test]
fn kernels_for_others_are_refused() {
    let change = |mut bytes: Vec<u8>, at: usize, value: u8| {
        bytes[at] = value;
        refused_kernel(&bytes)
    };
    for (at, value) in [(4, 1), (18, 40)] {
        let error = change(kernel::elf(CODE), at, value);
        assert!(error.to_string().contains("another processor"), "{error}");
    }
    // The segment's address, 1 MiB.
    let low = change(kernel::elf(CODE), 64 + 24 + 2, 0);
    assert!(low.to_string().contains("1 MiB"), "{low}");
    let entry = change(kernel::elf(CODE), 24 + 3, 0x7f);
    assert!(entry.to_string().contains("entry"), "{entry}");
    // The flag of a 64-bit entry.
    let old = change(kernel::bz_image(CODE), 0x236, 0);
    assert!(old.to_string().contains("64-bit entry"), "{old}");
}

#[test]
fn ram_that_is_too_small_or_missing_is_refused() {
    let files = Files::new();
    for (bytes, needed) in
        [(kernel::elf(CODE), 2 << 20), (kernel::bz_image(CODE), (2 << 20) + (1 << 20))]
    {
        let path = files.file("kernel", &bytes);
        match refused(Boot::new(&path), 1 << 20) {
            BootError::RamTooSmall { available, .. } => assert_eq!(available, 1 << 20),
            other => panic!("{other}"),
        }
        Boot::new(&path).load(&guest(needed)).unwrap();
        let error = refused(Boot::new(&path), needed - 4096);
        assert!(
            matches!(error, BootError::RamTooSmall { needed: it, .. } if it == needed),
            "{error}"
        );
        let none = Boot::new(&path).load(&Guest::builder().build().unwrap()).unwrap_err();
        assert!(matches!(none, BootError::NoRam), "{none}");
    }
}

#[test]
fn an_initrd_is_placed_at_the_end_or_refused() {
    let files = Files::new();
    let kernel = files.file("kernel", &kernel::elf(CODE));
    let room = 4 << 20;
    let initrd = files.file("initrd", &vec![7; room]);
    let ram = (2 << 20) + room as u64;
    let guest = guest(ram);
    Boot::new(&kernel).initrd(&initrd).load(&guest).unwrap();
    let mut place = [0; 8];
    guest.read_firmware(GuestPhys(0x7000 + 0x218), &mut place).unwrap();
    let (start, len) = place.split_at(4);
    assert_eq!(u32::from_le_bytes(start.try_into().unwrap()), 2 << 20);
    assert_eq!(u32::from_le_bytes(len.try_into().unwrap()), room as u32);
    let last = guest.map_firmware(GuestPhys(ram - 1), 1, MapFlags::READ).unwrap();
    assert_eq!(last.read_obj::<u8>(0).unwrap(), 7);

    let large = files.file("large", &vec![7; room + 1]);
    match refused(Boot::new(&kernel).initrd(&large), ram) {
        BootError::InitrdTooLarge { len, room: there, .. } => {
            assert_eq!((len, there), (room as u64 + 1, room as u64));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_command_line_has_a_limit_and_no_zero() {
    let files = Files::new();
    let elf = files.file("elf", &kernel::elf(CODE));
    let bz_image = files.file("bz", &kernel::bz_image(CODE));
    for (path, limit) in [(&elf, 2047), (&bz_image, kernel::COMMAND_LINE)] {
        let path: &Path = path;
        Boot::new(path).cmdline(&"x".repeat(limit)).load(&guest(8 << 20)).unwrap();
        match refused(Boot::new(path).cmdline(&"x".repeat(limit + 1)), 8 << 20) {
            BootError::CommandLineTooLong { limit: it, .. } => assert_eq!(it, limit as u64),
            other => panic!("{other}"),
        }
    }
    let error = refused(Boot::new(&elf).cmdline("a\0b"), 8 << 20);
    assert!(matches!(error, BootError::CommandLineHasZero { at: 1 }), "{error}");
}

#[test]
fn ram_of_an_owner_who_can_take_it_away_is_refused() {
    let files = Files::new();
    let path = files.file("kernel", &kernel::elf(CODE));
    let mut backing = std::fs::OpenOptions::new();
    let file = backing.read(true).write(true).create(true).truncate(true);
    let file = file.open(files.0.path().join("ram")).unwrap();
    file.set_len(8 << 20).unwrap();
    let object = MemoryObject::adopt(file.into(), gasp::Adopt::new("ram", 8 << 20)).unwrap();
    let guest = Guest::builder().build().unwrap();
    guest.space().add_ram(None, &object).unwrap();
    let error = Boot::new(&path).load(&guest).unwrap_err();
    assert!(matches!(error, BootError::Guarded), "{error}");
}
