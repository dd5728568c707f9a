//! Invalidations while the translator is asked: no answer is older than they.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use gasp::{Access, DeviceAddr};
use parking_lot::Mutex;

use super::peer::{READ, mapping, next, peer, quiet};
use super::*;

#[test]
fn an_answer_whose_page_is_invalidated_meanwhile_is_asked_for_again() {
    let (_guest, domain, disk, questions) = peer();
    let thread = mapping(&disk, 3);
    let (_, stale) = next(&questions);
    assert!(domain.invalidate(DeviceAddr(3 * PAGE), 1).unwrap().wait().completed());
    // What it is worth now is not known, even if another page is invalidated later.
    stale.send(page(PAGE, 7 * PAGE, Access::READ)).unwrap();
    let (at, answer) = next(&questions);
    assert_eq!((at, domain.entries()), (DeviceAddr(3 * PAGE), 0));
    assert!(domain.invalidate(DeviceAddr(4 * PAGE), 1).unwrap().wait().completed());
    answer.send(page(PAGE, 8 * PAGE, Access::READ)).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(8));
    quiet(&questions);
}

#[test]
fn a_large_answer_of_which_a_part_was_invalidated_meanwhile_is_asked_for_again() {
    let (guest, domain, disk, questions) = peer();
    drop(guest.space().remove(span(0, 16 * PAGE)).unwrap());
    guest.space().add_ram(Some(gasp::GuestPhys(0)), &ram(2 * HUGE)).unwrap();
    let thread = mapping(&disk, 3);
    let (_, answer) = next(&questions);
    drop(domain.invalidate(DeviceAddr(9 * PAGE), 1).unwrap());
    answer.send(page(HUGE, 0, Access::READ)).unwrap();
    let (at, answer) = next(&questions);
    assert_eq!((at, domain.entries()), (DeviceAddr(3 * PAGE), 0));
    // What the invalidation of a part makes void again is the next answer alone.
    answer.send(page(HUGE, 0, Access::READ)).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(3));
    assert_eq!(domain.grants()[0].device, device_span(0, HUGE));
    quiet(&questions);
}

#[test]
fn an_answer_for_several_threads_is_asked_for_again_if_a_part_of_it_was_invalidated() {
    let (guest, domain, disk, questions) = peer();
    drop(guest.space().remove(span(0, 16 * PAGE)).unwrap());
    guest.space().add_ram(Some(gasp::GuestPhys(0)), &ram(2 * HUGE)).unwrap();
    let threads = [mapping(&disk, 3), mapping(&disk, 3)];
    let (_, answer) = next(&questions);
    quiet(&questions);
    drop(domain.invalidate(DeviceAddr(9 * PAGE), 1).unwrap());
    answer.send(page(HUGE, HUGE, Access::READ)).unwrap();
    next(&questions).1.send(page(HUGE, 0, Access::READ)).unwrap();
    assert_eq!(threads.map(|thread| thread.join().unwrap()), [Ok(3), Ok(3)]);
}

#[test]
fn many_invalidations_of_other_pages_do_not_make_an_answer_void() {
    let (_guest, domain, disk, questions) = peer();
    let thread = mapping(&disk, 0);
    let (_, answer) = next(&questions);
    for page in 1..1000 {
        drop(domain.invalidate(DeviceAddr(page * PAGE), 1).unwrap());
    }
    answer.send(page(PAGE, PAGE, Access::READ)).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(1));
    quiet(&questions);
}

#[test]
fn a_map_whose_page_is_invalidated_for_ever_is_refused() {
    let domain: Arc<Mutex<Option<Domain>>> = Arc::default();
    let scene = Scene::new(4 * PAGE, {
        let domain = Arc::clone(&domain);
        move |addr, access| {
            let domain = domain.lock().clone().unwrap();
            drop(domain.invalidate(addr, 1).unwrap());
            same(addr, access)
        }
    });
    *domain.lock() = Some(scene.domain.clone());
    let disk = scene.disk.clone();
    assert_eq!(in_time(move || errno(disk.map(DeviceAddr(0), 1, READ))), "EFAULT");
    assert_eq!(scene.asked.take(), 64);
    *domain.lock() = None;
}

#[test]
fn no_mapping_is_of_what_was_translated_before_the_last_invalidation() {
    const PAGES: u64 = 4;
    let version: Arc<[AtomicU64; PAGES as usize]> = Arc::default();
    let scene = Scene::with_limit(16 * PAGE, 3, {
        let version = Arc::clone(&version);
        move |addr, _| {
            let to = version[(addr.0 / PAGE) as usize].load(Ordering::SeqCst) % 16;
            page(PAGE, to * PAGE, Access::RW)
        }
    });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let devices: Vec<_> = (0..2)
            .map(|seed| {
                let (scene, version, stop) = (&scene, &version, &stop);
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    let mut count = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        let index = random.below(PAGES);
                        let before = version[index as usize].load(Ordering::SeqCst);
                        let Ok(mapping) = scene.disk.map(DeviceAddr(index * PAGE), 1, READ) else {
                            continue;
                        };
                        // The invalidation of the next version waits for this mapping; that of
                        // `before` may be on its way.
                        let now = version[index as usize].load(Ordering::SeqCst);
                        let got = mapping.object_offset() / PAGE;
                        let valid = (before.saturating_sub(1)..=now).any(|v| v % 16 == got);
                        assert!(valid, "{got} of {before} to {now}");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let mut random = Random::new(9);
        for _ in 0..3000 {
            let index = random.below(PAGES);
            version[index as usize].fetch_add(1, Ordering::SeqCst);
            scene.domain.invalidate(DeviceAddr(index * PAGE), 1).unwrap().wait();
            // Complete: what is mapped from now on is this version or a later one.
            let now = version[index as usize].load(Ordering::SeqCst) % 16;
            let mapping = scene.disk.map(DeviceAddr(index * PAGE), 1, READ).unwrap();
            assert_eq!(mapping.object_offset() / PAGE, now);
        }
        stop.store(true, Ordering::Relaxed);
        for device in devices {
            assert!(device.join().unwrap() > 100);
        }
    });
}

#[test]
fn what_was_invalidated_meanwhile_does_not_get_the_access_of_an_older_answer() {
    let (guest, domain, disk, questions) = peer();
    drop(guest.space().remove(span(0, 16 * PAGE)).unwrap());
    guest.space().add_ram(Some(gasp::GuestPhys(0)), &ram(2 * HUGE)).unwrap();
    let answers = |page| next(page).1;
    let writes = thread::spawn({
        let disk = disk.clone();
        move || disk.write(DeviceAddr(3 * PAGE), &[1]).is_ok()
    });
    let older = answers(&questions);
    // The guest takes the access to write another part away.
    drop(domain.invalidate(DeviceAddr(9 * PAGE), 1).unwrap());
    let thread = mapping(&disk, 9);
    answers(&questions).send(page(HUGE, 0, Access::READ)).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(9));
    older.send(page(HUGE, 0, Access::RW)).unwrap();
    answers(&questions).send(page(HUGE, 0, Access::READ)).unwrap();
    assert!(!writes.join().unwrap());
    let [grant] = domain.grants()[..] else { panic!("{:?}", domain.grants()) };
    assert_eq!((grant.device, grant.access), (device_span(0, HUGE), Access::READ));
}

#[test]
fn each_of_the_ranges_that_are_invalidated_makes_its_answer_void() {
    // The second of two at once; one that is followed by more than are told apart.
    for count in [0, 100] {
        let (_guest, domain, disk, questions) = peer();
        let thread = mapping(&disk, 3);
        let (_, void) = next(&questions);
        for number in 0..count {
            drop(domain.invalidate(DeviceAddr((100 + number) * PAGE), 1).unwrap());
        }
        let both = [device_span(0, PAGE), device_span(3 * PAGE, PAGE)];
        drop(domain.invalidate_ranges(&both).unwrap());
        if count > 0 {
            drop(domain.invalidate(DeviceAddr(1000 * PAGE), 1).unwrap());
        }
        void.send(page(PAGE, 7 * PAGE, Access::READ)).unwrap();
        next(&questions).1.send(page(PAGE, 8 * PAGE, Access::READ)).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(8));
    }
}

#[test]
fn a_page_that_is_invalidated_while_the_next_is_fetched_is_fetched_again() {
    let domain: Arc<Mutex<Option<Domain>>> = Arc::default();
    let scene = Scene::new(4 * PAGE, {
        let domain = Arc::clone(&domain);
        move |addr, access| {
            if addr.0 == PAGE
                && let Some(domain) = domain.lock().take()
            {
                drop(domain.invalidate(DeviceAddr(0), 1).unwrap());
            }
            same(addr, access)
        }
    });
    *domain.lock() = Some(scene.domain.clone());
    scene.disk.map(DeviceAddr(0), 2 * PAGE, READ).unwrap();
    assert_eq!(scene.asked.take(), 3);
}
