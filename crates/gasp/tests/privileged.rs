//! Tests that need privilege: real frame numbers, pins, huge page pools.
//!
//! Each trial declares what it needs. If the machine does not have it, the trial is marked as
//! ignored, with the reason in its name, so that it is counted and visible.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;
#[path = "support/trials.rs"]
mod trials;

use std::os::unix::fs::FileExt;

use gasp::{
    Access, Adopt, Backing, DeviceAddr, DomainKind, Guest, GuestPhys, HostExtent, HostRun,
    MapFlags, MemoryObject, Residency, Stability, Unattached, Vdev, Walk,
};
use gasp::{PinAccess, pin_access};
use libtest_mimic::Arguments;
use support::*;
use trials::*;

const SIZE: u64 = 16 << 20;
const COMPACT: &str = "/proc/sys/vm/compact_memory";

/// Pins of `SIZE` bytes, by any method.
fn pins() -> Lack {
    match pin_access(SIZE as usize) {
        PinAccess::Allowed => None,
        PinAccess::Denied(why) => Some(why.into()),
    }
}

fn main() {
    let mut trials = Vec::new();
    for (kind, len) in [
        (Backing::Base, SIZE),
        (Backing::Thp, SIZE),
        (Backing::Huge2M, 2 * HUGE),
        (Backing::Huge1G, 1 << 30),
    ] {
        let lacks = [frames(), backing(kind, len)];
        let mut add = |what: &str, body: fn(Backing, u64)| {
            trials.push(trial(format!("{what} ({kind})"), &lacks, move || body(kind, len)));
        };
        add("host_run_agrees_with_pagemap", host_run_agrees_with_pagemap);
        add("runs_tile_the_object", runs_tile_the_object);
        add("advancing_by_the_returned_lengths_covers_everything", walking_covers_all);
        add("a_walk_returns_the_same_addresses", a_walk_returns_the_same);
        add("stability_is_what_holds_the_pages", stability_is_what_holds);
    }
    let huge_pages_have_long_runs = || huge_runs(Backing::Thp, 2 * HUGE);
    let lacks = [frames(), backing(Backing::Thp, 2 * HUGE)];
    trials.push(trial("gathered_pages_have_runs_of_2_mib", &lacks, huge_pages_have_long_runs));
    let lacks = [frames(), pins(), writable(COMPACT)];
    trials.push(trial("pinned_pages_stay_when_memory_is_compacted", &lacks, pinned_stay));
    let lacks = [frames(), pins()];
    trials.push(trial("a_pinned_address_is_accepted", &lacks, pinned_accepted));
    let lacks = [frames(), backing(Backing::Huge2M, HUGE)];
    trials.push(trial("a_hugetlb_memfd_is_adopted_in_its_pages", &lacks, hugetlb_adopted));
    let lacks = [frames()];
    let name = "a_run_inside_a_page_of_the_table_is_held_for_what_it_is";
    trials.push(trial(name, &lacks, short_run_held));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Memory with one word in the table, whose pages were allocated in swapped pairs.
fn short_run_held() {
    let file = std::fs::File::from(memfd(HUGE));
    for page in 0..HUGE / PAGE {
        file.write_all_at(&[1], (page ^ 1) * PAGE).unwrap();
    }
    let object = MemoryObject::adopt(file.into(), Adopt::new("scattered", HUGE)).unwrap();
    let guest = Guest::builder()
        .iommu(Unattached::Deny)
        .allow_unpinned(true)
        .drain(patient())
        .build()
        .unwrap();
    guest.space().add_ram(Some(GuestPhys(0)), &object).unwrap();
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    let allow = || domain.grant_identity(GuestPhys(0), HUGE, Access::RW).unwrap();
    allow();
    let mut shortened = 0;
    for page in 0..64 {
        assert_eq!(domain.entries(), 1, "a word for all of it");
        let addr = page * PAGE;
        let held = disk.map_host_contig(DeviceAddr(addr), HUGE - addr, MapFlags::READ).unwrap();
        let len = held.len() as u64;
        if len < HUGE - addr {
            shortened += 1;
            let mut after = domain.revoke(DeviceAddr(addr + len), HUGE - addr - len).unwrap();
            assert_eq!(after.pending(), 0, "it does not reach there");
            let mut under = domain.revoke(DeviceAddr(addr + len - PAGE), PAGE).unwrap();
            assert_eq!(under.pending(), 1, "its last page");
        }
        drop(held);
        domain.revoke(DeviceAddr(0), HUGE).unwrap().wait();
        allow();
    }
    assert!(shortened > 0, "pages that were allocated in this order are one run");
}

/// The host-physical address of a byte, from the kernel's own table.
fn frame_of(addr: usize) -> u64 {
    let page = rustix::param::page_size();
    let mut entry = [0; 8];
    let offset = (addr / page * 8) as u64;
    pagemap().unwrap().read_exact_at(&mut entry, offset).unwrap();
    let entry = u64::from_ne_bytes(entry);
    assert_ne!(entry >> 63, 0, "the page is in memory");
    (entry & ((1 << 55) - 1)) * page as u64 + (addr % page) as u64
}

fn made(backing: Backing, len: u64) -> (Guest, Vdev, MemoryObject) {
    let ram = MemoryObject::ram(len).prefer(&[backing]).create().unwrap();
    let guest = Guest::builder().build().unwrap();
    guest.space().add_ram(Some(GuestPhys(0)), &ram).unwrap();
    let vdev = guest.vdev("disk").unwrap();
    (guest, vdev, ram)
}

fn host_run_agrees_with_pagemap(backing: Backing, len: u64) {
    let (_guest, vdev, _ram) = made(backing, len);
    let mut random = Random::new(3);
    for _ in 0..200 {
        let addr = random.below(len);
        let max = 1 + random.below((len - addr).min(4 * HUGE));
        let mapping = vdev.map_host_contig(DeviceAddr(addr), max, MapFlags::RW).unwrap();
        let HostRun { addr, len: run } = mapping.host_run().unwrap();
        assert_eq!((run, mapping.len() as u64), (mapping.len() as u64, run.min(max)));
        let vaddr = mapping.as_ptr().addr();
        // Each of the first pages, the last byte, and a random one.
        let last = run - 1;
        let points = (0..run).step_by(PAGE as usize).take(16).chain([last, random.below(run)]);
        for point in points {
            assert_eq!(frame_of(vaddr + point as usize), addr.0 + point, "at {point:#x}");
        }
    }
}

fn runs_tile_the_object(backing: Backing, len: u64) {
    let (_guest, vdev, ram) = made(backing, len);
    let mut next = 0;
    let mut end = None;
    for HostExtent { offset, len, addr } in ram.host_extents() {
        let addr = addr.expect("every page has an address").0;
        assert_eq!(offset, next, "no gap and no overlap");
        assert_ne!(addr, 0);
        assert_ne!(end, Some(addr), "consecutive frames are one run");
        next = offset + len;
        end = Some(addr + len);
    }
    assert_eq!(next, len);
    let mapping = vdev.map(DeviceAddr(5), len - 9, MapFlags::READ).unwrap();
    let total: u64 = mapping.host_extents().map(|extent| extent.len).sum();
    assert_eq!(total, len - 9);
}

fn walking_covers_all(backing: Backing, len: u64) {
    let (_guest, vdev, ram) = made(backing, len);
    let start = 0x123;
    let mut addr = start;
    let mut pieces = 0;
    while addr < len {
        let mapping = vdev.map_host_contig(DeviceAddr(addr), len - addr, MapFlags::READ).unwrap();
        let run = mapping.host_run().unwrap();
        let got = mapping.len() as u64;
        assert!(got > 0 && got <= len - addr);
        if addr + got < len {
            // It could not have been longer: the next page is elsewhere.
            let next = ram.host_run(addr + got, 1).unwrap();
            assert_ne!(next.addr.0, run.addr.0 + got, "shortened too early at {addr:#x}");
        }
        addr += got;
        pieces += 1;
    }
    assert_eq!(addr, len);
    assert_eq!(pieces, ram.host_extents().count());
}

fn a_walk_returns_the_same(backing: Backing, len: u64) {
    let (guest, vdev, _ram) = made(backing, len);
    let entries = guest.space().walk(Walk { max_len: HUGE, host: true });
    assert_eq!(entries.iter().map(|entry| entry.guest.len()).sum::<u64>(), len);
    for entry in entries {
        let addr = DeviceAddr(entry.guest.start().0);
        let mapping = vdev.map_host_contig(addr, entry.guest.len(), MapFlags::READ).unwrap();
        assert_eq!(Some(mapping.host_run().unwrap().addr), entry.host);
        assert_eq!(mapping.len() as u64, entry.guest.len());
    }
}

fn stability_is_what_holds(backing: Backing, len: u64) {
    for residency in [Residency::Pinned, Residency::Resident, Residency::OnDemand] {
        let ram = MemoryObject::ram(len).prefer(&[backing]).residency(residency).create().unwrap();
        let pool = matches!(backing, Backing::Huge1G | Backing::Huge2M);
        let without = if pool { Stability::Reserved } else { Stability::Unpinned };
        let want = match (residency, ram.not_pinned_because()) {
            (Residency::Pinned, None) => Stability::Pinned,
            _ => without,
        };
        assert_eq!(ram.stability(), want, "{residency:?}");
        assert_eq!(ram.host_run(0, 1).is_ok(), residency != Residency::OnDemand);
    }
}

fn huge_runs(backing: Backing, len: u64) {
    let (_guest, _vdev, ram) = made(backing, len);
    let note = ram.backing().note.clone().unwrap_or_default();
    if note.starts_with(&format!("{} of", len / HUGE)) {
        for offset in (0..len).step_by(HUGE as usize) {
            let run = ram.host_run(offset, HUGE).unwrap();
            assert_eq!((run.len, run.addr.0 % HUGE), (HUGE, 0), "{note}");
        }
    }
}

fn pinned_stay() {
    let (_guest, vdev, ram) = made(Backing::Base, SIZE);
    assert_eq!(ram.stability(), Stability::Pinned);
    let base = vdev.map(DeviceAddr(0), SIZE, MapFlags::READ).unwrap();
    let addrs = || -> Vec<u64> {
        let vaddr = base.as_ptr().addr();
        (0..SIZE).step_by(PAGE as usize).map(|offset| frame_of(vaddr + offset as usize)).collect()
    };
    let before = addrs();
    for _ in 0..3 {
        std::fs::write(COMPACT, "1").unwrap();
    }
    assert_eq!(addrs(), before);
    let reported: Vec<u64> = (0..SIZE)
        .step_by(PAGE as usize)
        .map(|offset| ram.host_run(offset, 1).unwrap().addr.0)
        .collect();
    assert_eq!(reported, before, "and the frame table is still right");
}

fn pinned_accepted() {
    let (_guest, vdev, _ram) = made(Backing::Base, SIZE);
    let mapping = vdev.map_host_contig(DeviceAddr(0), 8, MapFlags::RW).unwrap();
    assert_eq!(mapping.stability(), Stability::Pinned);
}

fn hugetlb_adopted() {
    use rustix::fs::MemfdFlags;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let file = || {
        let fd = rustix::fs::memfd_create("gasp-huge", flags).unwrap();
        rustix::fs::ftruncate(&fd, HUGE).unwrap();
        fd
    };
    let how = gasp::Adopt { residency: Residency::Pinned, ..whole(HUGE) };
    let object = MemoryObject::adopt(file(), how).unwrap();
    assert_eq!(object.page_size() as u64, HUGE);
    assert_eq!(object.host_run(0, HUGE).unwrap().len, HUGE, "one page is one run");
    let part = gasp::Adopt { len: PAGE, ..how };
    assert_eq!(errno(MemoryObject::adopt(file(), part)), "EINVAL", "whole pages only");
}
