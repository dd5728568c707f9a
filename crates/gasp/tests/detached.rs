//! Mappings that have outlived their revoke: their memory is kept for as long as they are held
//! and no longer, and they cost no other revoke time.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gasp::{
    Access, DeviceAddr, Domain, DomainKind, DomainOptions, Drain, Guest, GuestPhys, MapFlags,
    Mapping, MemoryObject, Unattached, Vdev,
};
use support::*;

const RW: MapFlags = MapFlags::RW;

/// Memory that can be found in `/proc/self/maps`, by its name.
struct Named(String);

impl Named {
    fn new(guest: &Guest, start: GuestPhys) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("gasp-detached-{}", NEXT.fetch_add(1, Relaxed));
        let fd = rustix::fs::memfd_create(&name, rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, 4 * PAGE).unwrap();
        let object = MemoryObject::adopt(fd, whole(4 * PAGE)).unwrap();
        guest.space().add_ram(Some(start), &object).unwrap();
        Self(name)
    }

    fn is_mapped(&self) -> bool {
        let name = format!("/memfd:{} ", self.0);
        std::fs::read_to_string("/proc/self/maps").unwrap().contains(&name)
    }
}

/// A guest whose drains detach at once, with memory, and a mapping of its first page.
fn scene() -> (Guest, Named, Vdev, Domain, Mapping) {
    let builder = Guest::builder().iommu(Unattached::Deny).drain(detach_after(Duration::ZERO));
    let guest = builder.build().unwrap();
    let memory = Named::new(&guest, GuestPhys(0));
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), 4 * PAGE, Access::RW).unwrap();
    let held = disk.map(DeviceAddr(0), PAGE, RW).unwrap();
    held.store(8, 0x5eed_u64, Relaxed).unwrap();
    (guest, memory, disk, domain, held)
}

fn detaches(drain: Drain) {
    let drained = drain.wait();
    assert_eq!((drained.holders, drained.detached), (1, 1));
}

/// Removes the memory from the guest, and asserts that the mapping keeps all of it until it
/// ends.
fn is_kept_until_dropped(guest: &Guest, memory: &Named, held: Mapping) {
    let drain = guest.space().remove(span(0, 4 * PAGE)).unwrap();
    assert_eq!(drain.wait().holders, 0, "the mapping was detached before");
    assert!(held.is_revoked());
    assert!(memory.is_mapped(), "the memory was unmapped under a mapping");
    assert_eq!(held.load::<u64>(8, Relaxed).unwrap(), 0x5eed);
    drop(held);
    assert!(!memory.is_mapped(), "nobody holds it any more");
}

#[test]
fn a_revoke_keeps_the_memory_of_what_it_detaches() {
    let (guest, memory, _disk, domain, held) = scene();
    detaches(domain.revoke(DeviceAddr(0), 4 * PAGE).unwrap());
    is_kept_until_dropped(&guest, &memory, held);
}

#[test]
fn moving_a_device_keeps_the_memory_of_what_it_detaches() {
    let (guest, memory, disk, domain, held) = scene();
    let other = guest.domain("other", DomainOptions::new(DomainKind::Identity)).unwrap();
    detaches(disk.attach(&other).unwrap());
    domain.remove().unwrap();
    is_kept_until_dropped(&guest, &memory, held);
}

#[test]
fn detaching_a_device_keeps_the_memory_of_what_it_detaches() {
    let (guest, memory, disk, domain, held) = scene();
    detaches(disk.detach());
    domain.remove().unwrap();
    is_kept_until_dropped(&guest, &memory, held);
}

#[test]
fn removing_a_device_keeps_the_memory_of_what_it_detaches() {
    let (guest, memory, disk, domain, held) = scene();
    detaches(disk.remove());
    domain.remove().unwrap();
    is_kept_until_dropped(&guest, &memory, held);
}

#[test]
fn removing_memory_keeps_it_for_what_is_detached() {
    let (guest, memory, _disk, _domain, held) = scene();
    detaches(guest.space().remove(span(0, 4 * PAGE)).unwrap());
    assert!(memory.is_mapped() && held.is_revoked());
    assert_eq!(held.load::<u64>(8, Relaxed).unwrap(), 0x5eed);
    drop(held);
    assert!(!memory.is_mapped());
}

#[test]
fn the_end_of_a_guest_keeps_the_memory_of_what_is_held() {
    let (guest, memory, disk, domain, held) = scene();
    drop((guest, disk, domain));
    assert!(memory.is_mapped() && held.is_revoked());
    assert_eq!(held.load::<u64>(8, Relaxed).unwrap(), 0x5eed);
    drop(held);
    assert!(!memory.is_mapped());
}

#[test]
fn memory_stays_until_the_last_mapping_of_several_drains_is_gone() {
    let (guest, memory, disk, domain, first) = scene();
    let second = disk.map(DeviceAddr(PAGE), PAGE, RW).unwrap();
    for _ in 0..100 {
        // Each finds both again; what is kept does not grow.
        let drained = domain.revoke(DeviceAddr(0), 4 * PAGE).unwrap().wait();
        assert_eq!((drained.holders, drained.detached), (2, 2));
        domain.grant_identity(GuestPhys(0), 4 * PAGE, Access::RW).unwrap();
    }
    domain.revoke(DeviceAddr(0), 4 * PAGE).unwrap().wait();
    guest.space().remove(span(0, 4 * PAGE)).unwrap().wait();
    let token = first.into_token();
    assert_eq!(token.is_revoked(), Some(true));
    assert!(std::thread::spawn(move || token.unmap()).join().unwrap(), "on another thread");
    assert!(memory.is_mapped(), "the other mapping still has it");
    drop(second);
    assert!(!memory.is_mapped());
}

/// Processor time of this thread in nanoseconds: what others do meanwhile does not count.
fn time_on_processor() -> u64 {
    // The kernel updates the figure when the thread yields.
    std::thread::yield_now();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_end_of_very_many_detached_mappings_takes_time_in_proportion() {
    let time = |count: u64| {
        let (guest, memory, disk, domain, first) = scene();
        let map = |_| disk.map(DeviceAddr(PAGE), PAGE, RW).unwrap();
        let held: Vec<Mapping> = (1..count).map(map).chain([first]).collect();
        let drained = domain.revoke(DeviceAddr(0), 4 * PAGE).unwrap().wait();
        assert_eq!(drained.detached as u64, count);
        guest.space().remove(span(0, 4 * PAGE)).unwrap().wait();
        let started = time_on_processor();
        drop(held);
        let took = time_on_processor() - started;
        assert!(!memory.is_mapped());
        took
    };
    let best = |count| (0..3).map(|_| time(count)).min().unwrap();
    let (few, many) = (best(8000), best(64_000));
    assert!(many < few * 8 * 4, "8,000 take {few} ns, 64,000 {many} ns");
}

#[test]
fn what_other_guests_have_detached_costs_a_revoke_nothing() {
    // Each has its own drain, and so an entry of its own in whatever is searched.
    const COUNT: u64 = 2000;
    let builder = Guest::builder().iommu(Unattached::Deny).drain(detach_after(Duration::ZERO));
    let guest = builder.build().unwrap();
    let object = Arc::new(ram(COUNT * PAGE));
    guest.space().add_ram(Some(GuestPhys(0)), &object).unwrap();
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    let (victim_guest, _ram) = iommu_guest(PAGE);
    let (_, victim) = device(&victim_guest, "victim", DomainKind::Identity);
    let cost = || {
        let once = || {
            victim.grant_identity(GuestPhys(0), PAGE, Access::RW).unwrap();
            let started = Instant::now();
            victim.revoke(DeviceAddr(0), PAGE).unwrap().wait();
            started.elapsed()
        };
        (0..20).map(|_| once()).min().unwrap()
    };
    let revoke = |page: u64| {
        domain.grant_identity(GuestPhys(page * PAGE), PAGE, Access::RW).unwrap();
        let held = disk.map(DeviceAddr(page * PAGE), PAGE, RW).unwrap();
        detaches(domain.revoke(DeviceAddr(page * PAGE), PAGE).unwrap());
        held
    };
    let before = cost();
    let held: Vec<Mapping> = (0..COUNT).map(revoke).collect();
    let with = cost();
    drop(held);
    let after = [cost(), cost()][1];
    // A scan reads what is held, in any guest: some nanoseconds each, here in a debug build.
    let each = |cost: Duration| cost.saturating_sub(before) / COUNT as u32;
    assert!(each(with) < Duration::from_micros(1), "{before:?} before, {with:?} with {COUNT}");
    assert!(after < before * 8 + Duration::from_micros(20), "{before:?} before, {after:?} after");
}

#[test]
fn the_drain_of_a_device_that_moves_keeps_to_the_domain_that_it_leaves() {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let domain = |name: &str, milliseconds: u64| {
        let deadline = Duration::from_millis(milliseconds);
        let drain = Some(gasp::DrainPolicy { deadline, at_deadline: gasp::Deadline::Detach });
        let options = DomainOptions { drain, ..DomainOptions::new(DomainKind::Identity) };
        guest.domain(name, options).unwrap()
    };
    let disk = guest.vdev("disk").unwrap();
    let deadline = |drain: Drain| drain.policy().deadline.as_millis();
    let default = gasp::DrainPolicy::default().deadline.as_millis();
    assert_eq!(deadline(disk.attach(&domain("one", 11)).unwrap()), default, "it was in no domain");
    assert_eq!(deadline(disk.attach(&domain("two", 12)).unwrap()), 11);
    assert_eq!(deadline(disk.detach()), 12);
    drop(disk.attach(&domain("three", 13)).unwrap());
    assert_eq!(deadline(disk.remove()), 13);
}

/// A removal of memory scans after every 65,536 ranges that lead to it, and once at the end.
#[test]
fn the_scans_of_one_removal_have_one_drain() {
    const LAST: u64 = 2 * 65_535;
    let builder = Guest::builder().iommu(Unattached::Deny).drain(detach_after(Duration::ZERO));
    let guest = builder.build().unwrap();
    let (disk, domain) = device(&guest, "disk", DomainKind::Translate);
    guest.space().add_ram(Some(GuestPhys(4 * PAGE)), &ram(PAGE)).unwrap();
    // The memory's guest-physical addresses are the first range, and these are 65,536 more, no
    // two of them adjacent: so the last one alone is in the second scan.
    for page in (0..=LAST).step_by(2) {
        domain.grant(DeviceAddr(page * PAGE), GuestPhys(0), PAGE, Access::RW).unwrap();
    }
    let other = DeviceAddr((LAST - 1) * PAGE);
    domain.grant(other, GuestPhys(4 * PAGE), PAGE, Access::RW).unwrap();

    let memory = Named::new(&guest, GuestPhys(0));
    let held = disk.map(DeviceAddr(LAST * PAGE), PAGE, RW).unwrap();
    detaches(guest.space().remove(span(0, 4 * PAGE)).unwrap());
    assert!(memory.is_mapped() && held.is_revoked(), "only the second scan has found it");
    drop(held);
    assert!(!memory.is_mapped());

    let memory = Named::new(&guest, GuestPhys(0));
    let held = disk.map_scatter(DeviceAddr((LAST - 2) * PAGE), 3 * PAGE, RW).unwrap();
    // Both scans find it, and it counts once.
    detaches(guest.space().remove(span(0, 4 * PAGE)).unwrap());
    assert!(memory.is_mapped() && held.is_revoked());
}
