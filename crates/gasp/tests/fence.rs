//! Fences: the mappings of their pages, as the kernel reports them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::FileExt;

use gasp::ffi::Token;
use gasp::{
    Access, Backing, DeviceAddr, DomainKind, DomainOptions, Guest, GuestPhys, MapFlags, Mapping,
    MemoryObject, Unattached, Vdev,
};

const PAGE: usize = 4096;

fn disk(exclusive: bool) -> (Vdev, MemoryObject) {
    let guest = Guest::builder().build().unwrap();
    let ram = MemoryObject::ram(16 * PAGE as u64).prefer(&[Backing::Base]).exclusive(exclusive);
    let ram = ram.create().unwrap();
    guest.space().add_ram(Some(GuestPhys(0)), &ram).unwrap();
    (guest.vdev("disk").unwrap(), ram)
}

fn map(disk: &Vdev, addr: u64, len: u64, flags: MapFlags) -> Mapping {
    disk.map(DeviceAddr(addr), len, flags).unwrap()
}

/// The protection of the page at an address, as in `/proc/self/maps`; `None` if it is not
/// mapped.
fn protection(addr: usize) -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let of_line = |line: &str| {
        let mut words = line.split(' ');
        let (from, to) = words.next()?.split_once('-')?;
        let from = usize::from_str_radix(from, 16).ok()?;
        let to = usize::from_str_radix(to, 16).ok()?;
        (from..to).contains(&addr).then(|| words.next().unwrap_or_default().to_owned())
    };
    maps.lines().find_map(of_line)
}

/// The protections of `pages` pages from that of `pointer` on, and of one page on either side.
fn around(pointer: *const u8, pages: usize) -> Vec<Option<String>> {
    let first = pointer.addr() / PAGE * PAGE;
    (0..pages + 2).map(|page| protection(first + page * PAGE - PAGE)).collect()
}

fn some(protections: &[&str]) -> Vec<Option<String>> {
    protections.iter().map(|&protection| Some(protection.to_owned())).collect()
}

#[test]
fn the_pages_have_the_mappings_access_and_guards_on_either_side() {
    let (disk, _ram) = disk(false);
    let (addr, len) = (3 * PAGE as u64 - 8, 16);
    for (flags, within) in
        [(MapFlags::READ, "r--s"), (MapFlags::RW, "rw-s"), (MapFlags::WRITE, "-w-s")]
    {
        let mapping = map(&disk, addr, len, flags);
        let fence = mapping.fence().unwrap();
        assert_eq!(fence.as_ptr().addr() % PAGE, PAGE - 8);
        assert_eq!(around(fence.as_ptr(), 2), some(&["---p", within, within, "---p"]));
    }
}

#[test]
fn its_memory_is_the_guests() {
    let (disk, ram) = disk(false);
    let mapping = map(&disk, 5 * PAGE as u64 + 12, 8, MapFlags::RW);
    let fence = mapping.fence().unwrap();
    assert_ne!(fence.as_ptr().cast_const(), mapping.as_ptr());
    let memory = fs::File::options().read(true).write(true).open("/proc/self/mem").unwrap();
    ram.write_at(5 * PAGE as u64 + 12, b"as it is").unwrap();
    let mut bytes = [0; 8];
    memory.read_exact_at(&mut bytes, fence.as_ptr().addr() as u64).unwrap();
    assert_eq!(&bytes, b"as it is");
    memory.write_all_at(b"afterwrd", fence.as_ptr().addr() as u64).unwrap();
    mapping.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"afterwrd");
}

#[test]
fn nothing_stays_mapped_after_it() {
    let (disk, ram) = disk(false);
    let (file, _) = ram.file().unwrap();
    let inode = format!(" {} ", rustix::fs::fstat(file).unwrap().st_ino);
    let mapped = || {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(&inode)).count()
    };
    let before = mapped();
    let mapping = map(&disk, 0, PAGE as u64, MapFlags::RW);
    let fence = mapping.fence().unwrap();
    assert_eq!(mapped(), before + 1);
    drop(fence);
    assert_eq!(mapped(), before);
}

#[test]
fn a_token_can_have_its_pointer() {
    let (disk, _ram) = disk(false);
    let mapping = map(&disk, 0, 8, MapFlags::RW);
    let fence = mapping.fence().unwrap();
    let plain = mapping.as_ptr();
    let token = mapping.into_fenced_token(&fence);
    assert_eq!(token.pointer(), Some(fence.as_ptr()));
    let [slot, stamp, _] = token.words();
    let other = Token::from_words([slot, stamp, plain.addr() as u64]);
    assert!(other.pointer().is_none() && !other.unmap(), "a token has one pointer only");
    drop(fence);
    assert!(token.unmap() && token.pointer().is_none());
}

#[test]
fn ram_that_is_sealed_against_writing_is_fenced_for_reading_only() {
    let (disk, _ram) = disk(true);
    let reader = map(&disk, 0, 8, MapFlags::READ);
    assert_eq!(around(reader.fence().unwrap().as_ptr(), 1), some(&["---p", "r--s", "---p"]));
    let error = map(&disk, 0x1230, 8, MapFlags::RW).fence().unwrap_err();
    assert_eq!(error.errno_name(), "EPERM");
    assert!(error.to_string().contains("0x1230"), "{error}");
}

#[test]
fn a_revoke_waits_for_the_mapping_and_not_for_its_fence() {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let ram = MemoryObject::ram(PAGE as u64).prefer(&[Backing::Base]).create().unwrap();
    guest.space().add_ram(Some(GuestPhys(0)), &ram).unwrap();
    let vdev = guest.vdev("disk").unwrap();
    let domain = guest.domain("disk", DomainOptions::new(DomainKind::Translate)).unwrap();
    domain.grant(DeviceAddr(0), GuestPhys(0), PAGE as u64, Access::RW).unwrap();
    vdev.attach(&domain).unwrap().wait();
    let mapping = vdev.map(DeviceAddr(0), 8, MapFlags::RW).unwrap();
    let fence = mapping.fence().unwrap();
    let mut drain = domain.revoke(DeviceAddr(0), PAGE as u64).unwrap();
    drop(fence);
    assert_eq!(drain.pending(), 1, "the drain waits for the mapping");
    let fence = mapping.fence().unwrap();
    drop(mapping);
    assert_eq!(drain.pending(), 0);
    drop(fence);
}
