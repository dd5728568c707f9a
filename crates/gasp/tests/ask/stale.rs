//! Invalidations while the translator is asked: no answer is older than they.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

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
        let older = (0..3000).find_map(|_| {
            let index = random.below(PAGES);
            version[index as usize].fetch_add(1, Ordering::SeqCst);
            scene.domain.invalidate(DeviceAddr(index * PAGE), 1).unwrap().wait();
            // Complete: what is mapped from now on is this version or a later one.
            let now = version[index as usize].load(Ordering::SeqCst) % 16;
            let mapping = scene.disk.map(DeviceAddr(index * PAGE), 1, READ);
            let got = mapping.map(|mapping| mapping.object_offset() / PAGE);
            got.as_ref().map_or(true, |got| *got != now).then_some((got, now))
        });
        stop.store(true, Ordering::Relaxed);
        assert!(older.is_none(), "{older:?}");
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

#[test]
fn an_invalidation_waits_for_no_mapping_of_a_newer_answer() {
    // As many as take several chunks to take out, so that others have the table meanwhile.
    const PAGES: u64 = 1 << 15;
    const LAST: u64 = 8;
    let version = Arc::new(AtomicU64::new(0));
    let scene = Scene::new(16 * PAGE, {
        let version = Arc::clone(&version);
        move |_, _| page(PAGE, version.load(Ordering::SeqCst) * PAGE, Access::RW)
    });
    let held = AtomicU64::new(u64::MAX);
    thread::scope(|scope| {
        scope.spawn(|| {
            while held.load(Ordering::SeqCst) != LAST {
                let mapping = scene.disk.map(DeviceAddr(0), 1, READ).unwrap();
                let of = mapping.object_offset() / PAGE;
                held.store(of, Ordering::SeqCst);
                // Held until the next invalidation begins.
                let started = Instant::now();
                while of < LAST && version.load(Ordering::SeqCst) == of {
                    assert!(started.elapsed() < LONG, "version {of} is held, and waited for");
                    thread::yield_now();
                }
            }
        });
        for next in 1..=LAST {
            assert!(scene.disk.allows(DeviceAddr(PAGE), PAGES * PAGE, READ));
            assert!(eventually(|| held.load(Ordering::SeqCst) == next - 1));
            version.store(next, Ordering::SeqCst);
            scene.domain.invalidate_all().unwrap().wait();
        }
    });
}

#[test]
fn an_answer_that_is_entered_as_an_invalidation_begins_is_taken_out_whole() {
    // So many that the answer comes between the look at the page and the mark of the question.
    let others = (0..1 << 13).map(|page| device_span(HUGE + page * 2 * PAGE, PAGE));
    let spans: Vec<_> = core::iter::once(device_span(0, PAGE)).chain(others).collect();
    // One word, and one of many parts.
    for to in [HUGE, HUGE + PAGE] {
        let (guest, domain, disk, questions) = peer();
        drop(guest.space().remove(span(0, 16 * PAGE)).unwrap());
        guest.space().add_ram(Some(gasp::GuestPhys(0)), &ram(3 * HUGE)).unwrap();
        let invalidate = || domain.invalidate_ranges(&spans).unwrap();
        let started = Instant::now();
        invalidate().wait();
        let time = started.elapsed();
        for part in 0..10 {
            let thread = thread::spawn({
                let disk = disk.clone();
                move || disk.map(DeviceAddr(7 * PAGE), 1, READ).unwrap()
            });
            let (_, older) = next(&questions);
            let mut drain = thread::scope(|scope| {
                let invalidated = scope.spawn(invalidate);
                thread::sleep(time * part / 20);
                older.send(page(HUGE, to, Access::READ)).unwrap();
                invalidated.join().unwrap()
            });
            while !thread.is_finished() {
                if let Ok((_, answer)) = questions.recv_timeout(Duration::from_millis(1)) {
                    answer.send(page(HUGE, 0, Access::READ)).unwrap();
                }
            }
            let held = thread.join().unwrap();
            let is_older = held.object_offset() != 7 * PAGE;
            let there = domain.grants();
            let older = there.iter().find(|grant| grant.guest.0 != grant.device.start().0);
            assert_eq!(older, None, "after {part}/20 of {time:?}");
            assert_eq!(drain.pending(), usize::from(is_older), "after {part}/20 of {time:?}");
            drop(held);
            drain.wait();
            domain.invalidate_all().unwrap().wait();
        }
    }
}
