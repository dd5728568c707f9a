//! Evictions while other threads map: they wait for nothing, and find what is held.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use gasp::{DeviceAddr, MapFlags, Mapping, Vdev};

use super::peer::mapping;
use super::*;

const READ: MapFlags = MapFlags::READ;
/// Tables of this limit are evicted from before they are full: from this many entries on.
const LARGE: u64 = 1024;
const MARK: u64 = LARGE - LARGE / 16;
/// What a thread needs at most for what it does without waiting.
const LITTLE: Duration = Duration::from_millis(200);

fn map(disk: &Vdev, page: u64) -> Mapping {
    disk.map(DeviceAddr(page * PAGE), 1, READ).unwrap()
}

/// The pages that the domain has translations of.
fn there(domain: &Domain) -> HashSet<u64> {
    let pages = |grant: &gasp::Grant| {
        let first = grant.device.start().0 / PAGE;
        first..first + grant.device.len() / PAGE
    };
    domain.grants().iter().flat_map(pages).collect()
}

/// A look-up that lasts until the result is dropped: scans wait for it.
fn look_up(disk: &Vdev) -> (mpsc::Sender<()>, thread::JoinHandle<()>) {
    let (end, ended) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel();
    let disk = disk.clone();
    let thread = thread::spawn(move || {
        let find = || {
            begun.send(()).unwrap();
            let _: Result<(), _> = ended.recv();
            Some(&disk)
        };
        drop(Vdev::map_page_of(find, DeviceAddr(0), 1, READ));
    });
    begins.recv().unwrap();
    (end, thread)
}

#[test]
fn others_miss_while_a_thread_evicts_and_find_in_the_table_what_is_held() {
    let scene = Scene::with_limit(PAGE << 12, LARGE, same);
    let (other, _) = device(&scene.guest, "other", gasp::DomainKind::Bypass);
    let held = map(&scene.disk, 1);
    (0..MARK - 1).for_each(|page| drop(map(&scene.disk, page)));
    scene.asked.take();
    let (end, looks_up) = look_up(&other);
    // Its answer is the one that an eviction follows, which waits for the look-up.
    let evicts = mapping(&scene.disk, 2000);
    assert!(eventually(|| scene.domain.entries() == MARK));
    thread::sleep(LITTLE);
    assert!(!evicts.is_finished(), "the scan waits");
    // Others go on.
    let disk = scene.disk.clone();
    in_time(move || (3000..3010).for_each(|page| drop(map(&disk, page))));
    assert_eq!(scene.asked.take(), 11);
    // What is being evicted counts, and is there, until it is known that nobody holds it.
    assert_eq!(scene.domain.entries(), MARK + 10);
    assert!(there(&scene.domain).is_superset(&(0..MARK - 1).collect()));
    // A map does not find it, and its answer waits for the end.
    let again = [0, 1].map(|page| mapping(&scene.disk, page));
    assert!(eventually(|| scene.asked.count.load(Ordering::SeqCst) == 2));
    thread::sleep(Duration::from_millis(100));
    assert!(again.iter().all(|thread| !thread.is_finished()));
    drop(end);
    looks_up.join().unwrap();
    assert_eq!(evicts.join().unwrap(), Ok(2000));
    assert_eq!(again.map(|thread| thread.join().unwrap()), [Ok(0), Ok(1)]);
    let there = there(&scene.domain);
    assert!(there.contains(&0) && there.contains(&1) && there.contains(&3009));
    assert!(!there.contains(&2), "this one is gone");
    let counts = scene.domain.ask_counts().unwrap();
    assert_eq!(scene.domain.entries(), counts.asked - 1 - counts.evicted, "page 1 was asked twice");
    drop(held);
}

#[test]
fn what_is_invalidated_while_it_is_being_evicted_is_gone_and_its_holder_is_found() {
    let scene = Scene::with_limit(PAGE << 12, LARGE, same);
    let (other, _) = device(&scene.guest, "other", gasp::DomainKind::Bypass);
    let held = [1, 2].map(|page| map(&scene.disk, page));
    (0..MARK - 1).for_each(|page| drop(map(&scene.disk, page)));
    let (end, looks_up) = look_up(&other);
    let evicts = mapping(&scene.disk, 2000);
    assert!(eventually(|| scene.domain.entries() == MARK));
    thread::sleep(LITTLE);
    let changes = thread::spawn({
        let (domain, guest) = (scene.domain.clone(), scene.guest.clone());
        move || {
            let invalidated = domain.invalidate(DeviceAddr(PAGE), PAGE).unwrap();
            let changed = guest.space().remove(span(2 * PAGE, PAGE)).unwrap();
            (invalidated, changed)
        }
    });
    thread::sleep(Duration::from_millis(100));
    drop(end);
    looks_up.join().unwrap();
    let (mut invalidated, mut changed) = changes.join().unwrap();
    assert_eq!((invalidated.pending(), changed.pending()), (1, 1));
    assert_eq!(evicts.join().unwrap(), Ok(2000));
    assert!(!there(&scene.domain).contains(&1), "the eviction does not put it back");
    drop(held);
    invalidated.wait();
    changed.wait();
    scene.asked.take();
    drop(map(&scene.disk, 1));
    assert_eq!(scene.asked.take(), 1);
}

#[test]
fn a_part_of_a_large_page_that_is_being_evicted_is_invalidated_with_all_of_it() {
    let scene = Scene::with_limit(PAGE << 12, LARGE, |addr, access| match addr.0 < HUGE {
        true => page(HUGE, 0, Access::READ),
        false => same(addr, access),
    });
    let (other, _) = device(&scene.guest, "other", gasp::DomainKind::Bypass);
    let held = map(&scene.disk, 3);
    (512..510 + MARK).for_each(|page| drop(map(&scene.disk, page)));
    assert_eq!(scene.domain.entries(), MARK - 1);
    let (end, looks_up) = look_up(&other);
    let evicts = mapping(&scene.disk, 3000);
    assert!(eventually(|| scene.domain.entries() == MARK));
    thread::sleep(LITTLE);
    let domain = scene.domain.clone();
    let invalidates = thread::spawn(move || domain.invalidate(DeviceAddr(9 * PAGE), PAGE).unwrap());
    assert!(eventually(|| scene.domain.entries() == MARK - 1));
    drop(end);
    looks_up.join().unwrap();
    let mut drain = invalidates.join().unwrap();
    assert_eq!((drain.pending(), evicts.join().unwrap()), (1, Ok(3000)));
    assert!(there(&scene.domain).iter().all(|&page| page >= 512));
    drop(held);
    drain.wait();
}

#[test]
fn a_large_table_has_room_before_it_is_full() {
    let scene = Scene::with_limit(PAGE << 12, LARGE, same);
    for page in 0..1 << 12 {
        drop(map(&scene.disk, page));
        assert!(scene.domain.entries() < MARK);
    }
    // All of it can be used, nevertheless.
    let held: Vec<_> = (0..LARGE).map(|page| map(&scene.disk, page)).collect();
    assert_eq!(scene.domain.entries(), LARGE);
    assert_eq!(errno(scene.disk.map(DeviceAddr(LARGE * PAGE), 1, READ)), "ENOSPC");
    drop(held);
    drop(map(&scene.disk, LARGE));
}

#[test]
fn threads_that_need_room_at_once_all_get_it() {
    for limit in [8, LARGE] {
        let scene = Scene::with_limit(PAGE << 12, limit, same);
        let threads: Vec<_> = (0..4_u64)
            .map(|seed| {
                let (disk, domain) = (scene.disk.clone(), scene.domain.clone());
                thread::spawn(move || {
                    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                    for _ in 0..8 * limit.max(500) {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        drop(map(&disk, (random >> 33) % (limit + limit / 2)));
                        assert!(domain.entries() <= limit);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn a_change_of_memory_finds_what_is_held_while_others_evict() {
    const PAGES: u64 = 64;
    let scene = Scene::with_limit(2 * PAGES * PAGE, 16, same);
    let stop = Arc::new(AtomicBool::new(false));
    let evict: Vec<_> = (0..2)
        .map(|thread| {
            let (disk, stop) = (scene.disk.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                let pages = (PAGES..2 * PAGES).filter(|page| page % 2 == thread).cycle();
                let running = |_: &u64| !stop.load(Ordering::SeqCst);
                pages.take_while(running).for_each(|page| drop(map(&disk, page)));
            })
        })
        .collect();
    let memory = ram(PAGE);
    let started = Instant::now();
    for page in (0..PAGES).cycle().take(4000) {
        let whole = span(page * PAGE, PAGE);
        let mapped = map(&scene.disk, page);
        let mut drain = scene.guest.space().remove(whole).unwrap();
        assert_eq!(drain.pending(), 1, "page {page}");
        drop(mapped);
        drain.wait();
        scene.guest.space().add_ram(Some(whole.start()), &memory).unwrap();
        if started.elapsed() > Duration::from_secs(5) {
            break;
        }
    }
    stop.store(true, Ordering::SeqCst);
    evict.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_device_that_is_moved_asks_its_new_domain_on_every_thread() {
    let scene = Scene::new(PAGE << 8, |_, _| refused(1));
    let asked =
        Arc::new(Asked { count: AtomicUsize::new(0), told: Mutex::default(), answer: same });
    let options = DomainOptions::ask(Arc::clone(&asked) as _);
    let new = scene.guest.domain("new", options).unwrap();
    for round in 1..3 {
        drop(scene.disk.attach(&new).unwrap());
        let barrier = Arc::new(std::sync::Barrier::new(24));
        let threads: Vec<_> = (0..24)
            .map(|page| {
                let (disk, barrier) = (scene.disk.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    drop(map(&disk, page));
                    barrier.wait();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((scene.asked.take(), asked.take()), (0, 24), "round {round}");
        drop(scene.disk.attach(&scene.domain).unwrap());
        assert_eq!(errno(scene.disk.map(DeviceAddr(0), 1, READ)), "EFAULT");
        assert_eq!((scene.asked.take(), asked.take()), (1, 0));
        new.invalidate_all().unwrap().wait();
    }
}
