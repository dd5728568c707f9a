//! Threads that map, while others grant, revoke, move, add and remove.
//!
//! The guarantee under test: when a revoke has completed, no mapping created before it reaches
//! the range. A test then poisons the memory, and checks that nobody writes to it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use gasp::{
    Access, Deadline, DeviceAddr, Domain, DomainKind, DomainOptions, DrainPolicy, Guest, GuestPhys,
    MapFlags, Mapping, Vdev,
};
use support::*;

const RW: MapFlags = MapFlags::RW;
/// Duration of the tests that race.
const RACE: Duration = Duration::from_millis(700);

fn grant(domain: &Domain, page: u64) {
    domain.grant_identity(GuestPhys(page * PAGE), PAGE, Access::RW).unwrap();
}

fn map(vdev: &Vdev, page: u64) -> gasp::Result<Mapping> {
    vdev.map(DeviceAddr(page * PAGE), PAGE, RW)
}

/// Writes `value` all over a mapping.
fn scribble(mapping: &Mapping, value: u64) {
    for offset in (0..mapping.len()).step_by(64) {
        mapping.store(offset, value, Relaxed).unwrap();
    }
}

/// Asserts that nobody writes to a revoked page.
fn assert_untouched(guest: &Guest, page: u64, poison: u64) {
    let view = guest.map_firmware(GuestPhys(page * PAGE), PAGE, RW).unwrap();
    scribble(&view, poison);
    // A thread that was preempted between two stores runs now.
    thread::yield_now();
    for offset in (0..view.len()).step_by(64) {
        let word: u64 = view.load(offset, Relaxed).unwrap();
        assert_eq!(word, poison, "page {page} was written after its revoke");
    }
}

#[test]
fn no_device_writes_to_a_page_once_its_revoke_has_completed() {
    const PAGES: u64 = 16;
    let (guest, _ram) = iommu_guest(PAGES * PAGE);
    let (_, domain) = device(&guest, "first", DomainKind::Identity);
    (0..PAGES).for_each(|page| grant(&domain, page));
    // Set while a page is revoked: no thread that holds a mapping of it may see it set.
    let revoked: Arc<[AtomicBool]> = (0..PAGES).map(|_| AtomicBool::new(false)).collect();
    let (stop, maps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let devices: Vec<_> = (0..2)
        .map(|index| {
            let vdev = guest.vdev(&format!("racer{index}")).unwrap();
            vdev.attach(&domain).unwrap().wait();
            let (stop, maps, revoked) = (stop.clone(), maps.clone(), revoked.clone());
            thread::spawn(move || {
                let mut random = Random::new(index);
                while !stop.load(Relaxed) {
                    let page = random.below(PAGES);
                    // Sometimes one page, sometimes all from there on.
                    let pages = if random.below(4) == 0 { PAGES - page } else { 1 };
                    let addr = DeviceAddr(page * PAGE);
                    let Ok(mapping) = vdev.map(addr, pages * PAGE, RW) else { continue };
                    for _ in 0..random.below(4) {
                        scribble(&mapping, index + 1);
                    }
                    let touched = &revoked[page as usize..(page + pages) as usize];
                    let late = touched.iter().any(|revoked| revoked.load(SeqCst));
                    assert!(!late, "a revoke completed while its page was held");
                    drop(mapping);
                    maps.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let (mut random, mut rounds) = (Random::new(99), 0);
    let started = Instant::now();
    while started.elapsed() < RACE {
        let page = random.below(PAGES);
        assert!(domain.revoke(DeviceAddr(page * PAGE), PAGE).unwrap().wait().completed());
        revoked[page as usize].store(true, SeqCst);
        assert_untouched(&guest, page, 0xdead_0000 | rounds);
        revoked[page as usize].store(false, SeqCst);
        grant(&domain, page);
        rounds += 1;
    }
    stop.store(true, Relaxed);
    devices.into_iter().for_each(|device| device.join().unwrap());
    assert!(maps.load(Relaxed) > 100 && rounds > 2, "{maps:?} maps, {rounds} revokes");
}

#[test]
fn no_device_writes_to_memory_once_its_removal_has_completed() {
    let guest = Guest::builder().drain(patient()).build().unwrap();
    let objects = [ram(PAGE), ram(PAGE)];
    guest.space().add_ram(Some(GuestPhys(0)), &objects[0]).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let devices: Vec<_> = ["a", "b"]
        .map(|name| {
            let (vdev, stop) = (guest.vdev(name).unwrap(), stop.clone());
            thread::spawn(move || {
                while !stop.load(Relaxed) {
                    if let Ok(mapping) = map(&vdev, 0) {
                        scribble(&mapping, 7);
                    }
                }
            })
        })
        .into();
    let started = Instant::now();
    for round in 0_usize.. {
        if started.elapsed() > RACE {
            break;
        }
        let (old, new) = (&objects[round % 2], &objects[(round + 1) % 2]);
        assert!(guest.space().remove(span(0, PAGE)).unwrap().wait().completed());
        guest.space().add_ram(Some(GuestPhys(0)), new).unwrap();
        let poison = 0xdead_beef_u64.to_le_bytes();
        old.write_at(64, &poison).unwrap();
        let mut bytes = [0; 8];
        for _ in 0..20 {
            old.read_at(64, &mut bytes).unwrap();
            assert_eq!(bytes, poison, "removed memory was written");
        }
    }
    stop.store(true, Relaxed);
    devices.into_iter().for_each(|device| device.join().unwrap());
}

#[test]
fn a_device_that_is_moved_while_it_maps_never_writes_to_where_it_was() {
    let (guest, _ram) = iommu_guest(2 * PAGE);
    let domains = ["even", "odd"].map(|name| {
        let options = DomainOptions::new(DomainKind::Translate);
        guest.domain(name, options).unwrap()
    });
    for (page, domain) in (0..).zip(&domains) {
        domain.grant(DeviceAddr(0), GuestPhys(page * PAGE), PAGE, Access::RW).unwrap();
    }
    let (vdev, stop) = (guest.vdev("mover").unwrap(), Arc::new(AtomicBool::new(false)));
    vdev.attach(&domains[0]).unwrap().wait();
    let device = thread::spawn({
        let (vdev, stop) = (vdev.clone(), stop.clone());
        move || {
            while !stop.load(Relaxed) {
                let mapping = map(&vdev, 0).expect("it is always attached to some domain");
                scribble(&mapping, 7);
            }
        }
    });
    let started = Instant::now();
    for round in 1_u64.. {
        if started.elapsed() > RACE {
            break;
        }
        let (to, from) = (round % 2, (round + 1) % 2);
        assert!(vdev.attach(&domains[to as usize]).unwrap().wait().completed());
        assert_untouched(&guest, from, 0xdead_0000 | round);
    }
    stop.store(true, Relaxed);
    device.join().unwrap();
}

#[test]
fn a_mapping_can_be_dropped_on_another_thread() {
    let (guest, _ram) = iommu_guest(4 * PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    grant(&domain, 0);
    let (give, take) = mpsc::sync_channel::<Mapping>(64);
    let other =
        thread::spawn(move || take.into_iter().map(|mapping| scribble(&mapping, 1)).count());
    for _ in 0..10_000 {
        give.send(map(&disk, 0).unwrap()).unwrap();
    }
    let drained = domain.revoke(DeviceAddr(0), PAGE).unwrap().wait();
    assert!(drained.completed() && drained.holders <= 66, "{drained:?}");
    drop(give);
    assert_eq!(other.join().unwrap(), 10_000);
}

#[test]
fn mappings_outlive_the_thread_that_made_them() {
    let (guest, ram) = iommu_guest(8 * PAGE);
    number_pages(&ram, 1);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), 8 * PAGE, Access::RW).unwrap();
    let make = {
        let disk = disk.clone();
        move || (0..8).map(|page| map(&disk, page).unwrap()).collect::<Vec<_>>()
    };
    let held = thread::spawn(make.clone()).join().unwrap();
    // A later thread takes over the lane of the one that ended, with the mappings left in it.
    let more = thread::spawn(make).join().unwrap();
    for (page, mapping) in (0..).zip(&held) {
        assert_eq!(word(mapping), numbered(1, page));
    }
    let mut drain = domain.revoke(DeviceAddr(0), 4 * PAGE).unwrap();
    assert_eq!(drain.pending(), 8);
    drop(held);
    assert_eq!(drain.pending(), 4);
    drop(more);
    assert!(drain.wait().completed());
}

#[test]
fn ten_thousand_mappings_at_once_are_each_found_and_each_waited_for() {
    const COUNT: u64 = 10_000;
    let (guest, ram) = iommu_guest(COUNT * PAGE);
    number_pages(&ram, 1);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), COUNT * PAGE, Access::RW).unwrap();
    let mut held: Vec<_> = (0..COUNT).map(|page| map(&disk, page).unwrap()).collect();
    assert!((0..COUNT).zip(&held).all(|(page, mapping)| word(mapping) == numbered(1, page)));
    let mut one = domain.revoke(DeviceAddr(5000 * PAGE), PAGE).unwrap();
    assert_eq!(one.pending(), 1, "the one that overlaps, of ten thousand");
    drop(held.swap_remove(5000));
    assert!(one.wait().completed());
    let mut drain = domain.revoke(DeviceAddr(0), COUNT * PAGE).unwrap();
    assert_eq!(drain.pending(), held.len());
    drop(held);
    assert_eq!(drain.pending(), 0);
    assert_eq!(drain.wait().holders as u64, COUNT - 1);
}

#[test]
fn a_poll_of_a_drain_waits_for_nothing_and_ends_it_as_a_wait_does() {
    let (guest, _ram) = iommu_guest(PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    grant(&domain, 0);
    let none = domain.revoke(DeviceAddr(0), PAGE).unwrap().poll().unwrap();
    assert_eq!((none.holders, none.detached, none.waited), (0, 0, Duration::ZERO));

    grant(&domain, 0);
    let held = map(&disk, 0).unwrap();
    let mut drain = domain.revoke(DeviceAddr(0), PAGE).unwrap();
    assert_eq!(drain.poll(), None);
    drop(held);
    assert_eq!(drain.poll_with(2), None, "two others have not finished");
    let drained = drain.poll().unwrap();
    assert_eq!((drained.holders, drained.detached), (3, 0), "a mapping and two others");
}

#[test]
fn a_poll_after_the_deadline_detaches_or_goes_on_as_the_policy_says() {
    let (guest, _ram) = iommu_guest(PAGE);
    for (at_deadline, ended) in [(Deadline::Detach, Some((4, 4))), (Deadline::Wait, None)] {
        let name = format!("{at_deadline:?}");
        let mut options = DomainOptions::new(DomainKind::Identity);
        options.drain = Some(DrainPolicy { deadline: Duration::ZERO, at_deadline });
        let domain = guest.domain(&name, options).unwrap();
        let disk = guest.vdev(&name).unwrap();
        disk.attach(&domain).unwrap().wait();
        grant(&domain, 0);
        let held = map(&disk, 0).unwrap();
        let mut drain = domain.revoke(DeviceAddr(0), PAGE).unwrap();
        let polled = drain.poll_with(3);
        assert_eq!(polled.map(|drained| (drained.holders, drained.detached)), ended);
        assert_eq!(held.is_revoked(), ended.is_some(), "while the drain is still there");
    }
}

#[test]
fn a_drain_waits_for_the_last_of_several_holders_and_no_longer() {
    let (guest, _ram) = iommu_guest(PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    grant(&domain, 0);
    let held: Vec<_> = (0..4).map(|_| map(&disk, 0).unwrap()).collect();
    let last_gone = Arc::new(AtomicBool::new(false));
    let drain = domain.revoke(DeviceAddr(0), PAGE).unwrap();
    let waiter = thread::spawn({
        let last_gone = last_gone.clone();
        move || {
            let drained = drain.wait();
            assert!(last_gone.load(SeqCst), "it ended before the last holder unmapped");
            drained
        }
    });
    for (index, mapping) in held.into_iter().enumerate() {
        thread::sleep(Duration::from_millis(5));
        last_gone.store(index == 3, SeqCst);
        drop(mapping);
    }
    let dropped = Instant::now();
    let drained = waiter.join().unwrap();
    assert!(dropped.elapsed() < Duration::from_secs(1), "and not long after it did");
    assert_eq!((drained.holders, drained.completed()), (4, true));
}

#[test]
fn a_drain_that_waits_blocks_nothing_else() {
    let (guest, _ram) = iommu_guest(4 * PAGE);
    let (slow, held_domain) = device(&guest, "slow", DomainKind::Identity);
    let (quick, other) = device(&guest, "quick", DomainKind::Identity);
    grant(&held_domain, 0);
    let held = map(&slow, 0).unwrap();
    let drain = held_domain.revoke(DeviceAddr(0), PAGE).unwrap();
    let waiter = thread::spawn(move || drain.wait());
    in_time(move || {
        for page in 0..4 {
            grant(&other, page);
            assert!(map(&quick, page).is_ok());
            assert!(other.revoke(DeviceAddr(page * PAGE), PAGE).unwrap().wait().completed());
        }
        // Also in its own domain, and in the address space.
        grant(&held_domain, 1);
        assert!(map(&slow, 1).is_ok());
        assert!(held_domain.revoke(DeviceAddr(PAGE), PAGE).unwrap().wait().completed());
        let start = guest.space().add_ram(None, &ram(PAGE)).unwrap();
        guest.space().remove(span(start.0, PAGE)).unwrap().wait();
        assert!(quick.attach(&held_domain).unwrap().wait().completed());
        grant(&held_domain, 0);
        assert!(map(&quick, 0).is_ok(), "granted again while the old mapping drains");
    });
    assert!(!waiter.is_finished());
    drop(held);
    assert!(waiter.join().unwrap().completed());
}

#[test]
fn a_guest_can_be_dropped_while_other_threads_hold_its_memory() {
    let (guest, ram) = plain_guest(8 * PAGE);
    number_pages(&ram, 1);
    let (ready, dropped) = (Arc::new(Barrier::new(5)), Arc::new(Barrier::new(5)));
    let holders: Vec<_> = (0..4)
        .map(|page| {
            let mapping = map(&guest.vdev(&format!("v{page}")).unwrap(), page).unwrap();
            let (ready, dropped) = (ready.clone(), dropped.clone());
            thread::spawn(move || {
                ready.wait();
                for _ in 0..1000 {
                    assert_eq!(word(&mapping), numbered(1, page), "while it is dropped");
                }
                dropped.wait();
                assert_eq!(word(&mapping), numbered(1, page), "afterwards");
            })
        })
        .collect();
    ready.wait();
    let file = inode(&ram);
    drop((guest, ram));
    dropped.wait();
    holders.into_iter().for_each(|holder| holder.join().unwrap());
    // The next guest frees what the last holder could not.
    drop(plain_guest(PAGE));
    assert_eq!(times_mapped(file), 0, "gone with the last holder");
}

#[test]
fn maps_find_each_page_as_it_was_before_or_after_a_change() {
    let (guest, ram) = iommu_guest(1024 * PAGE);
    number_pages(&ram, 1);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), 1024 * PAGE, Access::READ).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = thread::spawn({
        let (disk, stop) = (disk.clone(), stop.clone());
        move || {
            let mut random = Random::new(5);
            while !stop.load(Relaxed) {
                // These are never revoked: splits and merges around them must not show.
                let page = 1 + 2 * random.below(512);
                let addr = DeviceAddr(page * PAGE + 8);
                let mapping = disk.map(addr, PAGE - 8, MapFlags::READ).unwrap();
                assert_eq!(mapping.object_offset(), page * PAGE + 8);
            }
        }
    });
    let (mut random, started) = (Random::new(6), Instant::now());
    while started.elapsed() < RACE {
        let addr = 2 * random.below(512) * PAGE;
        domain.revoke(DeviceAddr(addr), PAGE).unwrap().wait();
        let access = if random.below(2) == 0 { Access::READ } else { Access::RW };
        domain.grant_identity(GuestPhys(addr), PAGE, access).unwrap();
        if random.below(64) == 0 {
            domain.grant_identity(GuestPhys(0), 1024 * PAGE, Access::READ).unwrap();
        }
    }
    stop.store(true, Relaxed);
    reader.join().unwrap();
}
