//! Invalidation, and changes of the guest's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gasp::{Access, DeviceAddr, GuestPhys, MapFlags, Reason};

use super::*;

const READ: MapFlags = MapFlags::READ;

#[test]
fn an_invalidation_waits_for_what_is_mapped_and_then_asks_again() {
    let to = Arc::new(AtomicU64::new(PAGE));
    let scene = Scene::new(16 * PAGE, {
        let to = Arc::clone(&to);
        move |_, _| page(PAGE, to.load(Ordering::SeqCst), Access::RW)
    });
    let map = |at| scene.disk.map(DeviceAddr(at), 1, MapFlags::RW).unwrap();
    let held = map(8 * PAGE + 4);
    let other = map(9 * PAGE);
    to.store(2 * PAGE, Ordering::SeqCst);
    assert_eq!(map(8 * PAGE).object_offset(), PAGE, "nothing was invalidated yet");
    let mut drain = scene.domain.invalidate(DeviceAddr(8 * PAGE + 100), 1).unwrap();
    assert_eq!(map(8 * PAGE).object_offset(), 2 * PAGE, "asked again, before the drain has ended");
    assert_eq!((drain.pending(), drain.poll()), (1, None));
    drop(held);
    assert!(drain.wait().completed());
    assert_eq!(map(9 * PAGE).object_offset(), PAGE, "the other page is as it was");
    drop(other);
    let drained = scene.domain.invalidate_all().unwrap().wait();
    assert_eq!((drained.holders, scene.domain.entries()), (0, 0));
    assert_eq!(map(9 * PAGE).object_offset(), 2 * PAGE);
    let spans = [device_span(0, PAGE), device_span(9 * PAGE, PAGE)];
    scene.domain.invalidate_ranges(&spans).unwrap().wait();
    assert_eq!(scene.domain.entries(), 0);
}

#[test]
fn a_large_page_is_one_entry_and_is_invalidated_whole() {
    for size in [HUGE, 1 << 30] {
        let scene =
            Scene::new(1 << 20, move |addr, _| page(size, addr.0 & !(size - 1), Access::RW));
        let ram = ram(2 << 30);
        drop(scene.guest.space().remove(span(0, 1 << 20)).unwrap());
        scene.guest.space().add_ram(Some(GuestPhys(0)), &ram).unwrap();
        let map = |at| scene.disk.map(DeviceAddr(at), 1, READ).unwrap();
        let held = map(size + 3 * PAGE);
        drop(map(size + size - 1));
        assert_eq!((scene.asked.take(), scene.domain.entries()), (1, 1));
        assert_eq!(scene.domain.grants()[0].device, device_span(size, size));
        let mut drain = scene.domain.invalidate(DeviceAddr(size + size / 2), 1).unwrap();
        assert_eq!((scene.domain.entries(), drain.pending()), (0, 1), "all of it, and its holder");
        drop(held);
        drain.wait();
        drop((map(0), map(size)));
        // Across the end of one into the next.
        let both = DeviceAddr(size - 1);
        scene.domain.invalidate(both, 2).unwrap().wait();
        assert_eq!(scene.domain.entries(), 0);
        // Two parts of one at once, and a part of the next.
        let held = [map(PAGE), map(size)];
        let parts = [0, 7, size / PAGE].map(|page| device_span(page * PAGE, PAGE));
        let mut drain = scene.domain.invalidate_ranges(&parts).unwrap();
        assert_eq!((scene.domain.entries(), drain.pending()), (0, 2));
        drop(held);
        drain.wait();
    }
}

#[test]
fn a_large_page_is_as_large_as_the_memory_behind_it() {
    // 2 MiB and 12 KiB of RAM, in an answer of 16 GiB.
    let scene = Scene::new(HUGE + 3 * PAGE, |_, _| page(16 << 30, 0, Access::RW));
    let map = |at| scene.disk.map(DeviceAddr(at), 1, READ);
    let device = |at| {
        let grants = scene.domain.grants();
        let inside = |grant: &&gasp::Grant| grant.device.contains(DeviceAddr(at));
        grants.iter().find(inside).map(|grant| grant.device)
    };
    map(5 * PAGE).unwrap();
    assert_eq!(device(5 * PAGE), Some(device_span(0, HUGE)));
    map(HUGE + PAGE).unwrap();
    assert_eq!(scene.domain.entries(), 2, "one page of 4 KiB, as the next MiB are not one thing");
    assert_eq!(
        error(map(HUGE + 3 * PAGE)).reason(),
        Reason::NoMemory { addr: GuestPhys(HUGE + 3 * PAGE) }
    );
    assert_eq!(error(map(4 << 30)).reason(), Reason::NoMemory { addr: GuestPhys(4 << 30) });
    assert_eq!(
        device(4 << 30),
        Some(device_span(4 << 30, 1 << 30)),
        "holes are as large as they are"
    );
}

#[test]
fn entries_that_are_there_are_not_replaced_by_a_larger_page() {
    let size = Arc::new(AtomicU64::new(PAGE));
    let scene = Scene::new(2 * HUGE, {
        let size = Arc::clone(&size);
        move |addr, _| {
            let size = size.load(Ordering::SeqCst);
            page(size, addr.0 & !(size - 1), Access::RW)
        }
    });
    let held = scene.disk.map(DeviceAddr(PAGE), 1, READ).unwrap();
    size.store(HUGE, Ordering::SeqCst);
    scene.disk.map(DeviceAddr(7 * PAGE), 1, READ).unwrap();
    assert_eq!(scene.domain.entries(), 2);
    let removed = scene.guest.space().remove(span(PAGE, PAGE)).unwrap();
    assert_eq!(removed.held_by_this_thread(), 1);
    drop(held);
    removed.wait();
}

#[test]
fn an_invalidation_inside_a_page_takes_out_all_of_its_parts() {
    // 2 MiB and 12 KiB of RAM, in an answer of 16 GiB, of which the invalidated address has none.
    let scene = Scene::new(HUGE + 3 * PAGE, |_, _| page(16 << 30, 0, Access::RW));
    let map = |at| scene.disk.map(DeviceAddr(at), 1, READ).unwrap();
    let held = [map(5 * PAGE), map(HUGE + PAGE)];
    drop(map(HUGE + 2 * PAGE));
    assert_eq!((scene.asked.take(), scene.domain.entries()), (3, 3));
    let mut drain = scene.domain.invalidate(DeviceAddr(3 << 30), 1).unwrap();
    assert_eq!((scene.domain.entries(), drain.pending()), (0, 2));
    drop(held);
    drain.wait();
}

#[test]
fn what_a_page_was_does_not_matter_after_its_invalidation() {
    let size = Arc::new(AtomicU64::new(HUGE));
    let scene = Scene::new(4 * HUGE, {
        let size = Arc::clone(&size);
        move |addr, _| {
            let size = size.load(Ordering::SeqCst);
            page(size, (addr.0 & !(size - 1)) + HUGE + PAGE, Access::RW)
        }
    });
    let map = |page: u64| scene.disk.map(DeviceAddr(page * PAGE), 1, READ).unwrap();
    // The memory behind it is not aligned to 2 MiB.
    [0, 1, 511, 512].into_iter().for_each(|page| drop(map(page)));
    assert_eq!(scene.domain.entries(), 4);
    scene.domain.invalidate(DeviceAddr(7 * PAGE), 1).unwrap().wait();
    assert_eq!(scene.domain.grants()[0].device, device_span(HUGE, PAGE), "the next page stays");
    size.store(PAGE, Ordering::SeqCst);
    [0, 1, 511].into_iter().for_each(|page| drop(map(page)));
    scene.domain.invalidate(DeviceAddr(7 * PAGE), 1).unwrap().wait();
    assert_eq!(scene.domain.entries(), 4, "of 4 KiB each");
    scene.domain.invalidate(DeviceAddr(PAGE), 1).unwrap().wait();
    assert_eq!(scene.domain.entries(), 3);
    // The second large page is in the table in a part still.
    let held = map(512);
    let mut drain = scene.domain.invalidate(DeviceAddr(2 * HUGE - 1), 1).unwrap();
    assert_eq!((scene.domain.entries(), drain.pending()), (2, 1));
    drop(held);
    drain.wait();
}

#[test]
fn a_page_that_a_change_of_memory_has_cut_is_invalidated_whole() {
    let scene = Scene::new(2 * HUGE, |addr, _| page(HUGE, addr.0 & !(HUGE - 1), Access::RW));
    let map = |page: u64| scene.disk.map(DeviceAddr(page * PAGE), 1, READ).unwrap();
    let held = map(3);
    scene.guest.space().remove(span(9 * PAGE, PAGE)).unwrap().wait();
    assert_eq!(scene.domain.entries(), 512);
    let mut drain = scene.domain.invalidate(DeviceAddr(HUGE - 1), 1).unwrap();
    assert_eq!((scene.domain.entries(), drain.pending()), (0, 1));
    drop(held);
    drain.wait();
}

#[test]
fn a_page_that_more_access_has_cut_is_invalidated_whole() {
    let writes = Arc::new(AtomicBool::new(false));
    let scene = Scene::new(2 * HUGE, {
        let writes = Arc::clone(&writes);
        move |addr, _| match writes.load(Ordering::SeqCst) {
            true => page(PAGE, addr.0 & !(PAGE - 1), Access::RW),
            false => page(HUGE, addr.0 & !(HUGE - 1), Access::READ),
        }
    });
    drop(scene.disk.map(DeviceAddr(0), 1, READ).unwrap());
    writes.store(true, Ordering::SeqCst);
    scene.disk.write(DeviceAddr(3 * PAGE), &[1]).unwrap();
    assert_eq!(scene.domain.entries(), 512);
    scene.domain.invalidate(DeviceAddr(9 * PAGE), 1).unwrap().wait();
    assert_eq!(scene.domain.entries(), 0);
}

#[test]
fn what_leads_elsewhere_without_an_invalidation_stays_as_it_was() {
    let to = Arc::new(AtomicU64::new(PAGE));
    let scene = Scene::new(16 * PAGE, {
        let to = Arc::clone(&to);
        move |_, access| page(PAGE, to.load(Ordering::SeqCst), access)
    });
    let held = scene.disk.map(DeviceAddr(0), 1, READ).unwrap();
    to.store(2 * PAGE, Ordering::SeqCst);
    assert_eq!(errno(scene.disk.map(DeviceAddr(0), 1, MapFlags::WRITE)), "EFAULT");
    assert_eq!(scene.disk.map(DeviceAddr(0), 1, READ).unwrap().object_offset(), PAGE);
    // So a change of the memory that is mapped finds it.
    let mut removed = scene.guest.space().remove(span(PAGE, PAGE)).unwrap();
    assert_eq!(removed.pending(), 1);
    drop(held);
    removed.wait();
}

#[test]
fn answers_follow_the_guests_memory() {
    let scene = Scene::new(4 * PAGE, same);
    let map = |page| scene.disk.map(DeviceAddr(page * PAGE), 1, READ);
    assert_eq!(error(map(5)).reason(), Reason::NoMemory { addr: GuestPhys(5 * PAGE) });
    scene.guest.space().add_ram(Some(GuestPhys(4 * PAGE)), &ram(2 * PAGE)).unwrap();
    map(5).unwrap();
    assert_eq!(scene.asked.take(), 1, "the answer is the same");
    let held = map(1).unwrap();
    let mut drain = scene.guest.space().remove(span(0, 2 * PAGE)).unwrap();
    assert_eq!((drain.pending(), errno(map(1))), (1, "ENXIO"));
    drop(held);
    assert!(drain.wait().completed());
    let drain = scene.guest.space().set_access(span(4 * PAGE, 2 * PAGE), Access::READ).unwrap();
    drain.wait();
    assert_eq!(errno(scene.disk.map(DeviceAddr(5 * PAGE), 1, MapFlags::RW)), "EACCES");
    assert_eq!(scene.asked.take(), 1, "for page 1");
}

#[test]
fn a_domain_is_removed_with_all_that_it_was_answered() {
    let scene = Scene::new(4 * PAGE, same);
    let held = scene.disk.map(DeviceAddr(0), 1, READ).unwrap();
    let mut drain = scene.disk.detach();
    assert_eq!((drain.pending(), errno(scene.disk.map(DeviceAddr(0), 1, READ))), (1, "EFAULT"));
    drop(held);
    drain.wait();
    let again = scene.domain.clone();
    scene.domain.remove().unwrap();
    assert_eq!(again.entries(), 0);
    assert_eq!(errno(scene.disk.attach(&again)), "ENOENT");
}

#[test]
fn no_part_of_a_page_is_older_than_the_last_invalidation_of_another_part() {
    const PAGES: u64 = HUGE / PAGE;
    // Where the page leads, from version to version: to what can be one word, and to what cannot.
    let to = |version: u64| [0, HUGE + PAGE, HUGE, 3 * PAGE][version as usize % 4];
    let version = Arc::new(AtomicU64::new(0));
    let scene = Scene::new(3 * HUGE, {
        let version = Arc::clone(&version);
        move |_, _| page(HUGE, to(version.load(Ordering::SeqCst)), Access::RW)
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (scene, stop) = (&scene, &stop);
        for seed in 0..2 {
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while !stop.load(Ordering::Relaxed) {
                    drop(scene.disk.map(DeviceAddr(random.below(PAGES) * PAGE), 1, READ));
                }
            });
        }
        // Words are cut by a change of memory.
        scope.spawn(move || {
            for round in 0.. {
                let access = if round % 2 == 0 { Access::RW } else { Access::RWX };
                let changed = span(round % 1024 * PAGE, PAGE);
                drop(scene.guest.space().set_access(changed, access).unwrap());
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let mut random = Random::new(9);
        let older = (1..2000).find_map(|round| {
            version.store(round, Ordering::SeqCst);
            let part = DeviceAddr(random.below(HUGE));
            scene.domain.invalidate(part, 1).unwrap().wait();
            let is_older =
                |grant: &gasp::Grant| grant.guest.0 != to(round) + grant.device.start().0;
            scene.domain.grants().into_iter().find(is_older).map(|grant| (round, grant))
        });
        stop.store(true, Ordering::Relaxed);
        assert_eq!(older, None);
    });
}
